"""Numbers as text, and the summary of a study in words."""

import math
from dataclasses import dataclass

from mmr_jax.robustness.report.content import Content, in_unit_interval
from mmr_jax.robustness.subsets import all_subsets
from mmr_jax.robustness.views import Stat

METRICS = {"top1": "top-1 accuracy", "map": "mAP"}
SLICE_NAMES = {"overall": "Overall", "missing": "Missing", "added": "Added", "transfer": "Transfer"}


@dataclass(frozen=True)
class Scale:
    """How scores are written: in percent if all lie in [0, 1], else as they are."""

    factor: float
    decimals: int

    def number(self, value: float, signed: bool = False) -> str:
        """One score or difference; a dash for NaN."""
        if not math.isfinite(value):
            return "–"
        text = f"{value * self.factor:{'+' if signed else ''}.{self.decimals}f}"
        return text.replace("-", "−")

    def stat(self, stat: Stat, signed: bool = False) -> str:
        """Mean ± sample standard deviation, the latter only where there are two seeds."""
        deviation = f" ± {self.number(stat.sd)}" if math.isfinite(stat.sd) else ""
        return self.number(stat.mean, signed) + deviation


def scale_of(content: Content) -> Scale:
    """Percent with one decimal for scores in [0, 1]; else one decimal from 10 on, three below."""
    if in_unit_interval(content.results):
        return Scale(100, 1)
    largest = max(abs(score) for r in content.results for row in r.scores.values() for score in row.values())
    return Scale(1, 1 if largest >= 10 else 3)


def metric_name(content: Content) -> str:
    """The score in words, with its unit."""
    name = METRICS.get(content.metric or "", content.metric or "score")
    return f"{name} in %" if scale_of(content).factor == 100 else name


def listed(names) -> str:
    """`["a", "b", "c"]` -> "a, b and c"."""
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def summary(content: Content) -> str:
    """One paragraph: what was compared, the most robust method and its gain, what lowers R, chance."""
    parts = [_scope(content), _best(content), _lower(content), _slices(content), _chance(content)]
    return " ".join(part for part in parts if part)


def _scope(c: Content) -> str:
    n, total = len(c.methods), len(all_subsets(c.modalities))
    seeds = {len(runs) for runs in c.summaries.values()}
    per = f"{seeds.pop()}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
    trained = "each" if len(c.train_subsets) == total else f"{len(c.train_subsets)}"
    return (
        f"{n} method{'s' * (n > 1)}, trained on {trained} of the {total} subsets of {listed(c.modalities)} "
        f"and evaluated on all of them ({c.slices['overall'].cells} cells per method, seeds: {per}). "
        f"P is the mean and R the minimum over evaluation subsets, {metric_name(c)}."
    )


def _best(c: Content) -> str:
    scale, best = scale_of(c), c.best
    row, base = c.table[best]["overall"], c.table[c.baseline]["overall"]
    own = f"R = {scale.stat(row['robustness'])}, P = {scale.stat(row['performance'])}"
    if len(c.methods) == 1:
        return f"{best} has {own}."
    if best == c.baseline:
        return f"No method is more robust than the baseline {best}: {own}."
    ratio = c.ratios[best]["overall"]["robustness"].mean
    times = f", {ratio:.2f} times" if math.isfinite(ratio) else ""
    other = f"R = {scale.stat(base['robustness'])}, P = {scale.stat(base['performance'])} of {c.baseline}"
    return f"{best} is the most robust: {own}, against {other}: R {_gain(c, best)}{times}."


def _gain(c: Content, method: str) -> str:
    scale = scale_of(c)
    text = scale.number(c.gains[method]["overall"]["robustness"].mean, signed=True)
    if method not in c.intervals:
        return text
    interval = c.intervals[method]["overall"]["robustness"]
    low, high = scale.number(interval.low, True), scale.number(interval.high, True)
    doubt = ", which includes zero" if interval.low <= 0 <= interval.high else ""
    return f"{text} (95 % interval {low} to {high}{doubt})"


def _lower(c: Content) -> str:
    """The other methods against the baseline; one that lowers R is said to do so."""
    rest = [m for m in c.methods if m not in (c.best, c.baseline)]
    lower = [m for m in rest if c.gains[m]["overall"]["robustness"].mean < 0]
    higher = [m for m in rest if m not in lower]
    texts = []
    if higher:
        gains = listed(f"{method} by {_gain(c, method)}" for method in higher)
        texts.append(f"R against {c.baseline} also changes for {gains}.")
    if lower:
        texts.append(f"R is lower than that of {c.baseline} for {listed(f'{m} ({_gain(c, m)})' for m in lower)}.")
    return " ".join(texts)


def _slices(c: Content) -> str:
    scale, row = scale_of(c), c.table[c.best]
    names = [name for name in row if name != "overall"]
    if not names:
        return ""
    parts = [
        f"{name} P = {scale.number(row[name]['performance'].mean)}, R = {scale.number(row[name]['robustness'].mean)}"
        for name in names
    ]
    hardest = min(names, key=lambda name: row[name]["robustness"].mean)
    return f"By slice, {c.best} reaches {'; '.join(parts)}; lowest in {hardest}."


def _chance(c: Content) -> str:
    if c.chance is None:
        return ""
    scale = scale_of(c)
    text = f"Chance level is {scale.number(c.chance)}"
    if not c.corrected:
        return text + "."
    pairs = [f"{m} {scale.number(c.corrected[m].mean)}" for m in dict.fromkeys((c.best, c.baseline))]
    below = [m for m in c.methods if c.corrected[m].mean <= 0]
    tail = f" At or below chance in R: {listed(below)}." if below else ""
    return f"{text}; R corrected for chance: {listed(pairs)}.{tail}"
