"""Starting one parameter tree from another: equal paths are taken, position tables and patch kernels resized."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmr_jax import tree
from mmr_jax.errors import UserError
from mmr_jax.weights.resize import resize

HEAD = "head/"


@dataclass(frozen=True)
class Layout:
    """How a modality is cut: tokens per axis (None: not known), and the size of a patch with its channels last.

    Spectrograms are (time, mel), pictures (row, column), videos (frame, row, column), text (position,).
    """

    grid: tuple[int, ...] | None
    patch: tuple[int, ...] | None = None


def layouts(modalities: Mapping[str, Mapping]) -> dict[str, Layout]:
    """{m: Layout} from a config's modalities, or from `info["modalities"]` of converted weights."""
    return {m: _layout(dict(cfg)) for m, cfg in modalities.items()}


def _layout(cfg: dict) -> Layout:
    if cfg["kind"] in ("text", "features"):
        return Layout((cfg["length"],), (cfg["dim"],) if cfg["kind"] == "features" else None)
    axes = {"spectrogram": ("frames", "mels"), "image": ("height", "width"), "video": ("frames", "height", "width")}
    patch = tuple(cfg["patch_size"])
    sizes = [cfg.get(axis) for axis in axes[cfg["kind"]]]
    grid = None if None in sizes else tuple(size // p for size, p in zip(sizes, patch, strict=True))
    return Layout(grid, (*patch, cfg.get("channels", 1)))


def warm_start(
    target: Mapping,
    source: Mapping,
    target_layouts: Mapping[str, Layout] | None = None,
    source_layouts: Mapping[str, Layout] | None = None,
    *,
    method: str = "bilinear",
    skip: Sequence[str] = (),
) -> tuple[dict, dict[str, list[str]]]:
    """`target` (nested dict of fresh parameters) with the values of `source` wherever they have a place.

    Position tables are resized over the grid by `method`, bilinear or bicubic (half-pixel centres, no antialiasing);
    the class token's row is kept, and the table of a picture is repeated over the frames of a video. Patch kernels are
    summed over channels (3 -> 1), spread over them (1 -> 3) or over a tubelet's frames, so that a constant input gives
    the same. The head stays fresh where its shape differs, `skip` (regexes on whole paths) always.

    Returns (params, account): {"used", "resized", "fresh", "dropped"} -> paths. UserError, with the path and both
    shapes, where a shape cannot be resolved, and where nothing fits at all.
    """
    fresh, given = tree.flatten(target), tree.flatten(source)
    head = any(np.shape(fresh[p]) != np.shape(given[p]) for p in fresh.keys() & given.keys() if p.startswith(HEAD))
    out, account = dict(fresh), {"used": [], "resized": [], "fresh": [], "dropped": sorted(given.keys() - fresh.keys())}
    for path, leaf in fresh.items():
        skipped = any(re.fullmatch(rule, path) for rule in skip) or (head and path.startswith(HEAD))
        if path not in given or skipped:
            account["fresh"].append(path)
            continue
        value = np.asarray(given[path])
        fitted = _fit(path, leaf, value, target_layouts or {}, source_layouts or {}, method)
        account["used" if fitted is value or _same(fitted, value) else "resized"].append(path)
        out[path] = np.asarray(fitted).astype(np.asarray(leaf).dtype)
    if not account["used"] + account["resized"]:
        raise UserError(f"no weight fits: the model has {min(fresh)!r} .., the weights {min(given)!r} ..")
    return tree.unflatten(out), account


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=True))


def _fit(path: str, leaf, given: np.ndarray, target: Mapping, source: Mapping, method: str) -> np.ndarray:
    """`given` in the shape of `leaf`."""
    shape, parts = np.shape(leaf), path.split("/")
    name = parts[2] if parts[:2] in (["encoder", "tokenizers"], ["decoder", "outputs"]) else ""
    ours, theirs = target.get(name), source.get(name)
    fitted = given
    if parts[-1] == "position" and ours and theirs and ours.grid and theirs.grid:
        fitted = _position(np.asarray(leaf), given, ours.grid, theirs.grid, method)
    elif shape != given.shape and parts[-2:] == ["embed", "kernel"] and ours and theirs and ours.patch and theirs.patch:
        fitted = _kernel(given, ours.patch, theirs.patch)
    if fitted is None or fitted.shape != shape:
        known = "" if ours and theirs or not name else f"; give the layouts of {name!r}"
        raise UserError(f"{path} has shape {given.shape} in the weights and {shape} in the model{known}")
    return fitted


def _position(leaf: np.ndarray, given: np.ndarray, ours: Sequence, theirs: Sequence, method: str) -> np.ndarray | None:
    """A table [class rows + tokens, D] from one of another grid; None if the rows are not those of the grids."""
    rows, first = len(leaf) - math.prod(ours), len(given) - math.prod(theirs)
    if rows not in (0, 1) or first not in (0, 1) or leaf.shape[1:] != given.shape[1:]:
        return None
    same = tuple(ours) == tuple(theirs)
    places = given[first:] if same else resize(given[first:], theirs, ours, method)
    if places is None:
        return None
    return np.concatenate([given[:rows] if first else leaf[:rows], places])


def _kernel(given: np.ndarray, ours: Sequence[int], theirs: Sequence[int]) -> np.ndarray | None:
    """Patch kernel [patch_dim, D] for a patch with other channels, or with frames in front."""
    frames, place = tuple(ours[: len(ours) - len(theirs)]), tuple(ours)[len(ours) - len(theirs) : -1]
    if place != tuple(theirs[:-1]) or len(frames) > 1 or len(given) != math.prod(theirs):
        return None
    x, channels = given.reshape(math.prod(place), theirs[-1], -1), ours[-1]
    if channels != theirs[-1]:
        if channels == 1:
            x = x.sum(axis=1, keepdims=True)
        elif theirs[-1] == 1:
            x = np.repeat(x, channels, axis=1) / channels
        else:
            return None
    x = x.reshape(math.prod(place) * channels, -1)
    return np.tile(x, (math.prod(frames), 1)) / math.prod(frames)
