"""What decides the numbers besides the config: versions, and our own code."""

import hashlib
import importlib.metadata
import platform
from pathlib import Path

from mmr_jax import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def versions() -> dict[str, str]:
    """Of this package, Python, and the libraries that results depend on."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"mmr_jax": __version__, "python": platform.python_version(), **found}


def code_digest() -> str:
    """Digest of all files of this package: two hosts with the same one run the same code."""
    root, made = Path(__file__).parent, hashlib.blake2b(digest_size=8)
    for path in sorted(root.rglob("*.py")):
        made.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return made.hexdigest()
