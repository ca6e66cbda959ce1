"""Digests of saved arrays: written beside them, compared whenever they are read.

Orbax restores a flipped bit without a word. Each process writes `digests-<process>.json` for the shards that it saved;
the file holds a digest of itself too. It is written last: a directory without it was never finished.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from mmr_jax.files import write_json
from mmr_jax.train.optim import path_string

FORMAT = 1
PATTERN = "digests-*.json"
_LAG_S = 90.0  # after which a network file system shows what another host has made
_THREADS = 4  # hashing lets other threads run


class Damaged(Exception):
    """What was saved is not what is there; the message says in one line what differs."""


class Piece(NamedTuple):
    """A host copy of one shard: `index` is ((start, stop), ...) in the whole array of `shape`."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    index: tuple[tuple[int, int], ...]
    data: np.ndarray


class Entry(NamedTuple):
    """What is known of one array: `shards` is {index: digest}."""

    dtype: str
    shape: tuple[int, ...]
    shards: dict[tuple, str]


Record = dict[str, Entry]


def leaves(tree) -> dict[str, object]:
    """{"a/b/c": leaf} of any pytree."""
    return {path_string(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def pieces(tree) -> list[Piece]:
    """Copies of what this process saves of a tree: of each shard one replica, of a NumPy array all on the first."""
    found = leaves(tree)
    for leaf in found.values():
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    return [piece for path, leaf in found.items() for piece in _pieces(path, leaf)]


def _pieces(path: str, leaf) -> list[Piece]:
    kind = (path, str(leaf.dtype), tuple(leaf.shape))
    if not isinstance(leaf, jax.Array):
        whole = tuple((0, n) for n in leaf.shape)
        return [Piece(*kind, whole, np.array(leaf))] if jax.process_index() == 0 else []
    shards = [s for s in leaf.addressable_shards if s.replica_id == 0]
    return [Piece(*kind, _index(s.index, leaf.shape), np.array(s.data)) for s in shards]  # the step donates its buffers


def _index(slices, shape) -> tuple[tuple[int, int], ...]:
    return tuple(s.indices(n)[:2] for s, n in zip(slices, shape, strict=True))


def _digest(path: str, dtype: str, shape: tuple, index: tuple, data: np.ndarray) -> str:
    made = hashlib.blake2b(f"{path} {dtype} {list(shape)} {[list(i) for i in index]} ".encode(), digest_size=16)
    made.update(np.ascontiguousarray(data).reshape(-1).view(np.uint8))
    return made.hexdigest()


def _digests(given: list[tuple]) -> list[str]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda arguments: _digest(*arguments), given))


def record(found: list[Piece]) -> Record:
    """The digests of some pieces."""
    out: Record = {}
    for piece, digest in zip(found, _digests(found), strict=True):
        out.setdefault(piece.path, Entry(piece.dtype, piece.shape, {})).shards[piece.index] = digest
    return out


def content_digest(value: object) -> str:
    """Digest of a JSON value, whatever the order of its keys."""
    plain = json.loads(json.dumps(value))
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16).hexdigest()


def write(directory: Path, made: Record) -> None:
    """Write this process's file into `directory`, in one rename."""
    arrays = {
        path: {"dtype": e.dtype, "shape": e.shape, "shards": [[i, digest] for i, digest in e.shards.items()]}
        for path, e in made.items()
    }
    body = {"format": FORMAT, "processes": jax.process_count(), "arrays": arrays}
    path = Path(directory) / f"digests-{jax.process_index()}.json"
    last = time.monotonic() + (_LAG_S if jax.process_count() > 1 else 0)
    while True:
        try:
            return write_json(path, {**body, "blake2b": content_digest(body)})
        except FileNotFoundError:
            if time.monotonic() > last:
                raise
        time.sleep(1.0)


def complete(directory: Path) -> bool:
    """Whether every process has written its file."""
    try:
        read(directory)
    except Damaged:
        return False
    return True


def read(directory: Path) -> Record:
    """What all processes wrote, as one record. Raises Damaged if a file is absent or not what was written."""
    files = sorted(Path(directory).glob(PATTERN))
    if not files:
        raise Damaged("it has no digests")
    bodies = [_body(file) for file in files]
    if len(files) != bodies[0]["processes"]:
        raise Damaged(f"digests of {len(files)} of {bodies[0]['processes']} processes are there")
    out: Record = {}
    for body in bodies:
        for path, e in body["arrays"].items():
            shards = out.setdefault(path, Entry(e["dtype"], tuple(e["shape"]), {})).shards
            shards.update({tuple(map(tuple, index)): digest for index, digest in e["shards"]})
    return out


def _body(file: Path) -> dict:
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        written = body.pop("blake2b")
    except (ValueError, KeyError, AttributeError):
        raise Damaged(f"{file.name} is not what was written") from None
    if content_digest(body) != written:
        raise Damaged(f"{file.name} is not what was written")
    if body["format"] != FORMAT:
        raise Damaged(f"{file.name} is of format {body['format']}, this version reads {FORMAT}")
    return body


def difference(made: Mapping[str, Entry], target) -> str | None:
    """In one line, the first leaf whose path, dtype or shape differs between a record and a tree; None if none does."""
    there = {path: (e.dtype, list(e.shape)) for path, e in made.items()}
    here = {path: (str(leaf.dtype), list(leaf.shape)) for path, leaf in leaves(target).items()}
    for path in sorted({*there, *here}):
        old, new = (f"{d} {s}" if (d, s) != (None, None) else "absent" for d, s in _both(path, there, here))
        if old != new:
            return f"{path} is {old} there and {new} here"
    return None


def _both(path: str, *sides: dict) -> list[tuple]:
    return [side.get(path, (None, None)) for side in sides]


def check(made: Mapping[str, Entry], tree) -> None:
    """Raise Damaged for the first array of `tree` that is not what the record says.

    Of an array that other processes hold too only the local shards are compared; see `comparable`.
    """
    given, expected = [], []
    for path, leaf in leaves(tree).items():
        for index, digest in made[path].shards.items():
            data = _region(leaf, index)
            if data is not None:
                given.append((path, str(leaf.dtype), tuple(leaf.shape), index, data))
                expected.append(digest)
    for (path, *_), found, digest in zip(given, _digests(given), expected, strict=True):
        if found != digest:
            raise Damaged(f"{path} differs from its digest")


def comparable(made: Mapping[str, Entry], target) -> bool:
    """Whether the local shards of every array of `target` are among those that were saved, or all of it is local."""
    for path, leaf in leaves(target).items():
        sharding = leaf.sharding
        if not sharding.is_fully_addressable:
            local = sharding.addressable_devices_indices_map(tuple(leaf.shape)).values()
            if {_index(i, leaf.shape) for i in local} - set(made[path].shards):
                return False
    return True


def _region(leaf, index) -> np.ndarray | None:
    """The part of an array that a shard held; None if other processes hold it."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        local = (s for s in leaf.addressable_shards if _index(s.index, leaf.shape) == index)
        shard = next(local, None)
        return None if shard is None else np.asarray(shard.data)
    return np.asarray(leaf)[tuple(slice(*pair) for pair in index)]
