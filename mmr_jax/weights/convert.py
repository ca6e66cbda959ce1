"""Published tensors <-> our parameters, both ways and bit for bit, by the mapping tables of the kinds."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mmr_jax import tree
from mmr_jax.errors import UserError, nearest
from mmr_jax.weights import cavmae, clip, mae, vit
from mmr_jax.weights.exact import FLOATS, check, read_leaf, write_leaf
from mmr_jax.weights.mapping import Kind, Options, Tensors

KINDS: dict[str, Kind] = {
    "cavmae": cavmae.PRETRAINED,
    "cavmae_ft": cavmae.FINETUNED,
    "clip": clip.CLIP,
    "mae": mae.MAE,
    "vit": vit.VIT,
}
FORMAT = 1
PREFIXES = ("module.", "params/")  # of every name: torch's DataParallel, and big_vision


@dataclass(frozen=True)
class Converted:
    """`params`: our nested dict, float32. `aside`: tensors without a place in it, under their published names.

    `info`, JSON-able: `from` (the kind), `model`, `decoder` and `modalities` (config fields; decoder None if absent),
    `classes`, `parameters` and `tensors` (as published), `account` {"used": {our path: published names}, "aside": [..],
    "absent": [..]}, and what the way back needs: `sizes`, `prefix`, `dtypes` (where not float32).
    """

    params: dict
    aside: dict
    info: dict


def from_published(
    kind: str,
    tensors: Mapping[str, np.ndarray],
    heads: int | None = None,
    *,
    decoder_heads: int = 16,
    activation: str | None = None,
    mels: int = 128,
    source: str = "the checkpoint",
) -> Converted:
    """Tensors under their published names -> our parameters, with every tensor accounted for.

    What the weights do not say: `heads` (of the encoder, or CLIP's image tower; default: 64 wide each),
    `decoder_heads`, CLIP's `activation` (quick_gelu or gelu) and the `mels` of CAV-MAE's spectrograms. UserError for a
    tensor that is unknown, missing, of another shape or type, or for another architecture.
    """
    kind_ = find_kind(kind)
    if activation not in (None, *(("quick_gelu", "gelu") if kind == "clip" else ())):
        raise UserError(f"activation {activation!r}: choose quick_gelu or gelu, and only for clip")
    options = Options(heads, decoder_heads, activation, mels)
    prefix, bare = strip_prefix(tensors)
    _check_kind(kind, bare, source)
    return _convert(kind, kind_, Tensors(bare, source), options, prefix, set())


def mae_as_cavmae(
    tensors: Mapping[str, np.ndarray],
    heads: int | None = None,
    *,
    decoder_heads: int = 16,
    source: str = "the checkpoint",
) -> Converted:
    """The tensors of an MAE as the start of a CAV-MAE (see `mae_to_cavmae`); what it cannot give is absent."""
    _, bare = strip_prefix(tensors)
    _check_kind("mae", bare, source)
    options = Options(heads, decoder_heads)
    checked = Tensors(bare, source)
    check(mae.MAE.table(mae.MAE.sizes(checked, options)), checked)
    start = Tensors(mae.mae_to_cavmae(bare), source)
    table = cavmae.PRETRAINED.table(cavmae.PRETRAINED.sizes(start, options))
    absent = {name for name in table.published() if name not in start and re.fullmatch(mae.NOT_GIVEN, name)}
    return _convert("cavmae", cavmae.PRETRAINED, start, options, "", absent)


def _convert(name: str, kind: Kind, tensors: Tensors, options: Options, prefix: str, absent: set[str]) -> Converted:
    sizes = kind.sizes(tensors, options)
    table = kind.table(sizes).without(absent)
    check(table, tensors)
    flat, dtypes = {}, {}
    for leaf in table.leaves:
        flat[leaf.path] = read_leaf(leaf, tensors)
        dtypes |= {n: tensors[n].dtype.name for n in leaf.published() if tensors[n].dtype != np.float32}
    aside = {n: tensors[n] for n in tensors if n in table.aside or n in table.optional}
    account = {"used": {leaf.path: list(leaf.published()) for leaf in table.leaves}}
    account |= {"aside": sorted(aside), "absent": sorted(absent)}
    count = sum(math.prod(t.shape) for t in tensors.values() if t.dtype.name in FLOATS)
    info = {"format": FORMAT, "from": name, **kind.describe(sizes), "parameters": count, "tensors": len(tensors)}
    info |= {"sizes": sizes, "prefix": prefix, "dtypes": dtypes, "account": account}
    return Converted(tree.unflatten(flat), aside, info)


def to_published(converted: Converted) -> dict[str, np.ndarray]:
    """Every tensor of the published file, under its name and in its dtype; the inverse of `from_published`."""
    info = converted.info
    table = find_kind(info["from"]).table(info["sizes"]).without(info["account"]["absent"])
    flat, out = tree.flatten(converted.params), {}
    for leaf in table.leaves:
        if leaf.path not in flat:
            raise UserError(f"parameter {leaf.path!r} is missing{nearest(leaf.path, flat)}")
        out |= write_leaf(leaf, np.asarray(flat.pop(leaf.path)), info["dtypes"])
    if flat:
        raise UserError(f"parameter {min(flat)!r} has no place in a {info['from']} checkpoint")
    return {info["prefix"] + name: tensor for name, tensor in {**out, **converted.aside}.items()}


def find_kind(kind: str) -> Kind:
    """The kind of this name."""
    if kind not in KINDS:
        raise UserError(f"unknown kind of checkpoint {kind!r}{nearest(kind, KINDS)}")
    return KINDS[kind]


def strip_prefix(tensors: Mapping[str, np.ndarray]) -> tuple[str, dict[str, np.ndarray]]:
    """(prefix, tensors without it) where every name begins with one of `PREFIXES`."""
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return prefix, {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return "", dict(tensors)


def _check_kind(kind: str, names: Mapping, source: str) -> None:
    if KINDS[kind].fits(names):
        return
    others = [other for other in KINDS if KINDS[other].fits(names)]
    hint = (
        f"it looks like {' or '.join(others)}"
        if others
        else f"its names are such as {', '.join(map(repr, list(names)[:3]))}"
    )
    raise UserError(f"{source} is no {kind} checkpoint; {hint}")
