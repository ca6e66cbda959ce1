"""Where pretraining starts from: fresh parameters, or converted published weights wherever they fit."""

import functools
import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from ml_collections import ConfigDict

from mmr_jax import tree
from mmr_jax.errors import UserError
from mmr_jax.models.model import owner
from mmr_jax.weights import layouts, load_converted, warm_start
from mmr_jax.weights.folder import PARAMS


def start_from_weights(config: ConfigDict, params: Mapping) -> tuple[dict, dict[str, int]]:
    """`params` (fresh, nested dict) with the weights of the folder `pretrain.init`, and how many leaves were used,
    resized, left fresh, and dropped. Without the option: `params` and nothing.

    `pretrain.init_from` says whose weights each modality takes; several may take the same (CLIP's image tower). What
    the decoder predicts of a modality is taken for the same one only.
    """
    if not config.pretrain.init:
        return dict(params), {}
    converted = load_converted(config.pretrain.init)
    given, takes = layouts(converted.info["modalities"]), dict(config.pretrain.init_from)
    source = _renamed(tree.flatten(converted.params), takes, given)
    theirs = {m: given[name] for m, name in takes.items() if name in given}
    other = [f"decoder/outputs/{m}/predict/.*" for m, name in takes.items() if name != m]
    params, account = warm_start(params, tree.unflatten(source), layouts(config.modalities), theirs, skip=other)
    return params, {what: len(paths) for what, paths in account.items()}


def _renamed(weights: Mapping, takes: Mapping[str, str], given: Collection[str]) -> dict:
    """Flat weights with those of the modalities `given` under the name of each of ours that takes them."""
    out = {path: leaf for path, leaf in weights.items() if owner(path) not in given}
    for ours, theirs in takes.items():
        own = {path: leaf for path, leaf in weights.items() if owner(path) == theirs}
        out |= {"/".join(ours if part == theirs else part for part in path.split("/")): v for path, v in own.items()}
    return out


def check_weights(config: ConfigDict) -> None:
    """Refuse `pretrain.init` before anything runs if it holds no converted weights."""
    if config.pretrain.init and not _file(config).is_file():
        raise UserError(f"pretrain.init: {config.pretrain.init} holds no converted weights; make them with mmr convert")


def weights_digest(config: ConfigDict) -> dict[str, str]:
    """What the pretraining stage depends on in place of the path `pretrain.init`: the content, if it is there."""
    file = _file(config)
    if not config.pretrain.init or not file.is_file():
        return {}
    return {"pretrain.init": _digest(file, file.stat().st_mtime_ns, file.stat().st_size)}


def _file(config: ConfigDict) -> Path:
    return Path(config.pretrain.init) / PARAMS


@functools.lru_cache(maxsize=8)
def _digest(path: Path, modified: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
