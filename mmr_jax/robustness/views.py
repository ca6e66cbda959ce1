"""The views of the paper as plain data, over seeds: mean and sample standard deviation everywhere.

Every function takes results of one alpha per method (see `table_results`), except `alpha_curves`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from mmr_jax.errors import UserError
from mmr_jax.robustness.metrics import KEYS, SliceSummary, analyse
from mmr_jax.robustness.results import Predictions, Result
from mmr_jax.robustness.subsets import all_subsets, parse_subset

Item = TypeVar("Item", Result, Predictions)
DEFAULT_ALPHA = 0.75  # the constant that worked well in the paper, section 5.2


class Stat(NamedTuple):
    """Mean and sample standard deviation (NaN for fewer than two values) of n values."""

    mean: float
    sd: float
    n: int


Table = dict[str, dict[str, dict[str, Stat]]]


def stat(values: Sequence[float]) -> Stat:
    """Mean and sample standard deviation of some numbers; all NaN if there are none."""
    n = len(values)
    mean = sum(values) / n if n else math.nan
    variance = sum((value - mean) ** 2 for value in values) / (n - 1) if n > 1 else math.nan
    return Stat(mean, math.sqrt(variance), n)


def by_method(items: Sequence[Item]) -> dict[str, list[Item]]:
    """Group by method, in order of first appearance."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.method, []).append(item)
    return groups


def table_alpha(method: str, alphas: Sequence[float | None], chosen: Mapping[str, float]) -> float | None:
    """The alpha of a method's row: the chosen, else none if one has none, else 0.75, else the largest < 1."""
    if method in chosen:
        for alpha in alphas:
            if alpha is not None and math.isclose(alpha, chosen[method], abs_tol=1e-9):
                return alpha
        raise UserError(f"{method!r} has no result with the chosen alpha {chosen[method]}; there are {alphas}")
    if None in alphas:
        return None
    below = [alpha for alpha in alphas if alpha < 1]
    return DEFAULT_ALPHA if DEFAULT_ALPHA in alphas else max(below or alphas)


def table_results(items: Sequence[Item], chosen: Mapping[str, float] | None = None) -> list[Item]:
    """Of the methods that come with several alphas, the items of one alpha each."""
    kept = []
    for method, group in by_method(items).items():
        alpha = table_alpha(method, list(dict.fromkeys(item.alpha for item in group)), chosen or {})
        kept += [item for item in group if item.alpha == alpha]
    return kept


def largest_set(pretrain: Iterable[str]) -> str:
    """The largest pretraining set: most modalities, of equals the alphabetically last; "" (unsaid) before any."""
    return max(pretrain, key=lambda name: (len(parse_subset(name)) if name else 0, name))


def largest_pretraining(items: Sequence[Item]) -> list[Item]:
    """The items of each method's `largest_set`."""
    kept = []
    for group in by_method(items).values():
        largest = largest_set(item.pretrain for item in group)
        kept += [item for item in group if item.pretrain == largest]
    return kept


def summaries(
    results: Sequence[Result],
    modalities: Sequence[str],
    train_subsets: Sequence[str] | None = None,
    include_full: bool = True,
) -> dict[str, dict[int, dict[str, SliceSummary]]]:
    """`analyse` of every result, `[method][seed][slice]`; UserError names method, seed and cell."""
    found: dict[str, dict[int, dict[str, SliceSummary]]] = {}
    for r in results:
        if r.seed in found.setdefault(r.method, {}):
            raise UserError(f"{r.method!r}, seed {r.seed}: two results with pretrain {r.pretrain!r}, alpha {r.alpha}")
        try:
            found[r.method][r.seed] = analyse(r.scores, modalities, train_subsets, include_full)
        except UserError as error:
            raise UserError(f"{r.method!r}, seed {r.seed}: {error}") from None
    return found


def metric_table(found: Mapping[str, Mapping[int, Mapping[str, SliceSummary]]]) -> Table:
    """Table 1 from `summaries`: `[method][slice][key]`; slices without a cell are absent."""
    return {method: _over_seeds(list(seeds.values()), _four) for method, seeds in found.items()}


def gain_table(found, baseline: str) -> Table:
    """Method - baseline for every metric, paired by seed where both have seeds in common."""
    return _paired(found, baseline, lambda value, base: value - base)


def ratio_table(found, baseline: str) -> Table:
    """Method / baseline for every metric, paired by seed; NaN where the baseline is 0."""
    return _paired(found, baseline, lambda value, base: value / base if base else math.nan)


def mean_matrix(results: Sequence[Result]) -> dict[str, dict[str, dict[str, Stat]]]:
    """`[method][train][eval]`: every cell over seeds."""
    return {
        method: {
            train: {cell: stat([r.scores[train][cell] for r in group]) for cell in row}
            for train, row in group[0].scores.items()
        }
        for method, group in by_method(results).items()
    }


def performance_vs_robustness(found) -> dict[str, dict[str, tuple[Stat, Stat]]]:
    """Fig. 6 from `summaries`: `[method][train]` -> (P(M_T), R(M_T)) over all M_E."""
    view = {}
    for method, seeds in found.items():
        overall = [slices["overall"] for slices in seeds.values()]
        view[method] = {
            train: (
                stat([one.performance_of[train] for one in overall]),
                stat([one.robustness_of[train] for one in overall]),
            )
            for train in overall[0].performance_of
        }
    return view


def by_overlap(results: Sequence[Result]) -> dict[str, dict[int, Stat]]:
    """Fig. 5: `[method][k]` -> mean over the cells with |M_T n M_E| = k, every M_T included."""
    return _grouped(results, lambda train, evaluated: len(train & evaluated))


def matched_by_size(results: Sequence[Result]) -> dict[str, dict[str, dict[int, Stat]]]:
    """Fig. 4: `[method][pretrain][k]` -> mean over the cells M_T = M_E with k modalities."""
    view: dict[str, dict[str, dict[int, Stat]]] = {}
    for pretrain in dict.fromkeys(r.pretrain for r in results):
        of_set = [r for r in results if r.pretrain == pretrain]
        for method, sizes in _grouped(of_set, lambda t, e: len(t) if t == e else None).items():
            view.setdefault(method, {})[pretrain] = sizes
    return view


def matched_scores(results: Sequence[Result]) -> dict[str, dict[str, dict[str, Stat]]]:
    """`[method][pretrain][subset]` -> the score of M_T = M_E = subset."""
    view: dict[str, dict[str, dict[str, Stat]]] = {}
    for method, group in by_method(results).items():
        for pretrain in dict.fromkeys(r.pretrain for r in group):
            of_set = [r for r in group if r.pretrain == pretrain]
            subsets = [s for s in of_set[0].scores if all(s in r.scores.get(s, {}) for r in of_set)]
            cells = {s: stat([r.scores[s][s] for r in of_set]) for s in subsets}
            view.setdefault(method, {})[pretrain] = cells
    return view


def best_eval(results: Sequence[Result]) -> dict[str, dict[str, tuple[str, Stat]]]:
    """Table 2: `[method][train]` -> the M_E of the highest mean score (smaller set on a tie), its score."""
    view: dict[str, dict[str, tuple[str, Stat]]] = {}
    for method, rows in mean_matrix(results).items():
        for train, row in rows.items():
            order = sorted(row, key=lambda name: (name.count("+"), name))
            view.setdefault(method, {})[train] = max(((e, row[e]) for e in order), key=lambda pair: pair[1].mean)
    return view


def matched_against(results: Sequence[Result], reference_rows: Sequence[Mapping] = ()) -> list[dict]:
    """Table 3: rows {"name", "reference": bool, "scores": {subset: Stat}} for M_T = M_E, references first.

    reference_rows: {"name": .., subset: score, ..} given by the caller, subsets in any order.
    """
    given = []
    for row in reference_rows:
        cells = {"+".join(parse_subset(s)): stat([float(v)]) for s, v in row.items() if s != "name"}
        given.append({"name": str(row["name"]), "reference": True, "scores": cells})
    own = [
        {"name": method, "reference": False, "scores": next(iter(sets.values()))}
        for method, sets in matched_scores(results).items()
    ]
    return given + own


def alpha_curves(
    results: Sequence[Result], modalities: Sequence[str], train_subsets: Sequence[str] | None = None
) -> dict[str, list[tuple[float, dict[str, dict[str, Stat]]]]]:
    """`[method]` -> (alpha, [slice][key]) by rising alpha, for methods that come with two alphas or more."""
    curves = {}
    for method, group in by_method([r for r in results if r.alpha is not None]).items():
        alphas = sorted({r.alpha for r in group})
        if len(alphas) < 2:
            continue
        curves[method] = []
        for alpha in alphas:
            found = summaries([r for r in group if r.alpha == alpha], modalities, train_subsets)
            curves[method].append((alpha, metric_table(found)[method]))
    return curves


def subsets_in_order(names, modalities: Sequence[str]) -> list[str]:
    """Some subset names, by size and then alphabetically."""
    return [subset for subset in all_subsets(modalities) if subset in names]


def _four(summary: SliceSummary) -> dict[str, float]:
    return summary.four()


def _over_seeds(runs: Sequence[Mapping], four: Callable) -> dict[str, dict[str, Stat]]:
    return {name: {key: stat([four(run[name])[key] for run in runs]) for key in KEYS} for name in runs[0]}


def _paired(found, baseline: str, combine: Callable[[float, float], float]) -> Table:
    base = found[baseline]
    table: Table = {}
    for method, seeds in found.items():
        shared = [seed for seed in seeds if seed in base]
        if shared:
            runs = [_combine(seeds[seed], base[seed], combine) for seed in shared]
            table[method] = _over_seeds(runs, dict)
            continue
        # No seed in common: compare the means; how they vary together is unknown, hence no deviation.
        ours, theirs = (_over_seeds(list(side.values()), _four) for side in (seeds, base))
        table[method] = {
            name: {key: stat([combine(ours[name][key].mean, theirs[name][key].mean)]) for key in KEYS} for name in ours
        }
    return table


def _combine(run: Mapping, base: Mapping, combine: Callable[[float, float], float]) -> dict:
    return {name: {key: combine(run[name].four()[key], base[name].four()[key]) for key in KEYS} for name in run}


def _grouped(results: Sequence[Result], group_of: Callable) -> dict[str, dict[int, Stat]]:
    """`[method][group]`: mean over a result's cells of a group, then over seeds; group None is left out."""
    view: dict[str, dict[int, Stat]] = {}
    for method, runs in by_method(results).items():
        per_seed: dict[int, list[float]] = {}
        for r in runs:
            cells: dict[int, list[float]] = {}
            for train, row in r.scores.items():
                for evaluated, score in row.items():
                    k = group_of(frozenset(train.split("+")), frozenset(evaluated.split("+")))
                    if k is not None:
                        cells.setdefault(k, []).append(score)
            for k, values in cells.items():
                per_seed.setdefault(k, []).append(sum(values) / len(values))
        view[method] = {k: stat(per_seed[k]) for k in sorted(per_seed)}
    return view
