"""For test_faults: save steps 1, 2, 3 of a small state; die by SIGKILL at one point of the third save.

python tests/faults_save.py <directory> <point>
"""

import os
import signal
import sys
from pathlib import Path

import jax.numpy as jnp
import orbax.checkpoint as ocp

from mmr_jax.train import checkpoint, digests


def state(step):
    return {"kernel": jnp.arange(60000.0) * step, "bias": jnp.full(7, step)}


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


POINTS = {
    "copies taken": (digests, "record"),  # orbax is writing in its own thread
    "orbax waited for": (ocp.AsyncCheckpointer, "wait_until_finished"),
    "digests": (digests, "write"),  # orbax has committed
    "old steps": (checkpoint.Checkpoints, "_retire"),
    "deletion": (checkpoint.Checkpoints, "_sweep"),  # the oldest is renamed
}

if __name__ == "__main__":
    with checkpoint.Checkpoints(Path(sys.argv[1])) as checkpoints:
        for step in (1, 2, 3):
            if step == 3:
                checkpoints.wait()
                setattr(*POINTS[sys.argv[2]], die)
            checkpoints.save(step, state(step))
