"""Bad input to the commands: one line on stderr that says what is wrong, and exit code 2."""

import json
import types

import numpy as np
import pytest
import toy

from mmr_jax import config as configs
from mmr_jax.cli import main, options
from mmr_jax.errors import UserError
from mmr_jax.robustness import Predictions, all_subsets, save_predictions

CONFIG = "--config=tests/toy.py"


def refused(*arguments):
    """The one line that a command ends with."""
    process = toy.run("-m", "mmr_jax", *arguments)
    _, err = process.communicate(timeout=120)
    lines = [line for line in err.splitlines() if line.strip()]
    assert process.returncode == 2 and len(lines) == 1, (process.returncode, err)
    return lines[0]


@pytest.mark.parametrize("arguments, message", [
    (["rum"], "unknown command 'rum'; did you mean 'run'"),
    (["run"], "--config is missing"),
    (["run", CONFIG], "--workdir is missing"),
    (["run", CONFIG, "--workdir=unused", "--config.finetune.stepz=3"],
     "config has no field 'finetune.stepz'; did you mean 'finetune.steps'"),
    (["run", CONFIG, "--workdir=unused", "--config.finetune.steps=many"], "finetune.steps"),
    (["run", CONFIG, "--workdir=unused", "--config.study.train_subsets=('audio+vidoe',)"], "unknown modality 'vidoe'"),
    (["run", "--config=configs/absent.py", "--workdir=unused"], "config 'configs/absent.py' does not exist"),
    (["run", CONFIG, "--workdri=unused"], "workdri"),
    (["run", CONFIG, "extra"], "unexpected argument 'extra'"),
    (["pretrain", CONFIG], "--workdir is missing"),
    (["pretrain", CONFIG, "--workdir=unused", "--only=probes"], "no stage is called"),
    (["report", "--workdir=unused"], "holds no study"),
], ids=str)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path):
    found = refused(*(a.replace("unused", str(tmp_path)) for a in arguments))
    assert found.startswith("mmr: error: ") and message in found
    assert not list(tmp_path.rglob("done.json"))


@pytest.mark.parametrize("command", ["pretrain", "finetune", "evaluate"])
def test_a_part_in_a_workdir_of_another_config_is_refused(command, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(configs.to_dict(toy.get_config())))
    found = refused(command, CONFIG, f"--workdir={tmp_path}", "--config.masd.weight=0.5")
    assert "belongs to another config: masd.weight is 1.0 there and 0.5 now" in found


def test_what_changes_no_number_may_differ(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(configs.to_dict(toy.get_config())))
    other = {"mesh.data": 4, "study.eval_batch_size": 32, "finetune.log_every": 5, "pretrain.checkpoint_every": 9}
    options.check_same_config(tmp_path, configs.load("tests/toy.py", {**other, "data.cache": False}))
    with pytest.raises(UserError, match="finetune.steps is 4 there and 5 now .1 fields differ"):
        options.check_same_config(tmp_path, configs.load("tests/toy.py", {**other, "finetune.steps": 5}))


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"name": "to')
    with pytest.raises(UserError, match="config.json cannot be read"):
        options.check_same_config(tmp_path, toy.get_config())


def test_a_config_file_that_is_no_python_is_one_line(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("def get_config(:\n    pass\n")
    assert f"{path}, line 1: invalid syntax" in refused("run", f"--config={path}", f"--workdir={tmp_path}")
    with pytest.raises(UserError, match="broken.py, line 1"):
        configs.load(path)


def test_what_the_system_refuses_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")

    def fails(error):
        def run():
            raise error

        return types.SimpleNamespace(run=run)

    def write():
        configs.write(tmp_path / "file" / "workdir", toy.get_config(), {})

    assert main._guarded(types.SimpleNamespace(run=write), ["mmr"]) == 2
    assert capsys.readouterr().err == f"mmr: error: {tmp_path / 'file' / 'workdir'}: Not a directory\n"
    assert main._guarded(fails(OSError(28, "No space left on device")), ["mmr"]) == 2
    assert capsys.readouterr().err == "mmr: error: No space left on device\n"
    with pytest.raises(OSError, match="of a library"):
        main._guarded(fails(OSError("of a library")), ["mmr"])


@pytest.mark.parametrize("command, flags", [("run", ["--only=probe"]), ("pretrain", []), ("evaluate", [])])
def test_a_sweep_is_run_as_a_whole(command, flags, tmp_path):
    path = tmp_path / "swept.py"
    lines = ["import sys; sys.path.insert(0, 'tests')", "import toy", "def get_config():", "    c = toy.get_config()"]
    path.write_text("\n".join([*lines, "    c.sweep = (('a', 1, ()),)", "    return c"]))
    found = refused(command, f"--config={path}", f"--workdir={tmp_path / 'w'}", *flags)
    assert "this config is a sweep" in found and not (tmp_path / "w").exists()


def test_a_folder_of_multilabel_predictions_is_scored_by_map(tmp_path):
    """Without --metric; the report says mAP, and its chance level is the mean share of positives."""
    rng, subsets = np.random.default_rng(0), all_subsets(["a", "b"])
    labels, valid = (rng.random((60, 4)) < 0.3).astype(np.int64), np.ones((3, 60), bool)
    for train in subsets:
        scores = rng.random((3, 60, 4)).astype(np.float32)
        one = Predictions("m", train, subsets, scores, valid, labels, np.arange(60))
        save_predictions(tmp_path / "p" / f"{train}.npz", one)
    process = toy.run("-m", "mmr_jax", "report", f"--scores={tmp_path / 'p'}", f"--out={tmp_path / 'out'}")
    out, err = process.communicate(timeout=120)
    written = json.loads((tmp_path / "out/report.json").read_text())
    assert process.returncode == 0 and "mAP" in out, err
    assert written["metric"] == "map" and written["chance"] == pytest.approx(labels.mean(0).mean())


def test_the_metric_of_a_csv_is_unknown_unless_it_is_said(tmp_path):
    (tmp_path / "m.csv").write_text("train,eval,score\na,a,0.5\n")
    for flags, metric, name in (([], None, "score in %"), (["--metric=map"], "map", "mAP in %")):
        process = toy.run("-m", "mmr_jax", "report", f"--scores={tmp_path / 'm.csv'}", *flags)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0 and name in out, err
        assert json.loads((tmp_path / "report/report.json").read_text())["metric"] == metric


def test_help_lists_the_commands():
    process = toy.run("-m", "mmr_jax", "--help")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and all(name in out for name in ("run", "pretrain", "evaluate", "report"))
