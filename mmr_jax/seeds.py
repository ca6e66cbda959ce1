"""Stable seeds: everything random in a run is folded from (seed, names) by a digest, never by call order."""

import hashlib
from operator import index


def fold_seed(seed: int, *names: int | str) -> int:
    """A 32-bit seed that depends on `seed` and on every name, the same on every machine and version.

    Names are strings or integers of any kind (numpy's included); `1` and `"1"` give different seeds.
    """
    parts = [name if isinstance(name, str) else index(name) for name in (index(seed), *names)]
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")
