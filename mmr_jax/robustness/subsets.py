"""Names of modality subsets: sorted and joined by "+", as in "audio+video"; the empty set is never one."""

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from mmr_jax.errors import UserError, nearest


def check_modalities(modalities: Iterable[str]) -> list[str]:
    """The modality names as a list; UserError if there are none, or one is empty, repeated or holds "+"."""
    names = [modalities] if isinstance(modalities, str) else list(modalities)
    if not names:
        raise UserError("no modality is named; at least one is needed")
    for name in names:
        if not isinstance(name, str) or not name.strip() or "+" in name or name != name.strip():
            raise UserError(f"{name!r} is no modality name: a non-empty string without '+' is expected")
        if names.count(name) > 1:
            raise UserError(f"modality {name!r} is named twice")
    return names


def subset_name(modalities: Iterable[str]) -> str:
    """`["video", "audio"]` -> "audio+video"."""
    return "+".join(sorted(check_modalities(modalities)))


def all_subsets(modalities: Iterable[str]) -> list[str]:
    """The 2^|M| - 1 non-empty subsets, by size and then alphabetically."""
    names = sorted(check_modalities(modalities))
    return [subset_name(chosen) for size in range(1, len(names) + 1) for chosen in combinations(names, size)]


def parse_subset(name: str, modalities: Sequence[str] | None = None) -> tuple[str, ...]:
    """The sorted modalities of a subset written in any order; `modalities` None allows every name."""
    parts = [part.strip() for part in str(name).split("+")]
    if not all(parts):
        raise UserError(f"{name!r} is no modality subset; expected names joined by '+', as in 'audio+video'")
    for part in parts:
        if parts.count(part) > 1:
            raise UserError(f"subset {name!r} names {part!r} twice")
        if modalities is not None and part not in modalities:
            raise UserError(f"subset {name!r} holds the unknown modality {part!r}{nearest(part, modalities)}")
    return tuple(sorted(parts))


def modalities_of(subsets: Iterable[str]) -> list[str]:
    """Sorted union of the modalities of some subset names; empty names are passed over."""
    return sorted({part for name in subsets if name for part in parse_subset(name)})


def subset_masks(modalities: Sequence[str], subsets: Sequence[str]) -> np.ndarray:
    """Bool [S, M]: which modality (columns in the order given) belongs to which subset (rows)."""
    names = check_modalities(modalities)
    chosen = [parse_subset(subset, names) for subset in subsets]
    return np.array([[name in parts for name in names] for parts in chosen], bool).reshape(-1, len(names))
