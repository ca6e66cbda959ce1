"""Two tiny studies as a sweep: what each point leaves, and what all of them leave together."""

import csv
import io
import json
import math
import shutil

import numpy as np
import pytest
import toy
from rich.console import Console

from mmr_jax import config as configs
from mmr_jax import sweep
from mmr_jax.errors import UserError
from mmr_jax.robustness.results import read_matrix_csv
from mmr_jax.sweep_report import COLUMNS, write_rows

POINTS = (("pretraining steps", 4, ()), ("pretraining steps", 0, (("pretrain.steps", 0),)))


def make(points=POINTS, **changes):
    """A sweep over studies that train fine-tuning and a repair on two subsets."""
    config = toy.get_config("two")
    settled = {
        "study.methods": ("finetune", "wise_ft"),
        "study.export": "wise_ft",
        "study.train_subsets": ("audio",),
        "study.retrieval": 0,
        "wise_ft.alphas": (0.75,),
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    for key, value in settled.items():
        configs.set_field(config, key, value)
    config.sweep = points
    return config.lock()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(workdir, what was printed) of a whole sweep."""
    workdir, out = tmp_path_factory.mktemp("sweep"), io.StringIO()
    sweep.check(make(), workdir)
    assert not list(workdir.iterdir())
    sweep.run(make(), workdir, {"name": ("file", "toy")}, Console(file=out, width=200))
    return workdir, out.getvalue()


def rows(workdir):
    with open(workdir / "sweep.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def score(workdir, point, method, train, evaluated):
    """A cell as the point's own report has it."""
    found = read_matrix_csv(workdir / f"points/pretraining steps={point}/report/matrix.csv", None, ["audio"])
    return next(r for r in found if r.method == method).scores[train][evaluated]


def test_every_point_is_a_study_with_its_config_and_report(finished):
    workdir, _ = finished
    for label, steps in ((4, 4), (0, 0)):
        folder = workdir / f"points/pretraining steps={label}"
        config = json.loads((folder / "config.json").read_text())
        assert config["pretrain"]["steps"] == steps and config["sweep"] == []
        assert (folder / "report/index.html").exists()
    changes = json.loads((workdir / "points/pretraining steps=0/report/report.json").read_text())["meta"]["config_diff"]
    assert changes == {"name": ["file", "toy"], "pretrain.steps": [4, 0]}


def test_the_numbers_of_a_point_are_those_of_its_matrix(finished):
    workdir, printed = finished
    found = rows(workdir)
    assert list(found[0]) == list(COLUMNS) and [r["point"] for r in found] == ["4", "0"]
    for row in found:
        cells = [score(workdir, row["point"], "finetune", "audio", e) for e in ("audio", "text", "audio+text")]
        assert float(row["baseline"]) == min(cells) and float(row["baseline_transfer"]) == cells[1]
        assert 0 <= float(row["alignment"]) <= 1
        ratio = float(row["repair"]) / float(row["baseline"]) if float(row["baseline"]) else math.nan
        assert float(row["ratio"]) == pytest.approx(ratio, nan_ok=True)
    assert (workdir / "sweep.png").read_bytes().startswith(b"\x89PNG") and "pretraining steps" in printed


def test_one_report_holds_the_methods_of_all_points(finished):
    workdir, printed = finished
    report = json.loads((workdir / "report/report.json").read_text())
    methods = ["4: finetune", "4: wise_ft", "0: finetune", "0: wise_ft"]
    assert list(report["table"]) == methods and report["baseline"] == "4: finetune"
    assert set(report["intervals"]) == set(methods)
    for point in ("4", "0"):
        cell = report["matrix"][f"{point}: finetune"]["audio"]["text"]["mean"]
        assert cell == score(workdir, point, "finetune", "audio", "text")
    assert "0: pretrain.steps = 0" in report["meta"]["notes"]
    assert all(m in printed for m in methods)


def test_points_on_other_test_examples_have_no_intervals(finished, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(finished[0], workdir)
    files = list((workdir / "points/pretraining steps=0").rglob("predictions/*.npz"))
    assert len(files) == 2
    for path in files:
        with np.load(path) as file:
            arrays = dict(file)
        np.savez(path, **{**arrays, "ids": arrays["ids"] + 1})
    sweep.summarize(make(), workdir, {}, Console(file=io.StringIO()))
    report = json.loads((workdir / "report/report.json").read_text())
    assert report["intervals"] == {} and any("No intervals" in note for note in report["meta"]["notes"])


@pytest.mark.parametrize("points, changes, message", [
    (POINTS, {"study__methods": ("linear_probe", "wise_ft")}, "needs 'finetune' in study.methods"),
    (POINTS, {"study__export": ""}, "the repair's name in study.export"),
    ((POINTS[0], ("steps", 9, (("finetune.steps", 0),))), {}, "finetune.steps is 0"),
    ((POINTS[0], ("steps", 9, (("finetune.stepz", 0),))), {}, "did you mean 'finetune.steps'"),
    ((POINTS[0], ("depth", 3, (("model.adapter_depth", 3),))), {}, "sweep, depth = 3: model.adapter_depth 3 is larger"),
    ((POINTS[0], POINTS[0]), {}, "must be unique"),
    ((("a/b", 1, ()),), {}, "without /"),
    ((POINTS[0], ("subsets", 1, (("study.train_subsets", ("text",)),))), {}, "must be those of the first point"),
], ids=str)  # fmt: skip
def test_a_sweep_that_some_point_would_end_is_refused_at_the_start(points, changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        sweep.check(make(points, **changes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_rows_are_written_as_they_come(tmp_path):
    row = {**dict.fromkeys(COLUMNS, 0.5), "axis": "a", "point": "[b]"}
    write_rows([row], tmp_path)
    assert [r["point"] for r in rows(tmp_path)] == ["[b]"]
    write_rows([row, {**row, "point": "c"}], tmp_path, Console(file=(out := io.StringIO()), width=200))
    assert [r["point"] for r in rows(tmp_path)] == ["[b]", "c"] and "[b]" in out.getvalue()
