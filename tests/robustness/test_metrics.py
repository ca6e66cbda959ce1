import json
import os
import subprocess
import sys
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from mmr_jax.robustness import all_subsets, analyse, chance_corrected, summarize

REFERENCE = Path(os.environ.get("MMR_REFERENCE", Path(__file__).resolve().parents[3] / "shared/reference"))


def random_scores(modalities, seed=0):
    rng, subsets = np.random.default_rng(seed), all_subsets(modalities)
    return {t: {e: float(rng.uniform()) for e in subsets} for t in subsets}


def brute_force(scores, inside):
    """Eq. 3-6 with exact fractions over (M_T, M_E) for which `inside(set, set)`."""
    rows = []
    for train, row in scores.items():
        t = set(train.split("+"))
        cells = [Fraction(value) for name, value in row.items() if inside(t, set(name.split("+")))]
        if cells:
            rows.append((sum(cells) / len(cells), min(cells)))
    if not rows:
        return {}
    p, r = zip(*rows, strict=True)
    four = (sum(p) / len(p), sum(r) / len(r), max(p), max(r))
    names = ("performance", "robustness", "performance_best", "robustness_best")
    return {name: float(value) for name, value in zip(names, four, strict=True)}


@pytest.mark.skipif(not (REFERENCE / "robustness.json").exists(), reason=f"no reference in {REFERENCE}")
def test_agrees_with_the_reference():
    names = {"overall": "overall", "missing": "missing", "added": "added", "transferability": "transfer"}
    keys = {"P": "performance", "R": "robustness", "P_best": "performance_best", "R_best": "robustness_best"}
    for case in json.loads((REFERENCE / "robustness.json").read_text())["cases"]:
        found, summary = analyse(case["p"], case["modalities"]), summarize(case["p"], case["modalities"])
        for theirs, ours in names.items():
            expected = case[theirs]
            flat = summary if ours == "overall" else summary[ours]
            for key, name in keys.items():
                assert flat[name] == pytest.approx(expected[key], abs=1e-9)
            assert found[ours].performance_of == pytest.approx(expected["P_of"], abs=1e-9)
            assert found[ours].robustness_of == pytest.approx(expected["R_of"], abs=1e-9)
            assert found[ours].cells == expected["cells"]
            assert {t: set(e) for t, e in found[ours].evaluated.items()} == {
                t: set(e) for t, e in expected["evaluated"].items()
            }


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_agrees_with_exact_fractions(n):
    modalities = ["tactile", "audio", "video", "text"][:n]
    scores = random_scores(modalities, seed=n)
    summary = summarize(scores, modalities)
    assert {k: summary[k] for k in summary if not isinstance(summary[k], dict)} == pytest.approx(
        brute_force(scores, lambda t, e: True)
    )
    assert summary["missing"] == pytest.approx(brute_force(scores, lambda t, e: e < t))
    assert summary["added"] == pytest.approx(brute_force(scores, lambda t, e: t < e))
    assert summary["transfer"] == pytest.approx(brute_force(scores, lambda t, e: not t & e))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_number_of_cells(n):
    """Known counts: (2^n - 1)^2 cells in all, 3^n - 2^(n+1) + 1 in each slice."""
    modalities = [f"m{i}" for i in range(n)]
    found = analyse(random_scores(modalities), modalities)
    assert found["overall"].cells == (2**n - 1) ** 2
    assert {found[name].cells for name in ("missing", "added", "transfer")} == {3**n - 2 ** (n + 1) + 1}


def test_without_the_full_training_set_and_with_few_training_sets():
    modalities = ["a", "b"]
    scores = random_scores(modalities)
    without = analyse(scores, modalities, include_full=False)
    assert "missing" not in without and without["overall"].cells == 6
    only = {"a": scores["a"]}
    few = analyse(only, modalities, train_subsets=["a"])["overall"]
    assert few.performance == pytest.approx(sum(only["a"].values()) / 3)
    assert few.robustness == few.robustness_best == min(only["a"].values())
    with pytest.raises(ValueError, match=r"scores\['b'\]\['a'\] is missing"):
        analyse(only, modalities)


def test_slices_without_cells_are_empty():
    assert summarize({"a": {"a": 0.5}}, ["a"]) == {
        **dict.fromkeys(("performance", "robustness", "performance_best", "robustness_best"), 0.5),
        **{"missing": {}, "added": {}, "transfer": {}},
    }


def broken(change):
    scores = random_scores(["audio", "text", "video"])
    change(scores)
    return scores


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda s: s["audio"].pop("text+video"), r"scores\['audio'\]\['text\+video'\] is missing"),
        (lambda s: s.pop("audio+text"), r"scores\['audio\+text'\]\['audio'\] is missing"),
        (lambda s: s.update({"video+audio": {}}), "'video\\+audio'.*sorted, here 'audio\\+video'"),
        (lambda s: s["audio"].update({"vidoe": 1.0}), r"scores\['audio'\]\['vidoe'\].*'video'"),
        (lambda s: s["text"].update({"video": float("nan")}), r"scores\['text'\]\['video'\] is nan"),
        (lambda s: s["text"].update({"video": "high"}), r"scores\['text'\]\['video'\] is 'high'"),
    ],
)
def test_bad_scores_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        summarize(broken(change), ["audio", "text", "video"])


def test_order_of_the_four_numbers_holds():
    for seed in range(20):
        s = summarize(random_scores(["a", "b", "c"], seed), ["c", "a", "b"])
        for part in (s, s["missing"], s["added"], s["transfer"]):
            assert part["robustness"] <= part["performance"] <= part["performance_best"]
            assert part["robustness"] <= part["robustness_best"] <= part["performance_best"]


def test_permuting_modality_names_changes_nothing():
    scores, swap = random_scores(["a", "b", "c"]), {"a": "z", "b": "a", "c": "m"}

    def renamed(subset):
        return "+".join(sorted(swap[m] for m in subset.split("+")))

    other = {renamed(t): {renamed(e): v for e, v in row.items()} for t, row in scores.items()}
    ours, theirs = summarize(scores, ["a", "b", "c"]), summarize(other, ["z", "a", "m"])
    for name in ("missing", "added", "transfer"):
        assert ours[name] == pytest.approx(theirs[name])
    assert ours["performance"] == pytest.approx(theirs["performance"])


def test_overlapping_cells_count_in_overall_only():
    """Raising the six pair-against-other-pair cells changes overall and no slice."""
    scores = random_scores(["a", "b", "c"])
    before = summarize(scores, ["a", "b", "c"])
    for t, e in combinations(["a+b", "a+c", "b+c"], 2):
        scores[t][e] = scores[e][t] = 2.0
    after = summarize(scores, ["a", "b", "c"])
    assert all(before[name] == after[name] for name in ("missing", "added", "transfer"))
    assert after["performance"] > before["performance"]


def test_chance_corrected():
    assert chance_corrected(0.1, 0.1) == 0 and chance_corrected(1, 0.1) == 1
    assert chance_corrected(0.55, 0.1) == pytest.approx(0.5)
    with pytest.raises(ValueError):
        chance_corrected(0.5, 1.0)


@pytest.mark.parametrize(
    "module, absent",
    [("views", ["jax", "matplotlib"]), ("results", ["jax", "matplotlib"]), ("report", ["jax"])],
)
def test_importable_without_jax(module, absent):
    code = f"import sys, mmr_jax.robustness.{module}; print([m in sys.modules for m in {absent}])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == str([False] * len(absent))
