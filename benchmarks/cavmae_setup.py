"""The full-size CAV-MAE pretraining step that benchmarks/cavmae_step.py measures: config, program and a batch."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mmr_jax import config as configs
from mmr_jax.methods import pretraining
from mmr_jax.models.model import build_model
from mmr_jax.models.tokenizers import input_spec
from mmr_jax.train.step import make_program

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "cavmae" / "audioset_base.py"
# What the published PyTorch code needs per sample, forward and backward of the same shapes (2 per multiplication).
USEFUL_FLOPS = 233.8e9


def full_size(dtype: str, **overrides):
    """The config of the paper's base model: 128 + 49 visible tokens, 12 layers of 768, a decoder of 708 tokens."""
    return configs.load(CONFIG, {"model.dtype": dtype, **overrides})


class Setup:
    """The program of a config's pretraining, and shapes or values of what goes in."""

    def __init__(self, config, mesh, batch_size: int):
        frozen = configs.freeze(config)
        self.names, self.modalities, self.batch_size = sorted(config.modalities), frozen.modalities, batch_size
        self.objective = pretraining(config, build_model(frozen.model, frozen.modalities, 2), self.names)
        recipe = frozen.pretrain
        self.program = make_program(self.objective, recipe.optim, recipe.steps, 0.0, mesh)

    def start(self):
        """A fresh state."""
        return self.program.start(*self.objective.init(jax.random.key(0)))

    def batch(self, seed: int = 0) -> dict:
        """Random inputs of full length."""
        rng, size, inputs, length = np.random.default_rng(seed), self.batch_size, {}, {}
        for m in self.names:
            shape, dtype, full = input_spec(self.modalities[m])
            inputs[m] = rng.integers(0, 256, (size, *shape)).astype(dtype)
            length[m] = np.full(size, full, np.int32)
        present = {m: np.ones(size, bool) for m in self.names}
        batch = dict(inputs=inputs, length=length, present=present, weight=np.ones(size, np.float32))
        return {"unlabelled": jax.tree.map(jnp.asarray, batch)}
