"""Checkpoints of a running stage, and parameters of a finished one, by orbax."""

from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from mmr_jax.errors import UserError


class Checkpoints:
    """The newest state of a stage under `directory`; opened on first use, so short stages pay nothing."""

    def __init__(self, directory: Path):
        self._directory = Path(directory).absolute()
        self._open = None

    @property
    def _manager(self) -> ocp.CheckpointManager:
        if self._open is None:
            options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
            self._open = ocp.CheckpointManager(self._directory, options=options)
        return self._open

    def save(self, step: int, state: dict) -> None:
        """Write `state` (a pytree) as step `step`; returns when it is on disk. Re-saving a step is an error."""
        if not self._manager.save(step, args=ocp.args.StandardSave(state)):
            raise RuntimeError(f"checkpoint {step} was not written to {self._directory}: a later one is there")
        self._manager.wait_until_finished()

    def restore(self, target: dict) -> tuple[int, dict] | None:
        """(step, state) of the newest checkpoint, or None. `target` gives structure, dtypes and shardings."""
        if not self._directory.is_dir() or self._manager.latest_step() is None:
            return None
        step = self._manager.latest_step()
        return step, self._manager.restore(step, args=ocp.args.StandardRestore(target))

    def close(self) -> None:
        """Release the directory."""
        if self._open is not None:
            self._open.close()
            self._open = None


def save_params(path: Path, params: dict) -> None:
    """Write a nested dict of arrays to the new directory `path`."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(Path(path).absolute(), params, force=True)


def load_params(path: Path, like: dict | None = None) -> dict:
    """Read what `save_params` wrote, as NumPy arrays; with `like` the tree and the shapes must agree."""
    path = Path(path).absolute()
    if not path.is_dir():
        raise UserError(f"{path} is absent: run the stage that writes it first (mmr run does all in order)")
    with ocp.PyTreeCheckpointer() as checkpointer:
        params = checkpointer.restore(path, ocp.args.PyTreeRestore(restore_args=_as_numpy(checkpointer, path)))
    if like is not None and jax.tree.map(lambda a: tuple(a.shape), like) != jax.tree.map(lambda a: a.shape, params):
        raise UserError(f"{path} holds another model than the config builds: delete it or take the config it came from")
    return params


def _as_numpy(checkpointer, path):
    metadata = checkpointer.metadata(path).item_metadata.tree
    return jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
