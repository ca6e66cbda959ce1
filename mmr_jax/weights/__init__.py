"""Published checkpoints: reading files without running them, converting both ways, starting a model from them."""

from mmr_jax.weights.convert import Converted, from_published, mae_as_cavmae, to_published
from mmr_jax.weights.folder import load_converted, save_converted
from mmr_jax.weights.mae import mae_to_cavmae
from mmr_jax.weights.read import read_tensors
from mmr_jax.weights.warm import Layout, layouts, warm_start

__all__ = ["Converted", "Layout", "from_published", "layouts", "load_converted", "mae_as_cavmae", "mae_to_cavmae"]
__all__ += ["read_tensors", "save_converted", "to_published", "warm_start"]
