"""The model of the robustness study: encoder, contrastive projections, fusion and classification head."""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import FrozenConfigDict

from mmr_jax.errors import UserError
from mmr_jax.models.encoder import MultimodalEncoder
from mmr_jax.models.encoder_config import ALL, JOINT, encoder_config
from mmr_jax.models.functional import Functional


def l2_normalize(x: jax.Array, eps: float = 1e-12) -> jax.Array:
    """x / max(|x|, eps) over the last axis; the gradient at 0 is finite."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), eps * eps))


def masked_mean(embeddings: jax.Array, mask: jax.Array) -> jax.Array:
    """Eq. 7: mean over the modalities that are there. [.., M, D], bool [.., M] -> [.., D]; zeros when none is."""
    total = jnp.sum(jnp.where(mask[..., None], embeddings, 0.0), axis=-2)
    return total / jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1)


class Projection(nnx.Module):
    """Projection into the contrastive space: `linear` (no bias), or `mlp` (VATT's shape with LN in place of BN)."""

    def __init__(self, kind: str, width: int, dim: int, rngs: nnx.Rngs):
        init = nnx.initializers.xavier_uniform()
        self.kind = kind
        if kind == "mlp":
            self.hidden = nnx.Linear(width, dim, use_bias=False, kernel_init=init, rngs=rngs)
            self.hidden_norm = nnx.LayerNorm(dim, rngs=rngs)
            self.out_norm = nnx.LayerNorm(dim, rngs=rngs)
        self.out = nnx.Linear(dim if kind == "mlp" else width, dim, use_bias=False, kernel_init=init, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, width] -> [B, dim]."""
        if self.kind == "linear":
            return self.out(x)
        return self.out_norm(self.out(jax.nn.relu(self.hidden_norm(self.hidden(x)))))


class MultimodalModel(nnx.Module):
    """Encoder + projections + head. Softmax and sigmoid heads have the same parameters and differ in the loss."""

    def __init__(self, cfg: FrozenConfigDict, modalities: FrozenConfigDict, num_classes: int, rngs: nnx.Rngs):
        self.modalities = tuple(sorted(modalities))
        encoder = encoder_config(cfg, self.modalities)
        self.encoder = MultimodalEncoder(encoder, modalities, rngs)
        widths = {m: encoder.for_modality(m).block.width for m in self.modalities}
        projection = cfg.projection
        if projection.kind not in ("none", "linear", "mlp"):
            raise UserError(f"model.projection.kind {projection.kind!r}: choose none, linear or mlp")
        if projection.kind != "none":
            self.projections = nnx.Dict(
                {m: Projection(projection.kind, widths[m], projection.dim, rngs) for m in self.modalities}
            )
        self.projected = cfg.embedding == "projected" and projection.kind != "none"
        self.joint, self.normalize, self.sincos = encoder.joint, cfg.normalize, encoder.tower.positions == "sincos"
        sizes = {projection.dim} if self.projected and not self.joint else set(widths.values())
        if len(sizes) > 1:
            raise UserError("model: towers of unequal width can be averaged only with model.embedding='projected'")
        self.dim = sizes.pop()
        if self.normalize == "layer":
            self.head_norm = nnx.LayerNorm(self.dim, epsilon=cfg.norm_eps, rngs=rngs)
        self.head = nnx.Linear(self.dim, num_classes, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def _project(self, name: str, pooled: jax.Array) -> jax.Array:
        return self.projections[name](pooled) if hasattr(self, "projections") else pooled

    def pooled(self, name: str, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        """Tokens [B, T, D] after the owned blocks of `name` -> its projected embedding float32 [B, dim]."""
        return self._project(name, self.encoder.stream(name, tokens, mask).pooled)

    def contrastive(self, inputs: Mapping, length: Mapping, rng: jax.Array | None = None) -> dict[str, jax.Array]:
        """Per modality the projected embedding float32 [B, dim], not normalised."""
        owned = self.encoder.tokens(inputs, length, rng)
        return {m: self.pooled(m, *owned[m]) for m in owned}

    def parts(self, inputs: Mapping, length: Mapping, rng: jax.Array | None = None) -> dict[str, object]:
        """What is computed once per example whatever the subset: per modality the embedding that Eq. 7 averages
        (float32 [B, D]), or with the joint fusion the tokens and mask after the owned blocks."""
        owned = self.encoder.tokens(inputs, length, rng)
        return owned if self.joint else {m: self._embedding(m, *owned[m]) for m in owned}

    def _embedding(self, name: str, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        pooled = self.encoder.stream(name, tokens, mask).pooled
        if self.projected:
            pooled = self._project(name, pooled)
        return self._scaled(pooled)

    def _scaled(self, x: jax.Array) -> jax.Array:
        """`normalize`: l2 is unit norm times sqrt(D), so that every coordinate is of order one, which the head's
        learning rate counts on; layer is a LayerNorm with parameters (CAV-MAE's head)."""
        if self.normalize == "layer":
            return self.head_norm(x)
        return l2_normalize(x) * jnp.sqrt(self.dim) if self.normalize == "l2" else x

    def fuse(self, parts: Mapping[str, object], select: Mapping[str, jax.Array]) -> jax.Array:
        """Parts of some modalities, bool [B] per modality -> fused embedding float32 [B, D]."""
        if self.joint:
            return self._scaled(self.encoder.joint(parts, select).pooled)
        names = sorted(parts)
        return masked_mean(jnp.stack([parts[m] for m in names], axis=1), jnp.stack([select[m] for m in names], axis=1))

    def logits(self, pooled: jax.Array) -> jax.Array:
        """A pooled stream [B, D] -> float32 logits [B, C], scaled as `fuse` scales it."""
        return self.classify(self._scaled(pooled))

    def classify(self, fused: jax.Array) -> jax.Array:
        """Fused embedding [.., D] -> float32 logits [.., C]."""
        return self.head(fused)


def cut(batch: Mapping, modalities: Sequence[str]) -> tuple[dict, dict, dict]:
    """(inputs, length, present) of a batch, restricted to `modalities`; absent examples have length 0."""
    present = {m: batch["present"][m] for m in modalities}
    length = {m: jnp.where(present[m], batch["length"][m], 0) for m in modalities}
    return {m: batch["inputs"][m] for m in modalities}, length, present


def owner(path: str) -> str | None:
    """The modality (or stream) that a parameter belongs to, None for what everybody shares."""
    parts = path.split("/")
    for container, name in zip(parts, parts[1:], strict=False):
        if container in ("tokenizers", "owned", "norms", "projections", "outputs"):
            return name
    return None


class Model(Functional):
    """`MultimodalModel` as pure functions, with the rules that say which parameters an input reaches."""

    def __init__(self, cfg: FrozenConfigDict, modalities: FrozenConfigDict, num_classes: int):
        reserved = {JOINT, ALL} & set(modalities)
        if reserved:
            raise UserError(f"a modality cannot be called {reserved.pop()!r}: the name is reserved; rename it")
        super().__init__(lambda rngs: MultimodalModel(cfg, modalities, num_classes, rngs))
        module = self.bind(self.shapes)
        self.names, self.dim, self.num_classes = module.modalities, module.dim, num_classes
        self.joint, self.projected, self.sincos = module.joint, module.projected, module.sincos
        self.encoder, self.has_shared = module.encoder.cfg, module.encoder.has_shared

    def in_pretraining(self, path: str, modalities: Sequence[str], single: bool, joint: bool) -> bool:
        """Whether pretraining on `modalities` changes the parameter at `path`.

        `single`: each modality's own stream is used, with its projection; `joint`: the joint stream is. Sin-cos
        positions stay as they are.
        """
        if path.startswith(("head/", "head_norm/")) or (self.sincos and path.endswith("/position")):
            return False
        who = owner(path)
        if path.startswith(("projections/", "encoder/shared/", "encoder/norms/")) and who in self.names and not single:
            return False
        return who in (None, ALL, *modalities, *([JOINT] if joint else []))

    def in_classification(self, path: str, modalities: Sequence[str]) -> bool:
        """Whether the logits for `modalities` depend on the parameter at `path`."""
        who = owner(path)
        if path.startswith("projections/"):
            return self.projected and not self.joint and who in modalities
        if self.joint and not path.startswith(("encoder/owned/", "encoder/tokenizers/")):
            return who in (None, ALL, JOINT)
        return who in (None, ALL, *modalities)


@functools.lru_cache(maxsize=64)
def build_model(cfg: FrozenConfigDict, modalities: FrozenConfigDict, num_classes: int) -> Model:
    """The model of a config. Equal configs give the same object, so what was compiled for it is used again."""
    return Model(cfg, modalities, num_classes)
