"""The paper's claim on a fresh draw of the quickstart's world: three seeds, every method, intervals."""

from pathlib import Path

from mmr_jax import config as c


def get_config():
    config = c.load(Path(__file__).with_name("quickstart.py"))
    config.name = "claim"
    config.data.seed = 1
    config.seeds = (1, 2, 3)
    return config
