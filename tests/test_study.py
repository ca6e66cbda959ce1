import dataclasses
import io
import itertools
import json

import jax
import numpy as np
import pytest
import toy
from rich.console import Console

from mmr_jax import config as configs
from mmr_jax import methods
from mmr_jax.errors import UserError
from mmr_jax.methods import INTERPOLATED
from mmr_jax.seeds import fold_seed
from mmr_jax.study import Study, load_trained
from mmr_jax.study_report import report
from mmr_jax.train.log import StageProgress
from mmr_jax.weights.folder import PARAMS


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
    ({"data__cache": False}, []),
    ({"pretrain__validate_every": 5}, []),
], ids=str)  # fmt: skip
def test_a_changed_option_repeats_what_it_touches(changes, parts):
    assert touched(**changes) == (named(*parts) if parts else set())


def test_more_methods_or_seeds_leave_the_others_alone():
    base, more = keys(), keys(seeds=(0, 1))
    assert len(more) == 2 * len(base) - 1 and base.items() <= more.items()  # one export for all
    fewer = keys(study__methods=("finetune",), study__export="")
    assert fewer.items() <= base.items() and not any("masd" in name for name in fewer)


def test_another_training_subset_repeats_evaluations_alone():
    few = keys(study__train_subsets=("audio", "text"))
    more = keys(study__train_subsets=("audio", "text", "image"))
    repeated = {name for name in few if few[name] != more[name]}
    assert repeated == {name for name in few if "/evaluate/" in name or name.endswith("/export")}
    assert few.items() - more.items() and set(few) < set(more)


def test_other_files_repeat_every_stage():
    """The digest of a data set's files is part of every key; where the files are is not."""
    made = study("unused")
    made.__dict__["dataset"] = dataclasses.replace(made.dataset, fingerprint="other")
    before = keys()
    assert all(s.key != before[s.name] for s in made.stages())


def test_the_weights_that_pretraining_starts_from_are_known_by_content(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / PARAMS).write_bytes(content)
    a, b, c = (keys(pretrain__init=str(tmp_path / name)) for name in "abc")
    assert a == b and not set(a.values()) & {*c.values(), *keys().values()}


def test_a_method_reads_the_blocks_that_its_digest_holds(monkeypatch):
    """A maker is given `finetune` and the blocks of its entry; another one cannot be read."""
    made = study("unused")
    entry = methods.Method(lambda config, *_: config.masd.weight, ("modality_dropout",))
    monkeypatch.setitem(methods.METHODS, "masd", entry)
    with pytest.raises(AttributeError, match="masd"):
        methods.objective("masd", made.config, made.model, ("text",), False)


def test_every_method_is_in_the_default_config():
    assert study("unused").config.study.methods == tuple(methods.METHODS)


@pytest.mark.parametrize("changes, message", [
    ({"finetune__freeze": ("encoder/owned", "encoder/ownd")},
     "finetune.freeze: 'encoder/ownd' matches no parameter; did you mean 'encoder/"),
    ({"finetune__freeze": ("",)}, "finetune.freeze: \\[''\\] leaves nothing to train"),
    ({"finetune__optim__groups": (("haed", 10.0),)}, "finetune.optim.groups: 'haed' matches no parameter"),
    ({"probe__optim__groups": (("encoder", 10.0),)}, "probe.optim.groups: 'encoder' matches no parameter"),
    ({"pretrain__optim__groups": (("logit_scale", 0.1),)}, "pretrain.optim.groups: 'logit_scale' matches no parameter"),
], ids=str)  # fmt: skip
def test_a_pattern_that_does_nothing_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        study("unused", **changes).stages()


def test_patterns_that_match_are_accepted():
    groups = (("logit_scale", 0.1), ("owned", 0.5))
    changes = {"pretrain__optim__groups": groups, "pretrain__learn_temperature": True}
    assert study("unused", **changes, finetune__freeze=("encoder/",), probe__optim__groups=(("head", 2.0),)).stages()


@pytest.mark.parametrize("field", [
    "pretrain.batch_size", "probe.batch_size", "finetune.batch_size", "study.eval_batch_size"])  # fmt: skip
def test_batches_that_the_devices_do_not_divide_are_refused_at_the_start(field, tmp_path):
    made = study(tmp_path, **{field.replace(".", "__"): 12})
    made.__dict__["mesh"] = toy.mesh(data=8)
    with pytest.raises(UserError, match=f"{field}: batch size 12 is not divisible by .* = 8 devices"):
        made.run()
    assert not list(tmp_path.iterdir())


def test_a_mesh_that_does_not_fit_is_refused_at_the_start(tmp_path):
    made = Study(configs.load("tests/toy.py", {"mesh.data": 3}), tmp_path, Console(file=io.StringIO()))
    with pytest.raises(UserError, match="^mesh .* does not fit 8 devices"):
        made.ready()


@pytest.mark.slow
def test_the_largest_pretraining_set_is_the_same_everywhere(tmp_path):
    """Of sets of equal size the exported model, the tables and the intervals are of one."""
    changes = dict(study__train_subsets=("audio",), study__methods=("linear_probe",), study__export="linear_probe")
    made = study(tmp_path, pretrain__modalities=("audio+text", "audio+image"), study__retrieval=0, **changes)
    made.run()
    report(made, {})
    exported = next(s for s in made.stages() if s.kind == "export")
    written = json.loads((tmp_path / "report/report.json").read_text())
    assert exported.pretrain == "audio+text"
    assert written["pretrain"] == {"linear_probe": "audio+text"} and set(written["intervals"]) == {"linear_probe"}


def test_a_study_without_pretraining_steps_starts_from_the_initial_weights(tmp_path):
    made = study(tmp_path, "two", pretrain__steps=0, pretrain__validate_every=0)
    made.run(("pretrain",))
    fresh = made.model.init(jax.random.key(fold_seed(0, "init")))
    toy.assert_same(load_trained(made, made.stages()[0]), fresh)


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


def test_distillation_on_some_of_the_pool():
    made = study("unused", masd__clips=5)
    pool, chosen = ids(made.dataset.splits["unlabelled"]), [ids(made.distillation(seed)) for seed in (0, 0, 1)]
    assert all(len(c) == 5 and c <= pool for c in chosen) and chosen[0] == chosen[1] != chosen[2]
    assert ids(study("unused", masd__clips=10**6).distillation(0)) == pool


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


@pytest.mark.slow
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
