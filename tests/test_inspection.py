"""Retrieval and reconstruction as stages of a study: keys, records, pictures, and their sections of the report."""

import base64
import io
import json

import jax
import numpy as np
import pytest
import toy
from rich.console import Console

from mmr_jax import config as configs
from mmr_jax.cli import evaluate
from mmr_jax.inspection.retrieve import SingleEmbedder
from mmr_jax.models.model import cut
from mmr_jax.robustness.retrieval import search_pairs
from mmr_jax.study import Study
from mmr_jax.study_report import _unfinished, report
from mmr_jax.train.checkpoint import load_params

MASKED = {"pretrain.objective": "masked", "pretrain.contrastive_weight": 0.1}
SHORT = {"study.methods": ("linear_probe",), "study.export": "", "study.train_subsets": ("text",)}


def study(directory="unused", **changes):
    config = toy.get_config()
    for key, value in {**MASKED, **SHORT, **{k.replace("__", "."): v for k, v in changes.items()}}.items():
        configs.set_field(config, key, value)
    made = Study(config.lock(), directory, Console(file=io.StringIO()))
    made.__dict__["mesh"] = toy.mesh()
    return made


def keys(**changes):
    return {stage.name.split("/", 2)[-1]: stage.key for stage in study(**changes).stages()}


def touched(**changes):
    before, after = keys(), keys(**changes)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize("changes, names", [
    ({"study__retrieval": 8}, {"retrieve"}),
    ({"study__reconstructions": 3}, {"reconstruct"}),
    ({"study__test_splits": ("val",)}, {"retrieve", "reconstruct", "evaluate/linear_probe"}),
    ({"study__test_splits": ("test", "val")}, {"evaluate/linear_probe"}),
    ({"study__eval_batch_size": 4}, set()),
    ({"probe__steps": 9}, {"probe", "evaluate/linear_probe"}),
    ({"pretrain__masking__audio__ratio": 0.5}, set(keys())),
    ({"pretrain__decoder__depth": 1}, set(keys())),
    ({"modalities__image__mean": 0.4}, set(keys())),
], ids=lambda x: "" if isinstance(x, set) else str(x))  # fmt: skip
def test_a_changed_option_repeats_what_it_touches(changes, names):
    assert touched(**changes) == names


def test_which_stages_there_are():
    assert list(keys()) == ["pretrain", "retrieve", "reconstruct", "probe", "evaluate/linear_probe"]
    assert "retrieve" not in keys(study__retrieval=0)
    assert "reconstruct" not in keys(study__reconstructions=0)
    assert "reconstruct" not in keys(pretrain__objective="contrastive")
    assert "reconstruct" not in keys(pretrain__reconstruction_weight=0.0)
    made = study(seeds=(3, 4), pretrain__modalities=("all", "audio+text"))
    assert [s.name for s in made.stages() if s.kind == "reconstruct"] == [
        "seed3/audio+image+text/reconstruct",
        "seed3/audio+text/reconstruct",
    ]
    assert sum(s.kind == "retrieve" for s in made.stages()) == 4
    inspections = [s for s in made.stages() if s.kind in ("retrieve", "reconstruct")]
    assert all([need.kind for need in s.needs] == ["pretrain"] for s in inspections)


def test_mmr_evaluate_runs_them(monkeypatch):
    asked = []
    monkeypatch.setattr(evaluate, "run_part", asked.extend)
    evaluate.run()
    assert study().select(asked) == study().stages()


def test_a_report_names_what_has_not_run():
    notes = _unfinished(study())
    assert len(notes) == 2 and all("has not run" in note for note in notes)


def test_embeddings_are_those_of_each_example_alone():
    model, present = toy.model(), {"audio": [1, 1, 0, 1, 1, 1], "text": [0, 1, 1, 1, 1, 1]}
    params, batch = toy.parameters(model), toy.batch(present=present)
    found = SingleEmbedder(model, model.names, 4, toy.mesh())(params, toy.Batches(batch))
    assert found["scores"].shape == (3, 6, 12) and found["ids"].tolist() == list(range(6))
    alone = jax.jit(lambda inputs, length: model.bind(params).contrastive(inputs, length))
    for row, m in enumerate(model.names):
        np.testing.assert_array_equal(found["valid"][row], batch["present"][m])
        for i in np.flatnonzero(batch["present"][m]):
            inputs, length, _ = cut(toy.Batches(batch).take([i]), [m])
            toy.assert_close(found["scores"][row, i], alone(inputs, length)[m][0])


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A study with masked pretraining, run and reported once for all tests."""
    made = study(tmp_path_factory.mktemp("masked"), study__retrieval=12, study__reconstructions=3)
    made.run()
    report(made, {})
    return made


def record(made, kind):
    return next((made.path(s), made.record(s)) for s in made.stages() if s.kind == kind)


def test_the_record_of_a_search(ran):
    _, found = record(ran, "retrieve")
    assert (found["split"], found["examples"]) == ("test", 12)
    folder, _ = record(ran, "pretrain")
    params = load_params(folder / "params")
    inputs, length, present = cut(ran.dataset.splits["test"].take(range(12)), ran.modalities)
    embeddings = {m: np.asarray(x) for m, x in ran.model.bind(params).contrastive(inputs, length).items()}
    labels = ran.dataset.splits["test"].labels()[0][:12]
    for row, expected in zip(found["pairs"], search_pairs(embeddings, present, labels), strict=True):
        assert {k: row[k] for k in ("query", "candidates", "n")} == {
            k: expected[k] for k in ("query", "candidates", "n")
        }
        for part in ("instance_chance", "instance_class", "class_chance"):
            assert row[part] == expected[part]
        for key, value in row["instance"].items():  # rounding may swap two neighbours
            assert abs(value - expected["instance"][key]) <= (1 if key == "median_rank" else 1 / 12 + 1e-9)


def test_the_record_and_the_pictures_of_reconstructions(ran):
    folder, found = record(ran, "reconstruct")
    assert found["normalized"] and set(found["errors"]) == set(ran.modalities)
    assert found["errors"]["audio"]["hidden"] == 3 * 3  # 4 patches, a ratio of .75, 3 examples
    assert 0 <= found["errors"]["text"]["right"] <= 1
    for name, one in found["errors"].items():
        assert one["ratio"] == pytest.approx(one["error"] / one["blind"]), name
    classes = ran.dataset.class_names
    assert [e["title"] for e in found["examples"]] == [f"example {i}: {classes[i]}" for i in range(3)]
    for example in found["examples"]:
        assert (folder / "pictures" / example["picture"]).read_bytes().startswith(b"\x89PNG")


def test_the_report_holds_both_sections(ran):
    folder, out = record(ran, "reconstruct")[0] / "pictures", ran.workdir / "report"
    page, text = (out / "index.html").read_text(), (out / "report.md").read_text()
    numbers = json.loads((out / "report.json").read_text())
    for picture in folder.iterdir():
        data = picture.read_bytes()
        assert base64.b64encode(data).decode() in page
        assert (out / "pictures" / f"reconstruction-1-{picture.stem}.png").read_bytes() == data
        assert f"pictures/reconstruction-1-{picture.stem}.png" in text
    for shown in ("Retrieval across modalities", "Reconstruction of what is hidden", "audio → text", "Class known"):
        assert shown in page and shown in text
    assert "true mean and deviation" in page
    pairs = record(ran, "retrieve")[1]["pairs"]
    rows = numbers["retrieval"]["audio+image+text"]
    assert [r["instance"]["R5"]["mean"] for r in rows] == [r["instance"]["R5"] for r in pairs]
    r = pairs[0]
    cells = [f"{100 * r['instance'][f'R{k}']:.1f}" for k in (1, 5, 10)]
    assert f"| audio → image | 12 | {' | '.join(cells)} | {r['instance']['median_rank']:.1f} |" in text
    assert numbers["reconstructions"][0]["errors"] == record(ran, "reconstruct")[1]["errors"]
    assert "png" not in json.dumps(numbers)


def test_a_lost_stage_is_made_again_alike(ran):
    folder, before = record(ran, "reconstruct")
    pictures = {p.name: p.read_bytes() for p in (folder / "pictures").iterdir()}
    (folder / "done.json").unlink()
    (folder / "pictures" / "1.png").unlink()
    others = {p: p.stat().st_mtime_ns for p in (ran.workdir / "stages").rglob("done.json")}
    ran.run(("reconstruct",))
    assert {p.name: p.read_bytes() for p in (folder / "pictures").iterdir()} == pictures
    assert record(ran, "reconstruct")[1]["errors"] == before["errors"]
    assert {p: p.stat().st_mtime_ns for p in others} == others
