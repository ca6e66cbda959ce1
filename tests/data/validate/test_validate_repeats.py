"""Duplicates against brute force, and records that kill the process that reads them."""

import numpy as np
import pytest
import validate_files as made
from rich.console import Console
from validate_files import files, prepare_files

from mmr_jax.data.prepare.workers import Pool
from mmr_jax.data.prepared.folder import Folder
from mmr_jax.data.validate import columns, reading
from mmr_jax.data.validate.facts import SAME_ACROSS, SAME_CONTENT, Facts, Moments
from mmr_jax.data.validate.read import Job
from mmr_jax.data.validate.repeats import same_content
from mmr_jax.progress import Progress


@pytest.mark.parametrize("seed", range(20))
def test_repeats_against_brute_force(seed):
    rng = np.random.default_rng(seed)
    clips, facts, ids = [], {}, {}
    for split in ("train", "test", "val"):
        n = int(rng.integers(0, 12))
        digests, names = rng.integers(0, 8, n).astype(np.uint64), rng.choice(list("abcdef"), n)
        facts[split], ids[split] = Facts(digests=[digests[:5], digests[5:]]), names.astype("U1")
        facts[split].digest_rows = [np.arange(n)[:5], np.arange(n)[5:]]
        clips += [(split, row, d, i) for row, (d, i) in enumerate(zip(digests, names, strict=True))]
    within, across, same = 0, 0, 0
    for k, (split, _, digest, name) in enumerate(clips):
        copies = [c for c in clips[:k] if c[2] == digest and c[3] != name]
        within += any(c[0] == split for c in copies)
        across += any(c[0] != split for c in copies)
        same += any(c[3] == name for c in clips[:k])
    found = same_content(facts, ids)
    assert (found[SAME_CONTENT].count, found[SAME_ACROSS].count) == (within, across)
    indexes = {split: {"id": of} for split, of in ids.items()}
    ids_found = columns.same_ids(indexes)
    assert ids_found.count == same
    for case in ids_found.first:
        split, row = case.detail.removeprefix("as in ").split(", row ")
        assert ids[split][int(row)] == case.name == ids[case.split][case.row]
        assert (split, int(row)) == next((s, r) for s, r, _, name in clips if name == case.name)


def test_no_clips_at_all():
    assert same_content({"train": Facts()}, {"train": np.zeros(0, "U1")})[SAME_CONTENT].count == 0


def test_moments_add_up():
    values, sums = np.random.default_rng(0).normal(-8, 4, 1000).astype(np.float32), Moments()
    for part in np.array_split(values, 7):
        sums.add(part)
    np.testing.assert_allclose(sums.mean_std(), [values.mean(dtype=float), values.std(dtype=float)], rtol=1e-12)


@pytest.mark.parametrize("deaths, lost", [(1, 0), (2, 1)])
def test_a_record_that_kills_its_process_is_named_and_the_others_are_read(tmp_path, monkeypatch, deaths, lost):
    monkeypatch.setattr(reading, "cores", lambda: 1)
    folder = Folder(made.write(tmp_path / "zoo", {"train": made.clean()["train"][:3]}))
    split = folder.split("train")
    deadly = prepare_files.Deadly(folder.path, tmp_path / "counter", deaths)
    job, chosen = Job(deadly, files.RATE, made.FRAMES, 8, "hann"), {"train": (split, np.arange(3))}
    with Pool(1) as pool, Progress("records", 3, console=Console(quiet=True)) as progress:
        facts = reading.read(pool, job, chosen, list(folder.classes), progress)["train"]
    assert facts.read == 3 and facts.mel.values == (3 - lost) * 148 * 8  # frames of 25 ms every 10 in 1.5 s
    assert facts.found["damaged records"].count == lost
    if lost:
        case = facts.found["damaged records"].first[0]
        assert case == ("train", 0, "clip0", "the decoder crashed (signal 11)")
