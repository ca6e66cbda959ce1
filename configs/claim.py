"""The paper's claim on a fresh draw of the quickstart's world: three seeds, every method, intervals.

    mmr run --config=configs/claim.py --workdir=runs/claim

17 min on 2 cores that had other work to do as well. Expect P 43.2 and R 21.1 % from fine-tuning, 44.5 and 22.2 % from
MASD + WiSE-FT, and P in Transfer up from 22.3 to 27.9 %; docs/findings.md has the table and what it means.
"""

from pathlib import Path

from mmr_jax import config as c


def get_config():
    config = c.load(Path(__file__).with_name("quickstart.py"))
    config.name = "claim"
    config.data.seed = 1
    config.seeds = (1, 2, 3)
    return config
