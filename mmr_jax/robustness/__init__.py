"""Robustness to a change of modalities between training and deployment. Importing this needs no jax."""

from mmr_jax.robustness.intervals import paired_bootstrap, wilson
from mmr_jax.robustness.metrics import analyse, chance_corrected, summarize
from mmr_jax.robustness.results import Predictions, Result, load, save_predictions
from mmr_jax.robustness.subsets import all_subsets, parse_subset, subset_masks, subset_name

__all__ = [
    "Predictions",
    "Result",
    "all_subsets",
    "analyse",
    "chance_corrected",
    "load",
    "paired_bootstrap",
    "parse_subset",
    "save_predictions",
    "subset_masks",
    "subset_name",
    "summarize",
    "wilson",
    "wise_ft",
]


def __getattr__(name: str):
    # Interpolation works on pytrees and so needs jax, which users of the metrics may not have.
    if name == "wise_ft":
        from mmr_jax.robustness.interpolate import wise_ft

        return wise_ft
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
