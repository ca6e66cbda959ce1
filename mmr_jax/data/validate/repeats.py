"""Clips with the same audio and frames under different ids."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmr_jax.data.validate.facts import SAME_ACROSS, SAME_CONTENT, Case, Facts, Found

Clip = tuple[int, int, str]  # number of the split, row, id


def same_content(facts: Mapping[str, Facts], ids: Mapping[str, np.ndarray]) -> dict[str, Found]:
    """By digest; `ids` are those of the index. A clip counts once per kind, however many copies it has.

    Within a split the earlier clip is the original; across splits the one of the earlier split.
    """
    sizes = [sum(map(len, of.digests)) for of in facts.values()]
    digests = np.concatenate([d for of in facts.values() for d in of.digests] or [np.zeros(0, np.uint64)])
    rows = np.concatenate([r for of in facts.values() for r in of.digest_rows] or [np.zeros(0, np.int64)])
    splits = np.repeat(np.arange(len(sizes)), sizes)
    names, cases = list(facts), {SAME_CONTENT: [], SAME_ACROSS: []}
    for group in _groups(digests):
        clips = [(int(splits[i]), int(rows[i]), str(ids[names[splits[i]]][rows[i]])) for i in group]
        for kind, copy, original in _copies(clips):
            split, row, name = copy
            cases[kind].append((split, row, name, f"as {original[2]} ({names[original[0]]})"))
    found = {kind: Found() for kind in cases}
    for kind, listed in cases.items():
        for split, row, name, detail in sorted(listed):
            found[kind].add(Case(names[split], row, name, detail))
    return found


def _groups(digests: np.ndarray) -> Iterator[np.ndarray]:
    """Positions with equal digests, where there are several, each in ascending order."""
    order = np.argsort(digests, kind="stable")
    _, starts, lengths = np.unique(digests[order], return_index=True, return_counts=True)
    for i in np.flatnonzero(lengths > 1):
        yield order[starts[i] : starts[i] + lengths[i]]


def _copies(clips: Sequence[Clip]) -> Iterator[tuple[str, Clip, Clip]]:
    """(kind, copy, original) within one group of equal clips, which is in ascending order."""
    originals: list[Clip] = []  # of each split the first two ids: one of them differs from the id of any clip
    for clip in clips:
        others = [o for o in originals if o[2] != clip[2]]
        for kind, of_split in ((SAME_CONTENT, True), (SAME_ACROSS, False)):
            original = next((o for o in others if (o[0] == clip[0]) == of_split), None)
            if original:
                yield kind, clip, original
        here = [o[2] for o in originals if o[0] == clip[0]]
        if len(here) < 2 and clip[2] not in here:
            originals.append(clip)
