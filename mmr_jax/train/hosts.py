"""A job on several hosts: how they find each other, what they must agree on, and what one of them tells all.

Every host runs the same command; the first one (process 0) writes what is no array. With one host nothing here costs
anything.
"""

import contextlib
import glob
import importlib.util
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmr_jax.errors import UserError
from mmr_jax.train import interrupt

BY_HAND = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# Seconds in which all hosts must have started, and after which a silent one is dead.
START_S = int(os.environ.get("MMR_START_TIMEOUT", 300))
HEARTBEAT_S = int(os.environ.get("MMR_HEARTBEAT_TIMEOUT", 60))
_LAST_S = 3.0  # the first host ends after the others: the service by which they hear of each other goes with it


def many() -> bool:
    """Whether this process is one of several."""
    return jax.process_count() > 1


def first() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def start() -> None:
    """Join the other hosts of the job, if the surroundings say that there are any; before jax is used.

    By hand: the variables `BY_HAND`. SLURM: a step of several tasks. Cloud TPU: chips, and the names of the slice's
    hosts in the machine's metadata. If the others have not come after `START_S` seconds this process ends with exit
    code 2 (jax would end it too, later and by an abort).
    """
    given = _by_hand()
    if given is None and not _in_slurm() and not _on_tpu():
        return
    who = f"host {given['process_id']} of {given['num_processes']}" if given else "one host of several"
    alone = threading.Timer(START_S, _end_alone, [who])
    alone.daemon = True
    alone.start()
    timeouts = dict(initialization_timeout=2 * START_S, heartbeat_timeout_seconds=HEARTBEAT_S)
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM away from our handlers
    try:
        jax.distributed.initialize(**(given or {}), **timeouts, shutdown_timeout_seconds=HEARTBEAT_S)
    except Exception as error:  # of any kind: raised by jax, by the runtime below it, or by a lookup of names
        raise UserError(f"{who} cannot join the others: {' '.join(str(error).split())[:200]}") from None
    finally:
        alone.cancel()
    if many() and first():
        interrupt.GRACE_S += _LAST_S


def _end_alone(who: str) -> None:
    told = f"this process is {who}, and the others have not come within {START_S} s"
    print(f"mmr: error: {told}: start the same command on all hosts", file=sys.stderr, flush=True)
    os._exit(2)


def _by_hand() -> dict | None:
    found = [os.environ.get(name, "") for name in BY_HAND]
    if not any(found):
        return None
    for name, value in zip(BY_HAND, found, strict=True):
        if not value or (name != BY_HAND[0] and not value.isdecimal()):
            raise UserError(f"{name} is {value!r}: to start several hosts by hand set all of {', '.join(BY_HAND)}")
    address, count, number = found[0], int(found[1]), int(found[2])
    if number >= count or ":" not in address:
        raise UserError(f"host {number} of {count} at {address!r}: a number below the count and HOST:PORT are needed")
    where = dict(coordinator_address=address, num_processes=count, process_id=number)
    return where | dict(cluster_detection_method="deactivate")


def _in_slurm() -> bool:
    """In a step that `srun` started with several tasks; a batch script, or a shell in an allocation, is none."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1


def _on_tpu() -> bool:
    """On a TPU host, unless told to leave the chips alone. Whether the slice has other hosts jax finds out."""
    asked = (os.environ.get("JAX_PLATFORMS") or "tpu").split(",")
    chips = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    return "tpu" in asked and bool(chips) and importlib.util.find_spec("libtpu") is not None


# ---- agreement


def texts(mine: str) -> list[str]:
    """The text that each host gives, in the order of the hosts. All must call it."""
    if not many():
        return [mine]
    data = np.frombuffer(mine.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(data)))
    rows = multihost_utils.process_allgather(np.pad(data, (0, int(sizes.max()) - len(data))))
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


def from_first(make: Callable[[], object]):
    """`make()` of the first host, a JSON value, on all hosts; what it raises as a UserError there is raised on all."""
    if not many():
        return make()
    told: dict = {}
    if first():
        try:
            told = {"value": make()}
        except UserError as error:
            told = {"error": str(error)}
    told = json.loads(texts(json.dumps(told))[0])
    if "error" in told:
        raise UserError(told["error"])
    return told["value"]


@contextlib.contextmanager
def held_by_first(context):
    """`context` entered on the first host alone; where it refuses, all hosts do."""
    with contextlib.ExitStack() as stack:
        from_first(lambda: stack.enter_context(context))
        yield


def check_agreement(facts: dict[str, object]) -> None:
    """Refuse hosts that run another job than the first one. `facts` are JSON values."""
    if not many():
        return
    everyone = [json.loads(text) for text in texts(json.dumps(facts))]
    for number, theirs in enumerate(everyone):
        for name in sorted({*theirs, *everyone[0]}):
            here, there = everyone[0].get(name), theirs.get(name)
            if here != there:
                raise UserError(
                    f"the hosts do not run the same job: {name} is {here!r} on host 0 and {there!r} on host {number}; "
                    f"start the same command with the same code on all"
                )


def check_shared(workdir: Path) -> None:
    """Refuse a workdir that is not one and the same on all hosts."""
    if not many():
        return

    def leave() -> str:
        workdir.mkdir(parents=True, exist_ok=True)
        mark = workdir / f".hosts-{os.getpid()}-{time.time_ns()}"
        mark.touch()
        return mark.name

    mark = workdir / from_first(leave)
    seen = texts("yes" if mark.exists() else "no")
    if first():
        mark.unlink()
    if "no" in seen:
        raise UserError(
            f"host {seen.index('no')} does not see what host 0 wrote to {workdir}: a workdir must be on a file system "
            f"that all hosts share"
        )


def any_host(mine: bool) -> bool:
    """Whether it is so on any host. All must call it, and wait for each other."""
    return bool(np.any(multihost_utils.process_allgather(np.bool_(mine)))) if many() else mine


def check_signals(where: str) -> None:
    """Raise `Interrupted` on all hosts if a signal came to any. All must call it; see `interrupt.check`."""
    interrupt.check(where, any_host(interrupt.FLAG.raised))


def fetch(tree):
    """Arrays on the devices of all hosts -> NumPy arrays on each."""
    if many():
        whole = lambda x: x if x.is_fully_replicated else multihost_utils.process_allgather(x, tiled=True)  # noqa: E731
        tree = jax.tree.map(whole, tree)
    return jax.device_get(tree)


class Poll:
    """Whether something is so on any host, asked in every step and known one step later, so that nobody waits."""

    def __init__(self, mesh: Mesh):
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._asked: jax.Array | None = None

    def ask(self, mine: bool) -> bool:
        """The answer to the question before this one; with one host, to this one."""
        if not many():
            return mine
        before = self._asked is not None and bool(self._asked)
        shape = (self._sharding.mesh.size,)
        mine_everywhere = jax.make_array_from_callback(shape, self._sharding, lambda _: np.array([mine]))
        self._asked = self._any(mine_everywhere)
        return before


def leave(code: int) -> None:
    """End this process now if it is one of several: the others may wait for it in a program that it will never run.

    They notice (by the broken connection, or by the missing heartbeats) and end too.
    """
    if many():
        for number in interrupt.SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        time.sleep(_LAST_S if first() else 0.0)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
