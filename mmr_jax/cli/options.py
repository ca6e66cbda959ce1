"""The flags that the commands over a study share, and the study that they make."""

import json
from pathlib import Path

from absl import flags
from ml_collections import config_flags
from rich.console import Console

from mmr_jax import config as configs
from mmr_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "config file, or file.py:argument", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "directory of the study")
ONLY = flags.DEFINE_string("only", "", "run only the stages whose name holds this, and what they need")


def require(value, name: str, example: str):
    """The value of a flag that must be given."""
    if value in (None, ""):
        raise UserError(f"--{name} is missing; for example --{name}={example}")
    return value


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


def write_config(workdir: Path, config, changes: dict) -> None:
    """Keep the resolved config and its difference from the file beside the results."""
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(json.dumps(configs.to_dict(config), indent=1))
    (workdir / "config_diff.json").write_text(json.dumps(changes, indent=1))


def check_same_config(workdir: Path, config) -> None:
    """A part of a study runs only in a workdir of the same config: otherwise its parts would not fit together."""
    path = workdir / "config.json"
    if not path.exists():
        return
    changed = configs.difference(configs.to_dict(config), json.loads(path.read_text()))
    if changed:
        field, (old, new) = next(iter(changed.items()))
        raise UserError(
            f"{workdir} belongs to another config: {field} is {old!r} there and {new!r} now "
            f"({len(changed)} fields differ); take another --workdir, or mmr run to change the study"
        )
