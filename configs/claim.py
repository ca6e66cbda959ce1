"""The paper's claim on a fresh draw of the quickstart's world: three seeds, every method, intervals."""

import importlib.util
from pathlib import Path


def get_config():
    config = _quickstart().get_config()
    config.name = "claim"
    config.data.seed = 1
    config.seeds = (1, 2, 3)
    return config


def _quickstart():
    spec = importlib.util.spec_from_file_location("quickstart", Path(__file__).parent / "quickstart.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
