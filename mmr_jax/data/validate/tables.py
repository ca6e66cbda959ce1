"""The tables of the report, for the page and the terminal."""

from collections.abc import Mapping
from typing import Any

from mmr_jax.data.prepare.records import MODALITIES
from mmr_jax.data.validate.facts import SUSPICIOUS
from mmr_jax.robustness.report.blocks import Table

_ENDS = 8  # classes that are shown from the top and from the bottom
_NAMED = 6  # classes without an example that are named
_SHOWN = 3  # cases in the overview

Numbers = Mapping[str, Any]


def clips(found: Numbers) -> Table:
    """Clips per split and modality."""
    rows = [
        [name, _n(s["clips"]), _n(s["read"]), *(_n(s["present"][m]) for m in MODALITIES), f"{s['hours']:.2f}"]
        for name, s in found["splits"].items()
    ]
    note = "" if found["share"] == 1 else f"Read: a random share of {found['share']:g}. All else is from the index."
    return Table("Clips", ["split", "clips", "read", *MODALITIES, "hours"], rows, note)


def combinations(found: Numbers) -> Table:
    """Which modalities clips have together."""
    splits = found["splits"]
    names = dict.fromkeys(name for of in splits.values() for name in of["combinations"])
    rows = [[name, *(_n(of["combinations"].get(name, 0)) for of in splits.values())] for name in names]
    return Table("Modalities that clips have together", ["", *splits], rows)


def durations(found: Numbers) -> Table:
    """Seconds."""
    columns = ["shortest", "median", "mean", "95 %", "longest"]
    rows = [[name, *(f"{of[c]:.2f}" for c in columns)] for name, of in found["durations"]["splits"].items()]
    return Table("Seconds per clip", ["split", *columns], rows)


def texts(found: Numbers) -> Table | None:
    """Lengths in words and bytes."""
    columns = ["median", "mean", "95 %", "longest"]
    rows = []
    for name, of in found["texts"].items():
        for unit in [unit for unit in ("words", "bytes") if unit in of]:
            lengths = [f"{of[unit]['mean']:.1f}" if c == "mean" else _n(of[unit][c]) for c in columns]
            rows.append([f"{name}, {unit}", _n(of["clips"]), _n(of["texts"]), *lengths])
    note = "The tokenizer byte needs 2 ids more than bytes, the tokenizer word one per word."
    return Table("Text lengths", ["", "clips", "texts", *columns], rows, note) if rows else None


def log_mel(found: Numbers) -> Table | None:
    """What the config's `mean` and `std` of a spectrogram want."""
    rows = [
        [name, f"{of['mean']:.3f}", f"{of['std']:.3f}", f"mean={of['mean']:.2f}, std={of['std']:.2f}"]
        for name, of in found["log_mel"].items()
    ]
    title = f"Log-mel over valid frames ({found['mels']} mels, {found['window']} window)"
    return Table(title, ["split", "mean", "deviation", "for the config"], rows) if rows else None


def pixels(found: Numbers) -> Table | None:
    """What the config's `mean` and `std` of images and video want."""
    rows = []
    for name, of in found["pixels"].items():
        mean, std = (", ".join(f"{value:.3f}" for value in of[key]) for key in ("mean", "std"))
        rows.append([name, f"mean=({mean}), std=({std})"])
    return Table("Pixels / 255: red, green, blue", ["split", "for the config"], rows) if rows else None


def labels(name: str, of: Numbers) -> Table:
    """The most and the least frequent classes."""
    counts = {split: s["counts"] for split, s in of["splits"].items()}
    order = sorted(next(iter(counts.values())), key=lambda c: -sum(s[c] for s in counts.values()))
    shown = order if len(order) <= 2 * _ENDS else [*order[:_ENDS], None, *order[-_ENDS:]]
    rows = [["…", *("" for _ in counts)] if c is None else [c, *(_n(s[c]) for s in counts.values())] for c in shown]
    kind = ", several per clip" if of["multilabel"] else ""
    notes = [
        f"{split}: {_n(s['labelled'])} clips with a label{_lacking(s['counts'])}" for split, s in of["splits"].items()
    ]
    return Table(f"{name}: {len(order)} classes{kind}", ["class", *counts], rows, "; ".join(notes) + ".")


def _lacking(counts: Mapping[str, int]) -> str:
    none = [c for c, n in counts.items() if not n]
    if not none:
        return ""
    more = f" and {len(none) - _NAMED} more" if len(none) > _NAMED else ""
    return f", {len(none)} of {len(counts)} classes without one ({', '.join(none[:_NAMED])}{more})"


def suspicious(found: Numbers) -> Table | None:
    """Everything suspicious with its count and the first ids; None if there is nothing."""
    rows = []
    for kind, of in found["suspicious"].items():
        first = [case["name"] for case in of["first"][:_SHOWN]]
        rows.append([kind, _n(of["count"]), ", ".join(first) + ("…" if of["count"] > _SHOWN else "")])
    return Table("What is suspicious", ["what", "number", "first"], rows) if rows else None


def cases(kind: str, of: Numbers) -> Table:
    """The first cases of one kind."""
    rows = [[c["name"], c["split"], str(c["row"]) if c["row"] >= 0 else "", c["detail"]] for c in of["first"]]
    shown = f", the first {len(rows)}" if of["count"] > len(rows) else ""
    return Table(f"{kind}: {_n(of['count'])}{shown}", ["", "split", "row", "detail"], rows, SUSPICIOUS[kind] + ".")


def _n(number: int) -> str:
    return f"{number:,}"
