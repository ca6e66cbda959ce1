"""mmr verify: is everything that a workdir keeps what was written? Every digest is compared, nothing is changed."""

from pathlib import Path

from mmr_jax.cli.options import WORKDIR, require
from mmr_jax.errors import UserError


def run() -> None:
    """A table of all parameters, checkpoints, records and npz files; UserError if any of them is damaged."""
    workdir = Path(require(WORKDIR.value, "workdir", "runs/quickstart"))
    import jax

    jax.config.update("jax_platforms", "cpu")  # the accelerator may be at work on this very study

    from rich.console import Console

    from mmr_jax.verify import verify

    found = verify(workdir)
    console = Console(highlight=False, soft_wrap=True)
    for item in found:
        console.print(f"{item.status:9s} {item.size:>9s}  {item.name}  {item.reason}".rstrip(), markup=False)
    damaged = [item.name for item in found if item.status == "damaged"]
    if damaged:
        raise UserError(f"{len(damaged)} of {len(found)} are damaged, the first is {damaged[0]}")
    console.print(f"{len(found)} checked, none is damaged", markup=False)
