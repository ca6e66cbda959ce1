"""Bad input to the commands: one line on stderr that says what is wrong, and exit code 2."""

import json

import pytest
import toy

from mmr_jax import config as configs

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


def test_help_lists_the_commands():
    process = toy.run("-m", "mmr_jax", "--help")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and all(name in out for name in ("run", "pretrain", "evaluate", "report"))
