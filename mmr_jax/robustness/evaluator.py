"""Evaluation over all modality subsets at the price of one: each modality is encoded once per example."""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmr_jax.data.pipeline import eval_batches
from mmr_jax.data.source import Source
from mmr_jax.models.model import Model, cut, masked_mean
from mmr_jax.models.placement import within
from mmr_jax.robustness.subsets import subset_masks
from mmr_jax.train import hosts, interrupt, sharding


def fused_embeddings(model: Model, params: dict, batch: Mapping, masks: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Embeddings of every subset: masks bool [S, M] (columns in the order of model.names) ->
    (float32 [S, B, D], valid bool [S, B]).

    The subset is an array, so one program serves all. With mean fusion the subsets are masks over the M embeddings;
    with joint fusion the owned blocks run once and the shared blocks once per subset. An example is valid in a
    subset if it has some modality of it.
    """
    module = model.bind(params)
    inputs, length, present = cut(batch, model.names)
    select = _select(model, present, masks)
    return _fuse(model, module, module.parts(inputs, length), select), jnp.any(select, axis=-1)


def _select(model: Model, present: Mapping, masks: jax.Array) -> jax.Array:
    """bool [S, B, M]: what each example has of each subset."""
    return masks[:, None, :] & jnp.stack([present[m] for m in model.names], axis=1)[None]


def _fuse(model: Model, module, parts: Mapping, select: jax.Array) -> jax.Array:
    """Parts of all modalities, select [S, B, M] -> embeddings float32 [S, B, D]."""
    if model.joint:
        return jax.lax.map(lambda s: module.fuse(parts, {m: s[:, i] for i, m in enumerate(model.names)}), select)
    return masked_mean(jnp.stack([parts[m] for m in model.names], axis=1)[None], select)


def subset_logits(
    model: Model, params: dict, batch: Mapping, masks: jax.Array, multilabel: bool
) -> tuple[jax.Array, jax.Array]:
    """Logits of every subset: (float32 [S, B, C], valid bool [S, B]); see `fused_embeddings`.

    With images of several frames the probabilities of all frames are averaged (CAV-MAE): these are then the log of mean
    softmax probabilities, or with `multilabel` the logits of mean sigmoids, so that argmax, rank, softmax and sigmoid
    agree with the means. The other modalities are encoded once. If n differs, the frames are spread evenly.
    """
    module = model.bind(params)
    inputs, length, present = cut(batch, model.names)
    select = _select(model, present, masks)
    valid = jnp.any(select, axis=-1)
    framed = frame_counts(model, module)
    if not framed:
        return module.classify(_fuse(model, module, module.parts(inputs, length), select)), valid
    once = {m: x for m, x in inputs.items() if m not in framed}
    fixed = module.parts(once, {m: length[m] for m in once}) if once else {}
    most = max(framed.values())

    def one(i):
        frame = {m: inputs[m][:, i * n // most] for m, n in framed.items()}
        parts = {**fixed, **module.parts(frame, {m: length[m] for m in frame})}
        return module.classify(_fuse(model, module, parts, select))

    return mean_logits(jax.lax.map(one, jnp.arange(most)), multilabel), valid


def frame_counts(model: Model, module) -> dict[str, int]:
    """{m: n} of the images that come as n > 0 frames."""
    configs = {m: module.encoder.tokenizers[m].cfg for m in model.names}
    return {m: cfg.frames for m, cfg in configs.items() if cfg.kind == "image" and cfg.get("frames")}


def mean_logits(logits: jax.Array, multilabel: bool) -> jax.Array:
    """[F, ..., C] -> [..., C]: logits whose sigmoid (softmax) is the mean over F of the sigmoids (softmaxes)."""
    if not multilabel:
        return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0) - jnp.log(logits.shape[0])
    yes, no = (jax.nn.logsumexp(jax.nn.log_sigmoid(sign * logits), axis=0) for sign in (1, -1))
    return yes - no


@functools.lru_cache(maxsize=32)
def _programs(model: Model, mesh: Mesh, multilabel: bool):
    """(embeddings, logits) as compiled functions of (params, batch, masks), one pair for all evaluators of a model."""
    whole = NamedSharding(mesh, PartitionSpec())
    return tuple(
        jax.jit(within(mesh, functools.partial(fn, model)), out_shardings=whole)
        for fn in (fused_embeddings, functools.partial(subset_logits, multilabel=multilabel))
    )


class SubsetEvaluator:
    """Class scores of one model for every subset in `subsets`; one program serves all parameters and methods.

    `multilabel` says how the probabilities of frames are averaged; without images of several frames it does nothing.
    """

    def __init__(self, model: Model, subsets: Sequence[str], batch_size: int, mesh: Mesh, multilabel: bool = False):
        self.model, self.subsets, self.batch_size, self.mesh = model, tuple(subsets), batch_size, mesh
        sharding.check_batch(batch_size, mesh)
        self._masks = jnp.asarray(subset_masks(model.names, self.subsets))
        self._fused, self._logits = _programs(model, mesh, multilabel)

    def logits(self, params: dict, source: Source) -> dict[str, np.ndarray]:
        """{"scores": float32 [S, N, C] logits, "valid": bool [S, N], "labels", "ids"} over a whole source, in order."""
        return self._over(self._logits, params, source)

    def embeddings(self, params: dict, source: Source) -> dict[str, np.ndarray]:
        """As `logits`, with the fused embeddings float32 [S, N, D] as "scores": what linear probes are trained on.

        Of images with several frames the middle one is used.
        """
        return self._over(self._fused, params, source)

    def _over(self, program, params, source) -> dict[str, np.ndarray]:
        params, heard = sharding.replicated(params, self.mesh), hosts.Poll(self.mesh)
        scores, facts, pending = [], [], None
        rows = sharding.host_rows(self.batch_size, self.mesh)
        for batch in eval_batches(source, self.batch_size, rows):
            if heard.ask(interrupt.FLAG.raised):
                hosts.check_signals("an evaluation")
            out = program(params, sharding.put_batch(batch, self.mesh), self._masks)
            if pending is not None:  # fetched while the next batch is under way; inputs are let go
                scores.append(jax.device_get(pending))
            pending = out
            facts.append({k: batch[k] for k in ("weight", "label", "id")})
        scores.append(jax.device_get(pending))
        known = _of_all_hosts(facts, rows)
        real = known["weight"] > 0
        return {
            "scores": np.concatenate([s for s, _ in scores], axis=1)[:, real],
            "valid": np.concatenate([v for _, v in scores], axis=1)[:, real],
            "labels": known["label"][real],
            "ids": known["id"][real],
        }


def _of_all_hosts(facts: list[dict[str, np.ndarray]], rows: np.ndarray) -> dict[str, np.ndarray]:
    """{name: [N, ...]} in the order of the global batches, from this host's `rows` of each batch."""
    found = {k: np.stack([f[k] for f in facts]) for k in facts[0]}  # [batches, rows of a host, ...]
    if hosts.many():
        _, order = np.unique(process_allgather(rows), return_index=True)
        everyone = {k: np.moveaxis(process_allgather(v), 0, 1) for k, v in found.items()}
        found = {k: v.reshape(len(facts), -1, *v.shape[3:])[:, order] for k, v in everyone.items()}
    return {k: v.reshape(-1, *v.shape[2:]) for k, v in found.items()}
