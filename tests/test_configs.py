"""Every config file loads, passes the checks, and its study is built (and its stages named) at toy size."""

from pathlib import Path

import pytest

from mmr_jax import config as configs
from mmr_jax.errors import UserError
from mmr_jax.study import Study
from mmr_jax.sweep import studies

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "configs").rglob("*.py"))


def toy(path: Path):
    """The config with a tiny synthetic or real data set; nothing else changes."""
    changes = {"data.unlabelled": 8, "data.labelled": 8, "data.val": 8, "data.test": 8}
    config = configs.load(path)
    return configs.load(path, changes if config.data.name == "synthetic" else {})


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_header_states_command_time_and_result(path):
    header = path.read_text().split('"""')[1]
    assert f"--config={path.relative_to(ROOT).as_posix()}" in header
    assert "min" in header and "Expect" in header


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_study_is_built(path, tmp_path):
    config = toy(path)
    study = Study(config, tmp_path)
    try:
        stages = study.stages()
    except UserError as error:
        if config.data.name != "synthetic" and "data" in str(error):
            pytest.skip(f"no data for {path.name}: {error}")
        raise
    names = [s.name for s in stages]
    assert len(names) == len(set(names)) and len({s.key for s in stages}) == len(stages)
    for stage in stages:  # in order: each after those it needs
        assert all(names.index(n.name) < names.index(stage.name) for n in stage.needs)
    seen = {s.method for s in stages if s.kind == "evaluate"}
    assert seen == set(config.study.methods)
    assert set(study.model.names) == set(config.modalities)


def test_sweep_points_differ_only_where_they_say(tmp_path):
    config = toy(ROOT / "configs/when_masd_helps.py")
    base = configs.to_dict(config)
    found = {(axis, label): study for axis, label, study in studies(config, tmp_path, None)}
    assert len(found) == len(config.sweep) >= 5
    for axis, label, changes in config.sweep:
        changed = configs.difference(configs.to_dict(found[axis, str(label)].config), base)
        assert set(changed) - {"sweep"} <= {name for name, _ in changes}
