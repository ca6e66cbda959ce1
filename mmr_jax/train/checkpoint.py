"""Checkpoints of a running stage, and parameters of a finished one: by orbax, with a digest of every array.

A step counts when orbax has committed it and its digests are there; nothing is restored that differs from them.
"""

import re
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from mmr_jax.errors import UserError
from mmr_jax.train import digests, hosts
from mmr_jax.train.digests import Damaged
from mmr_jax.train.optim import path_string

_TRASH = ("*.orbax-checkpoint-tmp*", "trash-*")


class Checkpoints:
    """The newest states of a stage under `directory`, written in the background while the next steps run.

    The last `keep_last` are kept, and of all others those whose step is a multiple of `keep_every` (0: none). As a
    context it waits for the last one and releases the directory.
    """

    def __init__(self, directory: Path, keep_last: int = 2, keep_every: int = 0):
        self._directory = Path(directory).absolute()
        self._keep = (keep_last, keep_every)
        self._orbax: ocp.AsyncCheckpointer | None = None
        self._thread = ThreadPoolExecutor(1)
        self._pending: tuple[int, Future] | None = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            self.close()
        except UserError as failed:
            if error is None:
                raise
            print(failed)  # the error that ends the run is the other one

    def steps(self) -> list[int]:
        """Steps that were saved, oldest first; what a kill cut off and empty directories are none."""
        if not self._directory.is_dir():
            return []
        return sorted(int(p.name) for p in self._directory.iterdir() if p.name.isdecimal() and self._saved(p))

    def _saved(self, path: Path) -> bool:
        try:
            return any(path.iterdir()) and (digests.complete(path) or not self._mark(path).exists())
        except (FileNotFoundError, NotADirectoryError):  # the first host has just retired it; or it is a stray file
            return False

    def _mark(self, path: Path) -> Path:
        """A file that is there while a step is written: it tells a cut-off step from one that lost its digests."""
        return path.with_name(f"{path.name}.saving")

    # ---- saving

    def save(self, step: int, state: dict) -> None:
        """Copy `state` (a pytree) and write it as step `step` in the background.

        An error of the save before is raised here, or by `wait`. A step that is not newer than all others is an error.
        """
        self.wait()
        newest = max(self.steps(), default=-1)
        if step <= newest:
            raise RuntimeError(f"checkpoint {step} was not written to {self._directory}: {newest} is there, and later")
        path = self._directory / str(step)
        copies = digests.pieces(state)
        try:
            self._prepare(path)
            self._orbax.save(path, args=ocp.args.StandardSave(state))
        except Exception as error:
            self._discard(path)
            raise _not_written(path, error) from None
        self._pending = step, self._thread.submit(self._commit, path, copies)

    def _prepare(self, path: Path) -> None:
        """Make room for a step: what a kill left in its place goes."""
        if self._orbax is None:
            self._orbax = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
            for mark in self._directory.glob("*.saving"):
                if not digests.complete(mark.with_suffix("")):
                    self._discard(mark.with_suffix(""))
            self._sweep()
        if hosts.first():
            self._directory.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(path, ignore_errors=True)
            self._mark(path).touch()

    def _commit(self, path: Path, copies: list) -> None:
        made = digests.record(copies)
        self._orbax.wait_until_finished()
        digests.write(path, made)

    def wait(self) -> None:
        """Until the last save is on disk, and older ones are gone; raises its error as one line."""
        if self._pending is None:
            return
        (step, future), self._pending = self._pending, None
        path = self._directory / str(step)
        try:
            future.result()
        except Exception as error:
            self._discard(path)
            raise _not_written(path, error) from None
        self._retire()

    def _retire(self) -> None:
        """Delete what need not be kept; a step is renamed first, so that a kill leaves no half of it."""
        if not hosts.first():
            return
        last, every = self._keep
        for step in self.steps()[: -max(last, 1)]:
            if not (every and step % every == 0):
                (self._directory / str(step)).rename(self._directory / f"trash-{step}")
        for mark in self._directory.glob("*.saving"):
            if digests.complete(mark.with_suffix("")) or not mark.with_suffix("").exists():
                mark.unlink(missing_ok=True)
        self._sweep()

    def _discard(self, path: Path) -> None:
        """Remove what a failed save left: it may fill the disk."""
        self._sweep()
        if hosts.first():
            shutil.rmtree(path, ignore_errors=True)
            self._mark(path).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what a kill left of saves and deletions."""
        for pattern in _TRASH if hosts.first() else ():
            for path in self._directory.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """`wait`, and release the directory."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            if self._orbax is not None:
                self._orbax.close()
                self._orbax = None

    # ---- restoring

    def restore(self, target: dict) -> tuple[int, dict] | None:
        """(step, state) of the newest intact checkpoint, or None if there never was one.

        `target` (arrays or ShapeDtypeStructs with shardings) gives the structure and where each array goes; another
        dtype or shape is refused. A damaged step is renamed to damaged-<step>-<time> and the one before is taken;
        if none is left that is an error, for the stage would start again from nothing.
        """
        for step in reversed(hosts.from_first(self.steps)):  # a file system may show the hosts different ones
            try:
                return step, _restore(self._directory / str(step), target)
            except Damaged as damage:
                self._set_aside(step, damage)
        lost = sorted(p.name for p in self._directory.glob("damaged-*")) if self._directory.is_dir() else ()
        if lost:
            raise UserError(
                f"{self._directory} holds no intact checkpoint ({', '.join(lost)}); delete it to train the stage from "
                f"its start"
            )
        return None

    def _set_aside(self, step: int, damage: Damaged) -> None:
        name = f"damaged-{step}-{time.strftime('%Y%m%d-%H%M%S')}"
        if hosts.first():
            (self._directory / str(step)).rename(self._directory / name)
            print(f"checkpoint {step} in {self._directory} is damaged: {damage}; set aside as {name}", flush=True)


def _restore(path: Path, target: dict) -> dict:
    """The state in `path`; Damaged, on all processes, if that of any of them is not what was saved."""
    _check_readable(path)
    damage = state = None
    try:
        made = digests.read(path)
        changed = digests.difference(made, target)
        if changed:
            raise UserError(f"{path} does not fit this run: {changed}; take the config that it came from, or delete it")
        state = _restored(path, made, target)
    except Damaged as error:
        damage = error
    if hosts.any_host(damage is not None):
        raise damage or Damaged("another process found it so")
    return state


def _restored(path: Path, made: digests.Record, target: dict) -> dict:
    """Orbax's own errors say little and are of any kind: where one comes, all is read again on the host.

    That finds what is damaged; if nothing is (orbax stumbles over a flipped bit in its notes on arrays that are
    intact), what was read is put in place.
    """
    if not digests.comparable(made, target):
        examine(path)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), target)
    try:
        with _reader(ocp.StandardCheckpointHandler) as reader:
            state = reader.restore(path, args=ocp.args.StandardRestore(abstract))
    except Exception:
        return _placed(examine(path)[0], abstract)
    digests.check(made, state)
    return state


def _placed(tree: dict, abstract):
    """Host arrays on the devices that `abstract` names, in its structure."""
    found = digests.leaves(tree)

    def place(path, leaf):
        data = found[path_string(path)]
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: data[index])

    return jax.tree_util.tree_map_with_path(place, abstract)


def _reader(handler) -> ocp.Checkpointer:
    """Reads without waiting for other processes: one alone may read, or find damage that the others do not see."""
    me = jax.process_index()
    only = dict(primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"host{me}")
    alone = ocp.options.MultiprocessingOptions(**only)
    return ocp.Checkpointer(handler(multiprocessing_options=alone), multiprocessing_options=alone)


def examine(path: Path) -> tuple[dict, int]:
    """(arrays as NumPy, their bytes) of one saved directory, every digest compared; raises Damaged."""
    path = Path(path).absolute()
    made = digests.read(path)
    try:
        with _reader(ocp.PyTreeCheckpointHandler) as reader:
            metadata = reader.metadata(path).item_metadata.tree
            kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
            tree = reader.restore(path, ocp.args.PyTreeRestore(restore_args=kinds))
    except Exception as error:  # of any kind: orbax and tensorstore wrap nothing
        raise Damaged(f"it cannot be read ({_short(error)})") from None
    changed = digests.difference(made, tree)
    if changed:
        raise Damaged(changed)
    digests.check(made, tree)
    return tree, sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _check_readable(path: Path) -> None:
    """Raise OSError if a file may not be read: that is no damage."""
    for file in path.rglob("*"):
        if file.is_file():
            file.open("rb").close()


def save_params(path: Path, params: dict) -> None:
    """Write a nested dict of arrays to the directory `path` (an older one is replaced), digests last."""
    path = Path(path).absolute()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, params, force=True)
        digests.write(path, digests.record(digests.pieces(params)))
    except Exception as error:
        raise _not_written(path, error) from None


def load_params(path: Path, like: dict | None = None) -> dict:
    """Read what `save_params` wrote, as NumPy arrays; with `like` the tree, the shapes and the dtypes must agree."""
    path = Path(path).absolute()
    if not path.is_dir():
        raise UserError(f"{path} is absent: run the stage that writes it first (mmr run does all in order)")
    _check_readable(path)
    try:
        changed = like and digests.difference(digests.read(path), like)
        if not changed:
            return examine(path)[0]
    except Damaged as damage:
        raise UserError(f"{path} is damaged: {damage}; delete {path.parent} and run the same command again") from None
    raise UserError(
        f"{path} holds another model than the config builds ({changed}): delete it or take the config it came from"
    )


def _not_written(path: Path, error: Exception) -> Exception:
    """One line for a failed save; errors of the system stay what they are."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return UserError(f"{path} was not written: {_short(error)}; make room or take another workdir, then run it again")


def _short(error: Exception) -> str:
    """The reason in orbax's pages of text."""
    text = f"{type(error).__name__}: {error}"
    known = r"No space left on device|File too large|Disk quota exceeded|Permission denied|Read-only file system"
    found = re.search(rf"{known}|DATA_LOSS[^\[\n]*|NOT_FOUND[^\[\n]*", text)
    return found[0].strip() if found else " ".join(text.split())[:160]
