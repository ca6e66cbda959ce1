"""What happens to examples that cannot be read: an error, or a count that must stay small.

A source that skips or masks such examples puts `unreadable` bool `[B]` into its batches and has a `tally`. The
pipelines take the one out and add it to the other, in the order in which batches are used.
"""

from typing import Any

from mmr_jax.errors import UserError

POLICIES = ("error", "skip", "missing")  # skip: weight 0, nothing present; missing: without the modality in question
_ENOUGH = 1000  # examples: fewer are counted as this many, so that one early loss stops nothing


class Tally:
    """Examples that were read and how many of them could not be; above the share `limit` it raises."""

    def __init__(self, limit: float):
        self.limit, self.read, self.lost = limit, 0, 0
        self._told: set[str] = set()

    @property
    def counts(self) -> tuple[int, int]:
        """(read, lost)."""
        return self.read, self.lost

    def begin(self, read: int = 0, lost: int = 0) -> None:
        """Count on from here: a stage from nothing, a resumed one from what it had counted at its checkpoint."""
        self.read, self.lost = read, lost

    def tell(self, line: str) -> None:
        """Print what could not be read, the first time."""
        if line not in self._told:
            self._told.add(line)
            print(line)

    def count(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch without its `unreadable`, which is added up."""
        unreadable = batch.pop("unreadable", None)
        if unreadable is None:
            return batch
        self.read, self.lost = self.read + len(unreadable), self.lost + int(unreadable.sum())
        if self.lost > self.limit * max(self.read, _ENOUGH):
            raise UserError(
                f"{self.lost} of {self.read} examples could not be read, more than data.max_unreadable={self.limit}: "
                "look at the files named above with mmr validate-data"
            )
        return batch


def check_policy(config: dict[str, Any]) -> None:
    """Refuse what `on_unreadable` and `max_unreadable` of a data configuration cannot be."""
    policy, limit = config["on_unreadable"], config["max_unreadable"]
    if policy not in POLICIES:
        raise UserError(f"data.on_unreadable is {policy!r}; error, skip and missing are allowed")
    if not 0 <= limit <= 1:
        raise UserError(f"data.max_unreadable is {limit}; a share from 0 to 1 is expected")
