"""What the commands that work on a study do first: hear signals, and find the other hosts, if there are any."""

import contextlib
import hashlib
import importlib.metadata
import platform
from pathlib import Path

import mmr_jax
from mmr_jax import config as configs


@contextlib.contextmanager
def joined(config, workdir: Path):
    """Within, signals ask for a stop, and this process is one of the hosts of a job that is the same on all."""
    from mmr_jax.train import hosts, interrupt

    with interrupt.handled(ends_process=True):
        hosts.start()
        hosts.check_agreement({**_versions(), **configs.flatten(configs.to_dict(config))}, workdir)
        yield hosts


def _versions() -> dict[str, str]:
    """The versions of Python and of the libraries that a result depends on, and a digest of our own code."""
    names = ("jax", "jaxlib", "flax", "optax", "numpy")
    code = hashlib.blake2b(digest_size=8)
    root = Path(mmr_jax.__file__).parent
    for path in sorted(root.rglob("*.py")):
        code.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    found = {f"version of {name}": importlib.metadata.version(name) for name in names}
    return {**found, "version of python": platform.python_version(), "the code of mmr_jax": code.hexdigest()}
