"""Prepared data sets before they are prepared: known by name, classes and size, for dry runs on shapes.

Sizes belong to a copy of a data set (clips vanish from the web), so they stand in the configs.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from mmr_jax.data.source import Dataset
from mmr_jax.errors import UserError


class Kind(NamedTuple):
    """What all copies of a data set have in common."""

    title: str
    classes: int
    multilabel: bool = False


KINDS = {
    "audioset": Kind("AudioSet", 527, multilabel=True),
    "vggsound": Kind("VGGSound", 309),
    "kinetics400": Kind("Kinetics-400", 400),
    "imagenet_captions": Kind("ImageNet-Captions", 999),
}


class Announced:
    """A split that has a length and no records: reading one is a UserError."""

    def __init__(self, title: str, size: int):
        self._title, self._size = title, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> NoReturn:
        raise UserError(f"data.folder is empty: {self._title} is read from a folder that mmr prepare writes")

    def take(self, indices) -> NoReturn:
        """There is nothing to take."""
        self[0]

    def labels(self) -> NoReturn:
        """There are no labels either."""
        self[0]


def load(config: Mapping[str, Any], modalities_config: Mapping[str, Any]) -> Dataset:
    """A data set with `config["sizes"]` and whatever modalities are configured; classes
    are numbered, "val" is as long as the test split."""
    name = config["dataset"]
    if not name:
        raise UserError("data.folder is empty; give a folder that mmr prepare wrote")
    if name not in KINDS:
        raise UserError(f"data.dataset is {name!r}, of which only a prepared folder tells the classes; set data.folder")
    kind, sizes = KINDS[name], dict(config["sizes"])
    for split, size in sizes.items():
        if size < 1:
            raise UserError(f"data.sizes.{split} is {size}; without data.folder it must be at least 1")
    splits = {split: Announced(kind.title, size) for split, size in sizes.items()}
    splits["val"] = splits["test"]
    splits |= {text.partition("=")[0]: splits["test"] for text in config["more_tests"]}
    return Dataset(
        name=name,
        modalities=tuple(modalities_config),
        splits=splits,
        class_names=tuple(f"class {i}" for i in range(kind.classes)),
        metric="map" if kind.multilabel else "top1",
        multilabel=kind.multilabel,
        notes=[f"{kind.title}, announced only: " + ", ".join(f"{s} {n:,}" for s, n in sizes.items()) + "."],
    )
