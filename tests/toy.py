"""Tiny models, batches and studies that the tests share; also a config file: `--config=tests/toy.py:<argument>`."""

import os
import subprocess
import sys

import jax
import numpy as np

from mmr_jax import config as configs
from mmr_jax import tree
from mmr_jax.models.model import build_model
from mmr_jax.models.tokenizers import input_spec
from mmr_jax.train.sharding import make_mesh

CLASSES = 5
MODALITIES = {
    "audio": configs.spectrogram(samples=1600, frames=8, mels=16, patch_size=(4, 8)),
    "image": configs.image(height=8, width=8, patch_size=(4, 4)),
    "text": configs.text(length=8),
}
MODEL = {"width": 16, "depth": 2, "heads": 2, "mlp_dim": 32, "projection.dim": 12}
JOINT = {"fusion": "joint", "adapter_depth": 1}


def get_config(argument=""):
    """A study of a few steps. Arguments: "joint" for the joint fusion, "two" for audio and text alone."""
    names = ("audio", "text") if argument == "two" else tuple(MODALITIES)
    config = configs.base("synthetic", {m: MODALITIES[m] for m in names})
    changes = {f"model.{k}": v for k, v in {**MODEL, **(JOINT if argument == "joint" else {})}.items()}
    changes |= {f"data.{split}": 16 for split in ("labelled", "val", "test")}
    changes |= {"data.unlabelled": 32, "data.classes": 4, "data.missing": 0.3, "study.eval_batch_size": 16}
    changes |= {f"{part}.batch_size": 8 for part in ("pretrain", "probe", "finetune")}
    changes |= {"pretrain.steps": 4, "probe.steps": 4, "finetune.steps": 4, "finetune.validate_every": 2}
    changes |= {f"{part}.log_every": 1 for part in ("pretrain", "probe", "finetune")}
    changes |= {"name": "toy"}
    for key, value in changes.items():
        configs.set_field(config, key, value)
    return config


def recipe(**changes):
    """The block of a config that `fit` runs, frozen."""
    config = get_config().finetune
    for key, value in changes.items():
        configs.set_field(config, key.replace("__", "."), value)
    return configs.freeze(config)


def model(changes=None, modalities=MODALITIES, classes=CLASSES, overrides=None):
    """The toy model with `changes` to the model block; equal arguments give the same object."""
    config = configs.base("synthetic", modalities)
    for key, value in {**MODEL, **(changes or {})}.items():
        configs.set_field(config.model, key, value)
    config.model.overrides = overrides or {}
    frozen = configs.freeze(config)
    return build_model(frozen.model, frozen.modalities, classes)


def parameters(made, seed=0):
    """Generic parameters: nothing is zero or one, the head least of all."""
    rng = np.random.default_rng(seed)
    flat = {path: rng.normal(size=leaf.shape).astype(np.float32) * 0.25 for path, leaf in shapes(made).items()}
    return tree.unflatten({path: 1 + leaf if path.endswith("scale") else leaf for path, leaf in flat.items()})


def shapes(made) -> dict:
    """{path: ShapeDtypeStruct} of a model."""
    return tree.flatten(made.shapes)


def batch(size=6, seed=0, present=None, modalities=MODALITIES, multilabel=False, classes=CLASSES):
    """A random batch; what is absent or past an example's length holds noise, not zeros.

    `present` is {m: [size bools]}, or None for all present.
    """
    rng = np.random.default_rng(seed)
    out = {"inputs": {}, "present": {}, "length": {}}
    for m, cfg in modalities.items():
        shape, dtype, full = input_spec(configs.freeze(configs.ConfigDict(cfg)))
        there = np.asarray((present or {}).get(m, np.ones(size, bool)), bool)
        noise = rng.normal(size=(size, *shape)) if dtype == np.float32 else rng.integers(1, 250, (size, *shape))
        out["inputs"][m] = (noise * 60 if dtype == np.int16 else noise).astype(dtype)
        out["present"][m] = there
        out["length"][m] = np.where(there, rng.integers(max(1, full // 2), full + 1, size), 0).astype(np.int32)
    labels = rng.integers(0, classes, size).astype(np.int32)
    out["label"] = (rng.random((size, classes)) < 0.4).astype(np.float32) if multilabel else labels
    return {**out, "weight": np.ones(size, np.float32), "id": np.arange(size, dtype=np.int32)}


class Batches:
    """A source over one batch: record i is row i."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows["id"])

    def take(self, indices):
        return jax.tree.map(lambda a: a[np.asarray(indices)], self.rows)


def mesh(data=1, fsdp=1, tensor=1):
    """A mesh over the first of the eight fake devices."""
    return make_mesh({"data": data, "fsdp": fsdp, "tensor": tensor}, jax.devices()[: data * fsdp * tensor])


def run(*command, **options):
    """`python <command>` on one device, started in the repository's root."""
    flags = [f for f in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in f]
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, "XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def slow_but(quick, names):
    """Names as parameters of a test, all but the `quick` ones left out of the quick run."""
    import pytest  # not needed where this file is a config

    return [pytest.param(name, marks=[] if name in quick else pytest.mark.slow) for name in names]


def assert_close(found, expected, tolerance=1e-5):
    """Every entry within `tolerance` of the largest absolute value in `expected`."""
    expected = np.asarray(expected, np.float64)
    scale = max(np.abs(expected).max(initial=0.0), 1e-30)
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=0, atol=tolerance * scale)


def assert_same(found, expected):
    """Equal trees, bit for bit."""
    found, expected = tree.flatten(found), tree.flatten(expected)
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(np.asarray(found[path]), np.asarray(leaf), err_msg=path)
