"""What the commands that work on a study do first: hear signals, and find the other hosts, if there are any."""

import contextlib
from pathlib import Path

from mmr_jax import config as configs
from mmr_jax.versions import code_digest, versions


@contextlib.contextmanager
def joined(config, workdir: Path):
    """Within, signals ask for a stop, and this process is one of the hosts of a job that is the same on all."""
    from mmr_jax.train import hosts, interrupt

    with interrupt.handled(ends_process=True):
        hosts.start()
        made_of = {f"version of {name}": version for name, version in versions().items()}
        made_of["the code of mmr_jax"] = code_digest()
        hosts.check_agreement({**made_of, **configs.flatten(configs.to_dict(config))})
        hosts.check_shared(workdir)
        yield hosts
