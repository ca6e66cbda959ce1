import csv
import io
import json
import math
import re

import numpy as np
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from mmr_jax.errors import UserError
from mmr_jax.robustness import Predictions, Result, all_subsets, summarize
from mmr_jax.robustness.report import print_summary, write_report
from mmr_jax.robustness.report.content import build, jsonable
from mmr_jax.robustness.report.markdown import plain
from mmr_jax.robustness.report.tables import duration
from mmr_jax.robustness.report.terminal import short_names
from mmr_jax.robustness.report.words import summary
from mmr_jax.robustness.results import load, to_results

MODALITIES = ["audio", "text", "video"]
SUBSETS = all_subsets(MODALITIES)
NASTY = [
    "<script>alert(1)</script>",
    "a|b",
    "_x_",
    "$x$",
    "[red]r[/red]",
    "# h",
    "`code` & *b*",
    "\x1b[31mesc",
]


def made(methods, seeds=(0, 1), gain=0.0, subsets=SUBSETS, **kw):
    found = []
    for i, method in enumerate(methods):
        for seed in seeds:
            rng = np.random.default_rng([seed])
            cells = {t: {e: float(rng.uniform(0.2, 0.6)) + i * gain for e in subsets} for t in subsets}
            found.append(Result(method, cells, seed=seed, **kw))
    return found


def predictions(strengths, n=60):
    labels, subsets = np.arange(n) % 4, all_subsets(["audio", "video"])
    found = []
    for method, strength in strengths.items():
        for i, train in enumerate(subsets):
            noise = np.random.default_rng(i).normal(size=(3, n, 4))
            scores = (noise + strength * (np.arange(4) == labels[:, None])).astype(np.float32)
            valid, ids = np.ones((3, n), bool), np.arange(n)
            found.append(Predictions(method, train, subsets, scores, valid, labels, ids))
    return found


def test_report_json_holds_the_numbers_of_summarize(tmp_path):
    results = made(["finetune", "masd"], gain=0.1)
    paths = write_report(tmp_path, results, {"chance": 0.05, "metric": "top1"})
    found = json.loads(paths["json"].read_text())
    ours = [summarize(r.scores, MODALITIES) for r in results if r.method == "masd"]
    for name in ("missing", "added", "transfer"):
        for key in ("performance", "robustness", "performance_best", "robustness_best"):
            expected = np.mean([s[name][key] for s in ours])
            assert found["table"]["masd"][name][key]["mean"] == pytest.approx(expected)
    r = np.mean([s["robustness"] for s in ours])
    assert found["chance_corrected_robustness"]["masd"]["mean"] == pytest.approx((r - 0.05) / 0.95)
    # Every cell of masd is 0.1 above finetune's, hence every metric.
    assert found["gain"]["masd"]["overall"]["robustness"]["mean"] == pytest.approx(0.1)
    assert found["best"] == "masd" and found["cells"] == {"overall": 49} | dict.fromkeys(
        ("missing", "added", "transfer"), 12
    )


def test_matrix_csv_reads_back(tmp_path):
    results = made(["finetune", "masd"], pretrain="audio+text+video")
    assert load(write_report(tmp_path, results)["matrix"])[0] == results


def test_same_input_same_files(tmp_path):
    results = made(["finetune", "masd"])
    first, second = (write_report(tmp_path / d, results) for d in "ab")
    for kind in ("html", "markdown", "json", "matrix"):
        assert first[kind].read_bytes() == second[kind].read_bytes()


def test_pictures_are_there_and_linked(tmp_path):
    alphas = [r for a in (0.0, 0.5, 1.0) for r in made(["wise_ft"], alpha=a)]
    paths = write_report(tmp_path, made(["finetune", *NASTY]) + alphas)
    linked = [
        t.attrs["src"]
        for token in MarkdownIt("commonmark").parse(paths["markdown"].read_text())
        for t in token.children or []
        if t.type == "image"
    ]
    on_disk = {f"pictures/{p.name}" for p in paths["pictures"].iterdir()}
    assert set(linked) == on_disk and len(linked) == len(set(linked))
    # A matrix and a matched curve for each of ten methods, Fig. 5, Fig. 6, one alpha curve.
    assert len(linked) == 10 + 10 + 2 + 1
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in linked)


def test_markdown_shows_names_literally(tmp_path):
    meta = {"title": NASTY[0], "notes": NASTY, "config": {"x": "```\n<b>"}}
    text = write_report(tmp_path, made(["finetune", *NASTY]), meta)["markdown"].read_text()
    parsed = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    inline = [child for token in parsed for child in token.children or []]
    assert not [t for t in [*parsed, *inline] if t.type.startswith("html")]
    assert {t.type for t in inline} <= {
        "text",
        "strong_open",
        "strong_close",
        "image",
        "text_special",
        "softbreak",
    }
    shown = ["".join(c.content for c in t.children) for t in parsed if t.type == "inline"]
    for name in NASTY:
        assert name in shown


@pytest.mark.parametrize("text", [*NASTY, "1. a", "- b", "+ c", "--- d", "> e", "a\nb", "\\*", "==", "wise_ft"])
def test_plain_is_one_literal_paragraph(text):
    parsed = MarkdownIt("commonmark").parse(plain(text))
    assert [t.type for t in parsed] == ["paragraph_open", "inline", "paragraph_close"]
    assert "".join(c.content for c in parsed[1].children) == " ".join(text.split())


def test_summary_is_honest_about_a_repair_that_lowers_r():
    worse = made(["finetune", "masd"], gain=-0.1)
    text = summary(build(worse))
    assert "No method is more robust than the baseline finetune" in text
    assert "R is lower than that of finetune for masd (−10.0)" in text
    assert "masd is the most robust" in summary(build(made(["finetune", "masd"], gain=0.1)))


def test_intervals_appear_with_predictions(tmp_path):
    files = predictions({"finetune": 0.5, "masd": 2.0})
    results = to_results(files, "top1")
    found = json.loads(write_report(tmp_path, results, {}, files)["json"].read_text())
    interval = found["intervals"]["masd"]["overall"]["robustness"]
    assert interval["low"] <= interval["difference"] <= interval["high"]
    assert interval["difference"] == pytest.approx(found["gain"]["masd"]["overall"]["robustness"]["mean"])
    assert found["chance"] == 0.25  # four classes
    assert "95 % interval" in (tmp_path / "report.md").read_text()


def test_narrow_pretraining_sets_stay_out_of_the_main_table(tmp_path):
    narrow = made(["finetune"], pretrain="audio+video", subsets=all_subsets(["audio", "video"]))
    only = made(["other"], pretrain="audio+video", subsets=all_subsets(["audio", "video"]))
    results = made(["finetune"], pretrain="audio+text+video") + narrow + only
    found = json.loads(write_report(tmp_path, results)["json"].read_text())
    assert list(found["table"]) == ["finetune"] and found["left_out"] == ["other"]
    assert set(found["matched_by_size"]["finetune"]) == {"audio+text+video", "audio+video"}


def test_fewer_training_sets_and_missing_cells(tmp_path):
    results = [Result(r.method, {t: r.scores[t] for t in ("audio", "video")}) for r in made(["a", "b"], (0,))]
    found = json.loads(write_report(tmp_path, results)["json"].read_text())
    assert found["cells"] == {"overall": 14, "added": 6, "transfer": 6}
    del results[1].scores["video"]["text"]
    with pytest.raises(UserError, match=r"'b', seed 0: scores\['video'\]\['text'\] is missing"):
        write_report(tmp_path, results)


def test_meta_is_checked():
    with pytest.raises(UserError, match="'titel'.*did you mean 'title'"):
        build(made(["a"]), {"titel": "x"})
    with pytest.raises(UserError, match="unknown modality 'vidoe'"):
        build(made(["a"]), {"reference_rows": [{"name": "x", "audio+vidoe": 0.5}]})


@pytest.mark.parametrize("methods, width", [(["finetune", *NASTY], 300), (["finetune", "m" * 90], 80)])
def test_terminal_output_is_plain_and_narrow(methods, width):
    file = io.StringIO()
    print_summary(made(methods), {"title": "t"}, Console(file=file, width=width))
    text = file.getvalue()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= min(100, width)
    assert "\x1b" not in text and "finetune" in text


def test_terminal_shows_the_numbers():
    file, results = io.StringIO(), made(["finetune"], seeds=(0,))
    print_summary(results, {}, Console(file=file, width=100))
    s, text = summarize(results[0].scores, MODALITIES), file.getvalue()
    for value in (s["performance"], s["robustness_best"], s["transfer"]["robustness"]):
        assert f"{100 * value:.1f}" in text
    assert f"{100 * results[0].scores['text']['audio+video']:.1f}" in text


def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    print_summary(made(["finetune", "masd"]), {}, Console(file=file, width=90, force_terminal=True))
    assert "\x1b[3" not in file.getvalue()  # no colour code; bold is no colour


def test_small_helpers():
    assert [duration(s) for s in (None, 3.21, 75.2, 3725)] == ["–", "3.2 s", "1 min 15 s", "1 h 2 min"]
    assert short_names(["audio", "video"]) == {"audio": "A", "video": "V"}
    assert short_names(["audio", "audio2", "text"]) == {"audio": "Audio", "audio2": "Audio2", "text": "T"}
    assert jsonable({"a": math.nan, "b": np.float32(1), "c": (math.inf,)}) == {
        "a": None,
        "b": 1.0,
        "c": [None],
    }


def test_scores_above_one_stay_as_they_are(tmp_path):
    raw = [Result("m", {t: {e: 44.25 for e in SUBSETS} for t in SUBSETS})]
    paths = write_report(tmp_path, raw, {"chance": 0.1})
    assert "44.2" in paths["markdown"].read_text() and "4425" not in paths["markdown"].read_text()
    rows = list(csv.DictReader(paths["matrix"].open()))
    assert len(rows) == 49 and {row["score"] for row in rows} == {"44.25"}


def test_pictures_of_an_earlier_report_are_removed(tmp_path):
    write_report(tmp_path, made(["finetune", "masd"]))
    before = set((tmp_path / "pictures").iterdir())
    write_report(tmp_path, made(["finetune"]))
    after = set((tmp_path / "pictures").iterdir())
    named = set(re.findall(r"pictures/([^)]+)", (tmp_path / "report.md").read_text()))
    assert after < before and {p.name for p in after} == named
    assert not list(tmp_path.rglob("*.tmp*"))


def test_the_baseline_can_be_named():
    results = made(["finetune", "masd"], gain=0.1)
    assert build(results).baseline == "finetune"
    content = build(results, {"baseline": "masd"})
    assert content.baseline == "masd"
    assert content.gains["finetune"]["overall"]["performance"].mean == pytest.approx(-0.1)
    with pytest.raises(UserError, match="did you mean 'masd'"):
        build(results, {"baseline": "mazd"})
