"""The flags that the commands over a study share, and the study that they make."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags
from rich.console import Console

from mmr_jax import config as configs
from mmr_jax.errors import UserError
from mmr_jax.files import read_json

CONFIG = config_flags.DEFINE_config_file("config", None, "config file, or file.py:argument", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "directory of the study")
ONLY = flags.DEFINE_string("only", "", "run only the stages whose name holds this, and what they need")
PROFILE = flags.DEFINE_string("profile_steps", "", "a:b: the training stages that run write a trace of these steps")


def require(value, name: str, example: str):
    """The value of a flag that must be given."""
    if value in (None, ""):
        raise UserError(f"--{name} is missing; for example --{name}={example}")
    return value


def profiled_steps() -> tuple[int, int] | None:
    """The first and the last step of a trace that is asked for."""
    if not PROFILE.value:
        return None
    first, _, last = PROFILE.value.partition(":")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise UserError(f"--profile_steps is {PROFILE.value!r}: two steps are expected, from 1 on, as 10:15")
    return int(first), int(last)


def given_config():
    """(config with overrides, its difference from the file); both are printed."""
    config = require(CONFIG.value, "config", "configs/quickstart.py")
    path = flags.FLAGS["config"].config_filename
    changes = configs.difference(config, configs.load(path))
    console = Console(highlight=False, soft_wrap=True)
    for field, value in sorted(configs.flatten(config).items()):
        mark = f"   (file: {changes[field][0]!r})" if field in changes else ""
        console.print(f"config.{field} = {value!r}{mark}", markup=False)
    return config, changes


def one_study(config) -> None:
    """Refuse a sweep where a single study is meant: its points are studies of their own."""
    if config.sweep:
        raise UserError("this config is a sweep of several studies: mmr run runs all, without --only")


def check_same_config(workdir: Path, config) -> None:
    """A part of a study runs only in a workdir of the same config: otherwise its parts would not fit together.

    What changes no number (devices, batches of evaluation, where files are, how often is logged) may differ.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    found = configs.difference(configs.to_dict(config), read_json(path))
    changed = {field: values for field, values in found.items() if not configs.NEUTRAL.search(field)}
    if changed:
        field, (old, new) = next(iter(changed.items()))
        raise UserError(
            f"{workdir} belongs to another config: {field} is {old!r} there and {new!r} now "
            f"({len(changed)} fields differ); take another --workdir, or mmr run to change the study"
        )
