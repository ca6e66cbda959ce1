"""Prepared media: what reading a clip costs by stage, how many cores feed an accelerator, and what preparing costs.

python benchmarks/media.py [--quick]
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
from media_preparing import preparing
from media_setup import TITLES, Stages, origin, prepared
from media_workers import workers
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from rich.console import Console
from rich.table import Table

from mmr_jax import config as configs
from mmr_jax.data import bpe
from mmr_jax.data.pipeline import batch_at, train_iterator
from mmr_jax.data.prepare.records import Decoder
from mmr_jax.data.prepared import inputs
from mmr_jax.data.prepared.folder import Folder, Split
from mmr_jax.data.prepared.labelled import Labelled, LabelSet
from mmr_jax.data.prepared.split import PreparedSplit, Wanted
from mmr_jax.data.source import Source
from mmr_jax.data.unreadable import Tally

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
CLIPS, BATCH = 48, 32
RECORDS = 1_743_790  # as many as AudioSet's; 48 clips repeat: shuffling few costs more than shuffling many
SHARE = 0.4  # of the peak
PEAKS = {"v5e-8 host": 8 * 197e12, "one H100": 989e12}  # bfloat16
DECODE, HEADER, READ, CUT = "JPEG decode", "JPEG header", "read (hash, decompress)", "scale, crop"
COPY, REST = "pixels to batch", "order, labels, rest"
STAGES = (DECODE, HEADER, READ, CUT, COPY, "parse", "audio", "text", REST)
FREE = (DECODE, READ, CUT)  # without the interpreter's lock
PARTS = (
    (Split, "__getitem__", READ),
    (Decoder, "decode", "parse"),
    (Image, "open", HEADER),
    (JpegImageFile, "load", DECODE),
    (Image.Image, "resize", CUT),
    (Image.Image, "crop", CUT),
    (inputs, "_cut", COPY),
)


class Case(NamedTuple):
    """A recipe on a prepared folder; `flops` per example, forward and backward, as mmr run --dry_run --shapes counts
    (CAV-MAE: what the published shapes need)."""

    name: str
    config: str
    seconds: int
    frames: int
    short_side: int
    flops: float


CASES = (
    Case("contrastive, 4 of 8 frames of 256", "robustness/audioset_contrastive.py", 8, 8, 256, 711.4e9),
    Case("CAV-MAE, 1 of 10 frames of 224", "cavmae/audioset_base.py", 10, 10, 224, 233.8e9),
    Case("CAV-MAE, 1 of 8 frames of 256, scaled", "cavmae/audioset_base.py", 10, 8, 256, 233.8e9),
)


def source_of(case: Case, folder: Path) -> Source:
    """The split as training reads it; CLIP's byte pairs are not here, others by the same library stand for them."""
    modalities = configs.load(CONFIGS / case.config).modalities.to_dict()
    if "text" in modalities:
        vocab = folder / "bpe.json"
        bpe.train_bpe(TITLES, 300, vocab)
        modalities["text"].update(tokenizer="bpe", vocab=str(vocab), vocab_size=300)
    split = Folder(folder).split("train")
    source = PreparedSplit(split, Wanted(modalities, "text", "error", Tally(0.0)))
    return Labelled(source, split.index, np.arange(RECORDS) % CLIPS, LabelSet("", 527, False))


def by_stage(source: Source, steps: int) -> dict[str, float]:
    """Processor seconds per clip of each stage, all in one thread."""
    stages = Stages()
    readers = {kind: stages.timed(kind, reader) for kind, reader in inputs.READERS.items()}
    readers |= {"spectrogram": stages.timed("audio", inputs.READERS["spectrogram"])}
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.dict(inputs.READERS, readers))
        for owner, name, stage in PARTS:
            timed = stages.timed(stage, getattr(owner, name))
            patches.enter_context(mock.patch.object(owner, name, timed))
        for step in range(steps):
            with stages.stage(REST):
                batch_at(source, BATCH, 0, step)
    return {name: stages.seconds[name] / (steps * BATCH) for name in (*STAGES, "video", "image")}


def whole(source: Source, steps: int) -> float:
    """Processor seconds per clip of the same in one go."""
    begun = time.process_time()
    for step in range(steps):
        batch_at(source, BATCH, 0, step)
    return (time.process_time() - begun) / (steps * BATCH)


def handed(source: Source, steps: int) -> float:
    """Processor seconds per clip through a reading thread; with two, each also slows down the other."""
    steps = 4 * steps  # at first there is no memory yet to use again
    begun = time.process_time()
    for _ in train_iterator(source, BATCH, 0, 0, steps, threads=1):
        pass
    return (time.process_time() - begun) / (steps * BATCH)


def measure(case: Case, folder: Path, steps: int, repetitions: int) -> dict[str, float]:
    """Medians of processor seconds per clip, by stage, "handing over" and "total"."""
    source = source_of(case, folder)
    whole(source, 2)
    runs = []
    for _ in range(repetitions):
        found = by_stage(source, steps)
        found[REST] += found.pop("video") + found.pop("image")
        plain, clocked = whole(source, steps), sum(found.values())
        found = {name: spent * plain / clocked for name, spent in found.items()}  # the clock itself takes time too
        runs.append({**found, "handing over": max(0.0, handed(source, steps) - plain)})
    found = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return {**found, "total": sum(found.values())}


def reading(found: dict[Case, dict[str, float]]) -> Table:
    """Stages as rows, recipes as columns."""
    table = Table("processor ms per clip (share)", *(case.name for case in found), title="reading")
    for stage in (*STAGES, "handing over", "total"):
        row = [f"{1e3 * times[stage]:.3f} ({times[stage] / times['total']:.0%})" for times in found.values()]
        table.add_row(stage, *row, end_section=stage == "handing over")
    table.add_row("clips/s per core", *(f"{1 / times['total']:.0f}" for times in found.values()))
    jpeg = [(times[DECODE] + times[HEADER]) / times["total"] for times in found.values()]
    table.add_row("all but JPEG", *(f"{1 - share:.0%}" for share in jpeg))
    held = [sum(times[s] for s in STAGES if s not in FREE) / times["total"] for times in found.values()]
    table.add_row("interpreter's lock, about", *(f"{share:.0%}" for share in held))
    table.add_row("cores that threads can use", *(f"{1 / share:.1f}" for share in held), end_section=True)
    for name, peak in PEAKS.items():
        rates = {case: SHARE * peak / case.flops for case in found}
        row = [f"{rates[case] * times['total']:.1f} ({rates[case]:,.0f} clips/s)" for case, times in found.items()]
        table.add_row(f"cores for {name} at {SHARE:.0%}", *row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repetitions")
    steps, repetitions = (4, 3) if parser.parse_args().quick else (6, 5)
    console = Console(highlight=False, width=max(Console().width, 130))
    with tempfile.TemporaryDirectory() as folder:
        shapes = {case: (case.seconds, case.frames, case.short_side) for case in CASES}
        folders = {case: prepared(Path(folder) / str(i), CLIPS, *shapes[case]) for i, case in enumerate(CASES)}
        console.print(reading({case: measure(case, folders[case], steps, repetitions) for case in CASES}))
        console.print(workers({case.name: source_of(case, folders[case]) for case in CASES[:2]}, steps, repetitions))
        console.print(preparing(Path(folder), 2 if steps == 4 else 4))
    load = os.getloadavg()[0]
    console.print(f"{os.cpu_count()} CPUs (load {load:.1f}); clips of {origin()}, batches of {BATCH}", markup=False)


if __name__ == "__main__":
    main()
