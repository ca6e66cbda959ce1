"""Data sets that are known by name, classes and size, but whose media are not prepared: for dry runs on shapes.

Sizes belong to a copy of a data set (clips vanish from the web), so they are options and stand in the configs. No paper
or published script has a validation split of its own: "val" is the test split again, and recipes choose nothing by it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from mmr_jax.data.source import Dataset, complete
from mmr_jax.errors import UserError, nearest


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


def default_config() -> dict[str, Any]:
    """The data configuration with its defaults; `dataset` and the sizes must be given."""
    return {"name": "announced", "dataset": "", "unlabelled": 0, "labelled": 0, "test": 0}


class Announced:
    """A split that has a length and no records: reading one is a UserError."""

    def __init__(self, title: str, size: int):
        self._title, self._size = title, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> NoReturn:
        raise UserError(f"{self._title} has no prepared media; only mmr run --dry_run --shapes works with it yet")

    def take(self, indices) -> NoReturn:
        """There is nothing to take."""
        self[0]

    def labels(self) -> NoReturn:
        """There are no labels either."""
        self[0]


def load(data_config: Mapping[str, Any], modalities_config: Mapping[str, Any]) -> Dataset:
    """A data set with the sizes of `data_config` and whatever modalities are configured; classes are numbered."""
    config = complete(data_config, default_config())
    name = config["dataset"]
    if name not in KINDS:
        raise UserError(f"data.dataset is {name!r}, which is no announced data set{nearest(name, KINDS)}")
    kind, sizes = KINDS[name], {split: config[split] for split in ("unlabelled", "labelled", "test")}
    for split, size in sizes.items():
        if size < 1:
            raise UserError(f"data.{split} is {size}; give the number of examples of {kind.title} (at least 1)")
    splits = {split: Announced(kind.title, size) for split, size in sizes.items()}
    return Dataset(
        name=name,
        modalities=tuple(modalities_config),
        splits={**splits, "val": splits["test"]},
        class_names=tuple(f"class {i}" for i in range(kind.classes)),
        metric="map" if kind.multilabel else "top1",
        multilabel=kind.multilabel,
        notes=[f"{kind.title}, announced only: " + ", ".join(f"{s} {n:,}" for s, n in sizes.items()) + "."],
    )
