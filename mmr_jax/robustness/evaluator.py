"""Evaluation over all modality subsets at the price of one: each modality is encoded once per example."""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmr_jax.data.pipeline import eval_batches
from mmr_jax.data.source import Source
from mmr_jax.errors import UserError
from mmr_jax.models.model import Model, cut, masked_mean
from mmr_jax.robustness.subsets import subset_masks
from mmr_jax.train import sharding


def fused_embeddings(model: Model, params: dict, batch: Mapping, masks: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Embeddings of every subset: masks bool [S, M] (columns in the order of model.names) ->
    (float32 [S, B, D], valid bool [S, B]).

    The subset is an array, so one program serves all. With mean fusion the subsets are masks over the M embeddings;
    with joint fusion the owned blocks run once and the shared blocks once per subset. An example is valid in a
    subset if it has some modality of it.
    """
    module = model.bind(params)
    inputs, length, present = cut(batch, model.names)
    parts = module.parts(inputs, length)
    there = jnp.stack([present[m] for m in model.names], axis=1)
    select = masks[:, None, :] & there[None]
    if model.joint:
        fused = jax.lax.map(lambda s: module.fuse(parts, {m: s[:, i] for i, m in enumerate(model.names)}), select)
    else:
        fused = masked_mean(jnp.stack([parts[m] for m in model.names], axis=1)[None], select)
    return fused, jnp.any(select, axis=-1)


@functools.lru_cache(maxsize=32)
def _programs(model: Model, mesh: Mesh):
    """(embeddings, logits) as compiled functions of (params, batch, masks), one pair for all evaluators of a model."""

    def logits(params, batch, masks):
        fused, valid = fused_embeddings(model, params, batch, masks)
        return model.bind(params).classify(fused), valid

    whole = NamedSharding(mesh, PartitionSpec())
    return (
        jax.jit(functools.partial(fused_embeddings, model), out_shardings=whole),
        jax.jit(logits, out_shardings=whole),
    )


class SubsetEvaluator:
    """Class scores of one model for every subset in `subsets`; one program serves all parameters and methods."""

    def __init__(self, model: Model, subsets: Sequence[str], batch_size: int, mesh: Mesh):
        if jax.process_count() > 1:  # labels are read per host and outputs are global: they would not match
            raise UserError("evaluation runs on one host; start mmr evaluate on a single one")
        self.model, self.subsets, self.batch_size, self.mesh = model, tuple(subsets), batch_size, mesh
        sharding.check_batch(batch_size, mesh)
        self._masks = jnp.asarray(subset_masks(model.names, self.subsets))
        self._fused, self._logits = _programs(model, mesh)

    def logits(self, params: dict, source: Source) -> dict[str, np.ndarray]:
        """{"scores": float32 [S, N, C] logits, "valid": bool [S, N], "labels", "ids"} over a whole source, in order."""
        return self._over(self._logits, params, source)

    def embeddings(self, params: dict, source: Source) -> dict[str, np.ndarray]:
        """As `logits`, with the fused embeddings float32 [S, N, D] as "scores": what linear probes are trained on."""
        return self._over(self._fused, params, source)

    def _over(self, program, params, source) -> dict[str, np.ndarray]:
        params = jax.device_put(params, NamedSharding(self.mesh, PartitionSpec()))
        rows, pending = [], None
        for batch in eval_batches(source, self.batch_size):
            out = program(params, sharding.put_batch(batch, self.mesh), self._masks)
            if pending is not None:  # fetched while the next batch is under way; inputs are let go
                rows.append(_real_rows(*pending))
            pending = out, {k: batch[k] for k in ("weight", "label", "id")}
        rows.append(_real_rows(*pending))
        scores, valid, labels, ids = zip(*rows, strict=True)
        return {
            "scores": np.concatenate(scores, axis=1),
            "valid": np.concatenate(valid, axis=1),
            "labels": np.concatenate(labels),
            "ids": np.concatenate(ids),
        }


def _real_rows(out: tuple[jax.Array, jax.Array], batch: Mapping) -> tuple[np.ndarray, ...]:
    """(scores [S, n, C], valid [S, n], labels, ids) of the n rows of a batch that are no padding."""
    real = batch["weight"] > 0
    scores, valid = jax.device_get(out)
    return scores[:, real], valid[:, real], batch["label"][real], batch["id"][real]
