import math
import statistics

import numpy as np
import pytest

from mmr_jax.errors import UserError
from mmr_jax.robustness import Result, all_subsets, summarize, views

MODALITIES = ["a", "b", "c"]
SUBSETS = all_subsets(MODALITIES)


def made(method, seed, pretrain="a+b+c", alpha=None, subsets=SUBSETS, shift=0.0):
    rng = np.random.default_rng([seed, len(method), len(pretrain)])
    cells = {t: {e: float(rng.uniform(0.1, 0.9)) + shift for e in subsets} for t in subsets}
    return Result(method, cells, seed=seed, pretrain=pretrain, alpha=alpha)


RESULTS = [made(method, seed) for method in ("finetune", "masd_x") for seed in (0, 1, 2)]
SEEDS = {m: [r for r in RESULTS if r.method == m] for m in ("finetune", "masd_x")}


def check(stat, values):
    assert stat.mean == pytest.approx(statistics.mean(values)) and stat.n == len(values)
    assert stat.sd == pytest.approx(statistics.stdev(values))


def test_stat_of_few_values():
    assert views.stat([2.0]).mean == 2 and math.isnan(views.stat([2.0]).sd)
    assert math.isnan(views.stat([]).mean)


def test_metric_table_is_the_mean_over_seeds():
    table = views.metric_table(views.summaries(RESULTS, MODALITIES))
    for method, runs in SEEDS.items():
        s = [summarize(r.scores, MODALITIES) for r in runs]
        check(table[method]["overall"]["robustness"], [x["robustness"] for x in s])
        check(table[method]["transfer"]["performance_best"], [x["transfer"]["performance_best"] for x in s])


def test_gain_and_ratio_are_paired_by_seed():
    found = views.summaries(RESULTS, MODALITIES)
    s = {m: [summarize(r.scores, MODALITIES) for r in runs] for m, runs in SEEDS.items()}
    pairs = [(x["added"]["robustness"], y["added"]["robustness"]) for x, y in zip(*s.values(), strict=True)]
    check(views.gain_table(found, "finetune")["masd_x"]["added"]["robustness"], [y - x for x, y in pairs])
    check(views.ratio_table(found, "finetune")["masd_x"]["added"]["robustness"], [y / x for x, y in pairs])


def test_gain_without_common_seeds_compares_means():
    runs = [*SEEDS["finetune"], made("masd_x", 7), made("masd_x", 8)]
    gain = views.gain_table(views.summaries(runs, MODALITIES), "finetune")["masd_x"]["overall"]["performance"]
    means = [[summarize(r.scores, MODALITIES)["performance"] for r in part] for part in (runs[:3], runs[3:])]
    assert gain.mean == pytest.approx(statistics.mean(means[1]) - statistics.mean(means[0]))
    assert math.isnan(gain.sd)


def test_ratio_to_zero_is_undefined():
    zero = Result("base", {"a": {"a": 0.0}})
    found = views.summaries([zero, Result("m", {"a": {"a": 0.5}})], ["a"])
    assert math.isnan(views.ratio_table(found, "base")["m"]["overall"]["robustness"].mean)


def test_by_overlap_counts_shared_modalities():
    view = views.by_overlap(RESULTS)["finetune"]
    for k in range(4):
        values = []
        for r in SEEDS["finetune"]:
            cells = [r.scores[t][e] for t in SUBSETS for e in SUBSETS if len(set(t) & set(e) - {"+"}) == k]
            assert len(cells) == (12, 27, 9, 1)[k]
            values.append(statistics.mean(cells))
        check(view[k], values)


def test_performance_against_robustness_per_training_set():
    view = views.performance_vs_robustness(views.summaries(RESULTS, MODALITIES))["masd_x"]
    rows = [list(r.scores["b+c"].values()) for r in SEEDS["masd_x"]]
    check(view["b+c"][0], [statistics.mean(row) for row in rows])
    check(view["b+c"][1], [min(row) for row in rows])


def test_best_eval_is_the_argmax_of_the_mean_and_small_on_ties():
    best = views.best_eval(RESULTS)["finetune"]
    for train in SUBSETS:
        means = {e: statistics.mean(r.scores[train][e] for r in SEEDS["finetune"]) for e in SUBSETS}
        assert best[train][0] == max(means, key=means.get)
        assert best[train][1].mean == pytest.approx(max(means.values()))
    flat = Result("m", {"a": dict.fromkeys(("a+b", "b", "a"), 0.5)})
    assert views.best_eval([flat])["m"]["a"][0] == "a"


def test_matched_views_by_pretraining_set():
    narrow = [made("finetune", seed, "a+b", subsets=all_subsets(["a", "b"])) for seed in (0, 1)]
    sizes = views.matched_by_size(RESULTS + narrow)["finetune"]
    full = SEEDS["finetune"]
    check(sizes["a+b+c"][1], [statistics.mean(r.scores[s][s] for s in "abc") for r in full])
    check(sizes["a+b"][2], [r.scores["a+b"]["a+b"] for r in narrow])
    assert list(sizes["a+b"]) == [1, 2] and list(sizes["a+b+c"]) == [1, 2, 3]
    check(views.matched_scores(RESULTS + narrow)["finetune"]["a+b"]["b"], [r.scores["b"]["b"] for r in narrow])
    assert views.largest_pretraining(RESULTS + narrow) == RESULTS


def test_matched_against_references():
    rows = views.matched_against(RESULTS, [{"name": "published", "b+a": 0.5}])
    assert [(row["name"], row["reference"]) for row in rows] == [
        ("published", True),
        ("finetune", False),
        ("masd_x", False),
    ]
    assert rows[0]["scores"]["a+b"].mean == 0.5 and list(rows[0]["scores"]) == ["a+b"]
    check(rows[1]["scores"]["c"], [r.scores["c"]["c"] for r in SEEDS["finetune"]])


@pytest.mark.parametrize(
    "alphas, chosen, expected",
    [
        ([None], {}, None),
        ([0.0, 0.5, 0.75, 1.0], {}, 0.75),
        ([0.0, 0.5, 0.9, 1.0], {}, 0.9),
        ([1.0], {}, 1.0),
        ([0.1 + 0.2, 0.75], {"m": 0.3}, 0.1 + 0.2),
    ],
)
def test_alpha_of_the_table(alphas, chosen, expected):
    assert views.table_alpha("m", alphas, chosen) == expected


def test_chosen_alpha_must_exist():
    with pytest.raises(UserError, match="'m' has no result with the chosen alpha 0.4"):
        views.table_alpha("m", [0.5], {"m": 0.4})


def test_alpha_curves():
    runs = [made("w", seed, alpha=alpha, shift=alpha) for alpha in (1.0, 0.0, 0.5) for seed in (0, 1)]
    curve = views.alpha_curves([*runs, *RESULTS], MODALITIES)["w"]
    assert [alpha for alpha, _ in curve] == [0.0, 0.5, 1.0]
    start = curve[0][1]["missing"]["performance"].mean
    # `shift` moves every cell by alpha, so every metric moves by alpha too.
    assert [t["missing"]["performance"].mean - start for _, t in curve] == pytest.approx([0, 0.5, 1])
    assert {r.alpha for r in views.table_results(runs)} == {0.5}


def test_missing_cell_and_double_result_are_named():
    broken = made("masd", 4)
    del broken.scores["a"]["b+c"]
    with pytest.raises(UserError, match=r"'masd', seed 4: scores\['a'\]\['b\+c'\] is missing"):
        views.summaries([broken], MODALITIES)
    with pytest.raises(UserError, match="'finetune', seed 0: two results"):
        views.summaries([RESULTS[0], RESULTS[0]], MODALITIES)
