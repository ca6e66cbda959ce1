"""Optimisers and schedules from the `optim` block of a config, as one optax chain over the leaves that train."""

import re
from collections.abc import Callable

import jax
import optax
from ml_collections import FrozenConfigDict

from mmr_jax.errors import UserError, nearest

_DECAYED = re.compile(r"(kernel|embedding)$")


def path_string(path) -> str:
    """A jax key path as "a/b/c"."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def learning_rate(cfg: FrozenConfigDict, steps: int) -> optax.Schedule:
    """Linear warm-up over `warmup_steps`, then `schedule`: cosine to 0, constant, or multistep.

    multistep multiplies by `decay_factor` at each share of the run in `decay_at` (for example (0.5, 0.75)).
    """
    warmup = min(cfg.warmup_steps, steps)
    rest = max(steps - warmup, 1)
    bodies = {
        "cosine": lambda: optax.cosine_decay_schedule(cfg.lr, rest),
        "constant": lambda: optax.constant_schedule(cfg.lr),
        "multistep": lambda: optax.piecewise_constant_schedule(
            cfg.lr, {round(share * steps) - warmup: cfg.decay_factor for share in cfg.decay_at}
        ),
    }
    if cfg.schedule not in bodies:
        raise UserError(f"optim.schedule: unknown schedule {cfg.schedule!r}{nearest(cfg.schedule, bodies)}")
    body = bodies[cfg.schedule]()
    if not warmup:
        return body
    return optax.join_schedules([optax.linear_schedule(cfg.lr / warmup, cfg.lr, warmup - 1), body], [warmup])


def _by_path(tree, rule: Callable[[str], object]):
    return jax.tree_util.tree_map_with_path(lambda path, _: rule(path_string(path)), tree)


def scale_by_group(groups) -> optax.GradientTransformation:
    """Multiply updates by the factor of the first (pattern, factor) whose regex is found in the parameter's path."""

    def factor(path: str) -> float:
        return next((f for pattern, f in groups if re.search(pattern, path)), 1.0)

    def update(updates, state, params=None):
        return jax.tree.map(lambda u, f: u * f, updates, _by_path(updates, factor)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def make_optimizer(cfg: FrozenConfigDict, steps: int) -> optax.GradientTransformation:
    """The chain: clip by global norm, coupled decay (`adam_l2`, `sgd`), moments, decoupled decay, groups, schedule.

    Decay acts on kernels and embedding tables, not on biases, norms, positions or tokens.
    """
    decay = optax.add_decayed_weights(cfg.weight_decay, mask=lambda p: _by_path(p, lambda s: bool(_DECAYED.search(s))))
    adam = optax.scale_by_adam(b1=cfg.b1, b2=cfg.b2, eps=cfg.eps)
    bodies = {"adamw": [adam, decay], "adam_l2": [decay, adam], "sgd": [decay, optax.trace(cfg.b1)]}
    if cfg.name not in bodies:
        raise UserError(f"optim.name: unknown optimiser {cfg.name!r}{nearest(cfg.name, bodies)}")
    chain = [optax.clip_by_global_norm(cfg.clip)] if cfg.clip else []
    chain += [
        *bodies[cfg.name],
        scale_by_group(cfg.groups),
        optax.scale_by_learning_rate(learning_rate(cfg, steps)),
    ]
    return optax.chain(*chain)
