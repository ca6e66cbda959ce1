"""A folder of clips and a list of one's own: manifest.csv or manifest.jsonl (see `prepare.manifest`)."""

from pathlib import Path

from mmr_jax.data.prepare import manifest
from mmr_jax.data.prepare.listing import Listing
from mmr_jax.data.sets.files import find_labels
from mmr_jax.errors import UserError


def listing(labels: Path, media: Path) -> Listing:
    """The manifest's listing; UserError if there is none, or two."""
    found = find_labels(labels, "a plain data set", ["manifest.csv"], ["manifest.jsonl"])
    if all(found):
        raise UserError(f"{labels} holds manifest.csv and manifest.jsonl; keep one of them")
    return manifest.read(found[0] or found[1])
