"""Data sets that mmr prepare wrote: which clips make which split, and what is read of them."""

import hashlib
from collections.abc import Mapping
from typing import Any

from mmr_jax.data import announced
from mmr_jax.data.mixture import Joined, Mixed
from mmr_jax.data.prepared.choose import Part, parse, rows_of
from mmr_jax.data.prepared.folder import Folder
from mmr_jax.data.prepared.inputs import STORED_AS
from mmr_jax.data.prepared.labelled import Labelled, LabelSet, labelled_rows
from mmr_jax.data.prepared.split import PreparedSplit, Wanted
from mmr_jax.data.source import Cached, Dataset, Source, complete
from mmr_jax.data.unreadable import Tally, check_policy
from mmr_jax.errors import UserError, nearest

SPLITS = ("unlabelled", "labelled", "val", "test")
_TESTS = ("test", "more_tests")
LATER = {"pretrain": ("labelled", *_TESTS), "train": _TESTS}  # what these stages do not depend on


def default_config() -> dict[str, Any]:
    """The data configuration with its defaults; the splits are written as prepared/choose.py says."""
    return {
        "name": "prepared",
        "folder": "",  # written by mmr prepare; empty: shapes alone, see announced.py
        "label": "labels",  # the label set that is the task
        "text": "text",  # the text set that is the modality text
        "unlabelled": "train",
        "labelled": "train",
        "val": "val",
        "test": "test",
        "more_tests": (),  # further test splits, for study.test_splits: "name=split"
        "in_memory": False,  # decode once and keep it, for small sets; training then cuts as evaluation does
        "on_unreadable": "error",  # or skip, or missing
        "max_unreadable": 0.01,  # share of unreadable examples above which a run stops
        "dataset": "",  # what the folder must hold; empty: anything
        "sizes": {"unlabelled": 0, "labelled": 0, "test": 0},  # expected examples; 0: any number
    }


def load(data_config: Mapping[str, Any], modalities_config: Mapping[str, Any]) -> Dataset:
    """The data set in `data.folder`; without a folder one that is only announced."""
    config = complete(data_config, default_config())
    check_policy(config)
    if not config["folder"]:
        return announced.load(config, modalities_config)
    chooser = _Chooser(config, modalities_config)
    main, label = chooser.main, config["label"]
    splits = {name: chooser.split(config[name], f"data.{name}", labelled=name != "unlabelled") for name in SPLITS}
    for text in config["more_tests"]:
        name, _, rest = text.partition("=")
        if not rest or name in splits:
            raise UserError(f"data.more_tests has {text!r}; name=split is expected, with a name of its own")
        splits[name] = chooser.split(rest, "data.more_tests", labelled=True)
    task = main.info["label_sets"][label]
    return Dataset(
        name=main.info["name"],
        modalities=tuple(modalities_config),
        splits=splits,
        class_names=main.classes[label],
        metric=task["metric"],
        multilabel=task["multilabel"],
        notes=[*main.info["notes"], _sizes(config, splits)],
        fingerprint=chooser.fingerprint(),
        tally=chooser.tally,
    )


class _Chooser:
    """Opens folders and makes splits of them."""

    def __init__(self, config: Mapping[str, Any], modalities: Mapping[str, Any]):
        self._config, self._modalities = config, modalities
        self._opened: dict[str, Folder] = {}
        self._media: dict[tuple[str, str], Source] = {}
        self.tally = Tally(config["max_unreadable"])
        self.main = self.folder("")
        name, label = self.main.info["name"], config["label"]
        if config["dataset"] not in ("", name):
            raise UserError(f"data.folder: {self.main.path} holds {name}, but data.dataset is {config['dataset']!r}")
        _check_label(self.main, label, "data.label")

    def folder(self, path: str) -> Folder:
        """The prepared folder at `path` (default: data.folder), checked against the modalities."""
        if path not in self._opened:
            self._opened[path] = Folder(path or self._config["folder"])
            _check_modalities(self._opened[path], self._modalities, self._config["text"])
        return self._opened[path]

    def split(self, text: str, field: str, labelled: bool) -> Source:
        """The source that `text` describes."""
        parts = parse(text, field)
        if field != "data.unlabelled" and parts[0].weight:
            raise UserError(f"{field} is {text!r}: weights are for data.unlabelled, which is drawn from as it is")
        if not labelled and any(part.label for part in parts):
            raise UserError(f"{field} is {text!r}: no labels are read here, so #{parts[0].label} means nothing")
        sources = [self._part(part, field, labelled) for part in parts]
        if parts[0].weight:
            return Mixed(sources, [part.weight for part in parts])
        return sources[0] if len(sources) == 1 else Joined(sources)

    def media(self, folder: Folder, split: str) -> Source:
        """All records of a split, whoever takes which of them."""
        key = (str(folder.path), split)
        if key not in self._media:
            config = self._config
            wanted = Wanted(self._modalities, config["text"], config["on_unreadable"], self.tally)
            source = PreparedSplit(folder.split(split), wanted)
            self._media[key] = Cached(source) if config["in_memory"] else source
        return self._media[key]

    def _part(self, part: Part, field: str, labelled: bool) -> Source:
        folder, task = self.folder(part.folder), self._config["label"]
        split, label = folder.split(part.split), part.label or task
        rows = rows_of(part, len(split))
        if labelled:
            _check_label(folder, label, field)
            if folder.classes[label] != self.main.classes[task]:
                raise UserError(f"{field}: the classes of {label!r} in {folder.path} are not those of data.label")
            rows = labelled_rows(split.index, label, rows)
        if not len(rows):
            what = "labelled examples" if labelled else "examples"
            raise UserError(f"{field}: {part.split!r} of {folder.path} has no {what}")
        several = (folder if labelled else self.main).info["label_sets"][label if labelled else task]["multilabel"]
        labels = LabelSet(label if labelled else "", len(self.main.classes[task]), several)
        return Labelled(self.media(folder, part.split), split.index, rows, labels)

    def fingerprint(self) -> str:
        """Names the content of all folders."""
        digests = sorted(folder.info["digest"] for folder in self._opened.values())
        return hashlib.blake2b("".join(digests).encode(), digest_size=8).hexdigest()


def _check_label(folder: Folder, label: str, field: str) -> None:
    if label not in folder.info["label_sets"]:
        raise UserError(f"{field}: {folder.path} has no label set {label!r}{nearest(label, folder.info['label_sets'])}")


def _check_modalities(folder: Folder, modalities: Mapping[str, Any], text: str) -> None:
    """Refuse modalities that the folder cannot give."""
    settings = folder.info["settings"]
    for m, spec in modalities.items():
        stored = STORED_AS.get(spec["kind"])
        if stored not in folder.info["modalities"]:
            known = ", ".join(folder.info["modalities"])
            raise UserError(f"modalities.{m} is of kind {spec['kind']!r}; {folder.path} holds {known}")
        if stored == "audio" and spec["sample_rate"] != settings["rate"]:
            raise UserError(
                f"modalities.{m}.sample_rate is {spec['sample_rate']}; {folder.path} has {settings['rate']}"
            )
        if stored == "frames" and spec["channels"] not in (1, 3):
            raise UserError(f"modalities.{m}.channels is {spec['channels']}; 3 (colour) or 1 (grey) is expected")
        if stored == "text" and text not in folder.info["texts"]:
            raise UserError(f"data.text: {folder.path} has no text set {text!r}{nearest(text, folder.info['texts'])}")


def _sizes(config: Mapping[str, Any], splits: Mapping[str, Source]) -> str:
    """Examples per split, and where they are not as many as the configuration expects."""

    def one(name: str) -> str:
        size, wanted = len(splits[name]), config["sizes"].get(name, 0)
        return f"{name} {size:,}" + (f" (expected {wanted:,})" if wanted not in (0, size) else "")

    return "Examples: " + ", ".join(one(name) for name in splits) + "."
