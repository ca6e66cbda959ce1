import io
import itertools

import jax
import numpy as np
import pytest
import toy
from rich.console import Console

from mmr_jax import config as configs
from mmr_jax.errors import UserError
from mmr_jax.methods import INTERPOLATED
from mmr_jax.study import Study
from mmr_jax.train.log import StageProgress


def study(directory, argument="", **changes):
    config = toy.get_config(argument)
    for key, value in changes.items():
        configs.set_field(config, key.replace("__", "."), value)
    made = Study(config.lock(), directory, Console(file=io.StringIO()))
    made.__dict__["mesh"] = toy.mesh()
    return made


def keys(**changes):
    return {stage.name: stage.key for stage in study("unused", **changes).stages()}


def touched(**changes):
    """Names of the stages that a changed option repeats."""
    before, after = keys(), keys(**changes)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def named(*parts):
    return {name for name in keys() if any(part in name for part in parts)}


@pytest.mark.parametrize("changes, parts", [
    ({"masd__weight": 2.0}, ["/masd/", "/masd_wise_ft", "evaluate/masd", "export"]),
    ({"modality_dropout__rate": 0.3}, ["modality_dropout"]),
    ({"wise_ft__alphas": (0.5,)}, ["evaluate/wise_ft", "evaluate/masd_wise_ft"]),
    ({"study__save_predictions": False}, ["evaluate/"]),
    ({"finetune__steps": 5}, ["/finetune", "/masd", "dropout", "wise_ft", "export"]),
    ({"probe__steps": 5}, ["probe", "/finetune", "/masd", "dropout", "wise_ft", "export"]),
    ({"masd__source": "train"}, ["probe", "/finetune", "/masd", "dropout", "wise_ft", "export"]),
    ({"pretrain__optim__lr": 0.5}, [""]),
    ({"model__depth": 3}, [""]),
    ({"data__audio_noise": 0.1}, [""]),
    ({"modalities__audio__mean": 0.0}, [""]),
    ({"study__export": "finetune"}, ["export"]),
    ({"mesh__data": 8}, []),
    ({"study__eval_batch_size": 8}, []),
], ids=str)  # fmt: skip
def test_a_changed_option_repeats_what_it_touches(changes, parts):
    assert touched(**changes) == (named(*parts) if parts else set())


def test_more_methods_or_seeds_leave_the_others_alone():
    base, more = keys(), keys(seeds=(0, 1))
    assert len(more) == 2 * len(base) - 1 and base.items() <= more.items()  # one export for all
    fewer = keys(study__methods=("finetune",), study__export="")
    assert fewer.items() <= base.items() and not any("masd" in name for name in fewer)


def test_more_pretraining_sets_leave_the_others_alone():
    assert keys().items() <= keys(pretrain__modalities=("all", "audio+text")).items()


@pytest.mark.parametrize("part", ["pretrain", "probe", "finetune"])
@pytest.mark.parametrize("cadence", ["log_every", "checkpoint_every"])
def test_how_often_is_logged_and_saved_repeats_nothing(part, cadence):
    assert touched(**{f"{part}__{cadence}": 7}) == set()


def test_a_written_config_gives_the_same_keys():
    made = study("unused")
    again = Study(configs.from_dict(configs.to_dict(made.config)), "unused")
    assert [s.key for s in again.stages()] == [s.key for s in made.stages()]


def test_stages_come_after_what_they_need():
    seen = set()
    stages = study("unused", seeds=(0, 1)).stages()
    for stage in stages:
        assert {need.name for need in stage.needs} <= seen
        seen.add(stage.name)
    assert len(seen) == len(stages)
    # 7 fine-tunings, dropout on the 4 subsets of several modalities, MASD on the 6 smaller than M
    per_seed = {"finetune/": 7, "modality_dropout/": 4, "masd/": 6}
    assert {part: sum(f"seed0/audio+image+text/{part}" in name for name in seen) for part in per_seed} == per_seed


def test_select_takes_stages_and_their_needs():
    made = study("unused")
    chosen = [s.name for s in made.select(only="/masd/audio")]
    prefix = "seed0/audio+image+text"
    masd = [f"{prefix}/masd/{t}" for t in ("audio", "audio+image", "audio+text")]
    assert chosen == [f"{prefix}/pretrain", f"{prefix}/probe", *masd]
    assert {s.kind for s in made.select(["pretrain"])} == {"pretrain"}
    with pytest.raises(UserError, match="no stage is called 'mazd'"):
        made.select(only="mazd")


def ids(source):
    return set(source.take(range(len(source)))["id"].tolist())


def test_the_distillation_share_is_not_used_as_labels():
    made = study("unused", masd__source="train", masd__train_share=0.25)
    labelled, distilled = ids(made.labelled(0)), ids(made.distillation(0))
    assert len(labelled) == 12 and len(distilled) == 4 and not labelled & distilled
    assert ids(study("unused", masd__source="train", masd__train_share=0.25).labelled(0)) == labelled
    assert ids(made.labelled(1)) != labelled
    half = study("unused", finetune__label_share=0.5)
    assert len(ids(half.labelled(0))) == 8 and ids(half.distillation(0)) == ids(half.dataset.splits["unlabelled"])


def check_scores(made):
    """All stages are done, and every cell of every method and alpha has one score in [0, 1]."""
    for stage in made.stages():
        record = made.record(stage)
        assert record and record["name"] == stage.name
        assert not (made.path(stage) / "checkpoints").exists()
        if stage.kind != "evaluate":
            continue
        alphas = [None] if stage.method not in INTERPOLATED else sorted(made.config.wise_ft.alphas)
        cells = [(r["train"], r["eval"], r["alpha"]) for r in record["scores"]]
        assert sorted(cells, key=str) == sorted(
            itertools.product(made.train_subsets, made.eval_subsets, alphas), key=str
        )
        assert all(0 <= r["score"] <= 1 and r["n"] == 16 for r in record["scores"])


def scores(made, method):
    stage = next(s for s in made.stages() if s.kind == "evaluate" and s.method == method)
    return {(r["train"], r["eval"], r["alpha"]): r["score"] for r in made.record(stage)["scores"]}


def stamps(made):
    return {path: path.stat().st_mtime_ns for path in (made.workdir / "stages").rglob("*")}


def test_a_whole_study_of_two_modalities(tmp_path):
    made = study(tmp_path, "two")
    made.run()
    check_scores(made)
    probe, fine = scores(made, "linear_probe"), scores(made, "finetune")
    wise = scores(made, "wise_ft")
    for (train, evaluated, _), score in fine.items():
        assert wise[train, evaluated, 1.0] == score and wise[train, evaluated, 0.0] == probe[train, evaluated, None]
    masd = scores(made, "masd")  # with M_T = M it is fine-tuning
    assert all(masd[cell] == fine[cell] for cell in fine if cell[0] == "audio+text")
    before = stamps(made)
    study(tmp_path, "two").run()
    assert stamps(made) == before


def test_a_study_with_joint_fusion(tmp_path):
    methods = ("linear_probe", "masd", "masd_wise_ft")
    made = study(tmp_path, "joint", study__train_subsets=("text",), study__methods=methods, study__export="")
    made.run()
    check_scores(made)
    stage = next(s for s in made.stages() if s.method == "masd" and s.kind == "evaluate")
    file = np.load(made.path(stage) / "predictions" / "text.npz")
    assert file["scores"].shape == (7, 16, 4) and file["valid"].all()


@pytest.mark.slow
def test_a_whole_study_of_three_modalities(tmp_path):
    made = study(tmp_path)
    made.run()
    check_scores(made)


def test_nothing_compiles_after_the_first_step_of_a_training_stage(tmp_path, monkeypatch):
    """Counted with the study's own validation; the first step is done when its metrics are read."""
    compiled, active = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: compiled.append(event) if active and "backend_compile" in event else None
    )
    made = study(tmp_path, "two", study__methods=("finetune",), study__export="", finetune__steps=6)
    made.run(only="/probe")
    update, close = StageProgress.update, StageProgress.close
    monkeypatch.setattr(StageProgress, "update", lambda *a: (active.append(True), update(*a)))
    monkeypatch.setattr(StageProgress, "close", lambda *a: (active.clear(), close(*a)))
    made.run(("train",))
    assert compiled == []
    active.append(True)
    jax.jit(lambda x: x * 3 + 2)(np.arange(5))  # the listener does hear compilations
    assert compiled
