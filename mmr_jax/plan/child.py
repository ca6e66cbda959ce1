"""A plan for a topology is made in a process of its own: libtpu must never become the backend of the one that asks.

python -m mmr_jax.plan.child FOLDER: reads request.json there and leaves plan.json, or error.json with one line.
"""

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mmr_jax.errors import UserError
from mmr_jax.files import read_json, write_json
from mmr_jax.plan.chips import parse_topology
from mmr_jax.plan.cycles import environment

_REQUEST, _PLAN, _ERROR = "request.json", "plan.json", "error.json"


def plan_topology(config: Mapping, topology: str, only: str = "") -> dict:
    """`plan.make_plan` for a topology in a child process; config as plain values. libtpu must be installed."""
    name = parse_topology(topology).name
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--topology={topology} needs libtpu, the TPU compiler: pip install -e .[plan] (no TPU is needed)"
        )
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / _REQUEST, {"config": config, "topology": name, "only": only})
        schedules = Path(folder) / "schedules"
        schedules.mkdir()
        command = [sys.executable, "-m", "mmr_jax.plan.child", folder]
        own = environment(str(schedules) if _has_kernels(config) else "")
        with open(Path(folder) / "log", "w+") as log:  # libtpu says a lot about the TPU that is not there
            ended = subprocess.run(command, env=own, stderr=log, check=False).returncode
            log.seek(0)
            said = log.read()
        if (Path(folder) / _ERROR).exists():
            raise UserError(read_json(Path(folder) / _ERROR))
        if ended:
            print(said, file=sys.stderr)
            raise UserError(f"the compiler for {name} ended with code {ended}; its messages are above")
        return read_json(Path(folder) / _PLAN)


def _has_kernels(config: Mapping) -> bool:
    """Whether there may be kernels, whose schedules have to be written down, which takes time."""
    model = config["model"]
    chosen = {model["attention"], *(o.get("attention") for o in model["overrides"].values())}
    return bool(chosen & {"kernel", "auto"})


def main(folder: Path) -> None:
    """What the child does."""
    from mmr_jax import config as configs
    from mmr_jax.plan.plan import make_plan
    from mmr_jax.plan.target import topology

    request = read_json(folder / _REQUEST)
    try:
        found = make_plan(configs.from_dict(request["config"]), topology(request["topology"]), request["only"])
    except UserError as error:
        return write_json(folder / _ERROR, str(error))
    write_json(folder / _PLAN, found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
