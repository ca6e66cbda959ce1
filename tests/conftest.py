"""Tests run on the CPU with eight fake devices; most use a mesh of one of them (`toy.mesh()`)."""

import os
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLAGS = {
    "--xla_force_host_platform_device_count": "8",
    "--xla_backend_optimization_level": "0",  # compiling is what tests spend their time on: this halves it
    "--xla_llvm_disable_expensive_passes": "true",
}
if metadata.version("jaxlib").startswith("0.10."):  # a flag that a version does not know ends the process
    FLAGS["--xla_cpu_use_fusion_emitters"] = "false"  # compiles in a quarter of the time
given = os.environ.get("XLA_FLAGS", "")
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join([given, *(f"{k}={v}" for k, v in FLAGS.items() if k not in given)]).strip()
# Threads for collectives: with as few as devices, all may wait in one collective for a device whose turn is another.
os.environ.setdefault("NPROC", "32")
# No compilation cache on disk: programs loaded from it have crashed here, and waited for each other for ever.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of published numbers; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("MMR_REFERENCE", ROOT.parent / "shared/reference"))
    if not folder.is_dir():
        pytest.skip(f"no reference numbers in {folder}")
    return folder


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Each compiled program holds memory maps of the process; some thousands of them and the next one crashes."""
    yield
    import jax

    jax.clear_caches()


def pytest_sessionstart(session):
    """Tests name files relative to the repository (configs/, tests/toy.py)."""
    os.chdir(ROOT)
