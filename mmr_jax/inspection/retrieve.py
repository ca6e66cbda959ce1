"""The stage that searches a test split by pretrained embeddings, across every pair of modalities."""

import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmr_jax.data.source import Source, Subset
from mmr_jax.models.model import Model, cut
from mmr_jax.robustness.evaluator import SubsetEvaluator
from mmr_jax.robustness.retrieval import search_pairs
from mmr_jax.train.checkpoint import load_params


def single_embeddings(model: Model, params: dict, batch: Mapping, masks: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(embeddings float32 [M, B, D], present bool [M, B]) of each modality alone, over all its tokens.

    What contrastive pretraining compares: projected where the model projects, else the pooled stream. `masks` is not
    read: it makes this a program of `SubsetEvaluator`. Of images with several frames the middle one is used.
    """
    del masks
    inputs, length, present = cut(batch, model.names)
    found = model.bind(params).contrastive(inputs, length)
    return jnp.stack([found[m] for m in model.names]), jnp.stack([present[m] for m in model.names])


@functools.lru_cache(maxsize=32)
def _program(model: Model, mesh: Mesh):
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(functools.partial(single_embeddings, model), out_shardings=whole)


class SingleEmbedder(SubsetEvaluator):
    """Embeddings of each modality alone over a whole source."""

    def __call__(self, params: dict, source: Source) -> dict[str, np.ndarray]:
        """{"scores": float32 [M, N, D], "valid": bool [M, N], "labels", "ids"}, modalities in sorted order."""
        return self._over(_program(self.model, self.mesh), params, source)


def retrieve(study, stage, directory: Path) -> dict:
    """Retrieval across every pair of modalities on the first examples of the first test split."""
    params = load_params(study.path(stage.needs[0]) / "params", study.model.shapes)
    split = study.config.study.test_splits[0]
    source = study.dataset.splits[split]
    first = Subset(source, np.arange(min(study.config.study.retrieval, len(source))))
    embedder = SingleEmbedder(study.model, study.modalities, study.config.study.eval_batch_size, study.mesh)
    found = embedder(params, first)
    named = [dict(zip(study.modalities, found[k], strict=True)) for k in ("scores", "valid")]
    return {"split": split, "examples": len(first), "pairs": search_pairs(*named, found["labels"])}
