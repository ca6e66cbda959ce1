"""What preparing a clip costs by stage, for benchmarks/media.py."""

from pathlib import Path
from unittest import mock

from media_setup import DATA, Stages, video
from PIL import Image
from rich.table import Table

from mmr_jax.data.media import audio
from mmr_jax.data.media import video as frames
from mmr_jax.data.media.track import Track
from mmr_jax.data.prepare.listing import Clip, Listing
from mmr_jax.data.prepare.plan import Job, make_plan
from mmr_jax.data.prepare.settings import Settings
from mmr_jax.data.prepare.shards import merge_shard, write_piece

STAGES = ("video decode", "audio decode", "resample", "to RGB", "resize", "JPEG encode", "rest (open, check, write)")


def preparing(folder: Path, clips: int) -> Table:
    """Seconds of media per processor second, and the share of the stages."""
    made = folder / "videos"
    made.mkdir()
    cases = {"640 x 360, 10 s": (made, [video(made / f"{i}.mp4", i, 10, (640, 360)).name for i in range(clips)])}
    grid = DATA / "grid_s1" / "clips"
    if grid.is_dir():
        cases["GRID, 180 x 144, 3 s"] = grid, sorted(path.name for path in grid.iterdir())[: 8 * clips]
    table = Table("", *cases, title="preparing: 8 frames of short side 256, audio at 16 kHz")
    found = [_times(folder / f"work{i}", *case) for i, case in enumerate(cases.values())]
    totals = [sum(seconds.values()) for seconds, _ in found]
    for stage in STAGES:
        table.add_row(stage, *(f"{s[stage] / total:.0%}" for (s, _), total in zip(found, totals, strict=True)))
    table.add_section()
    table.add_row("x real time per core", *(f"{m / total:.0f}" for (_, m), total in zip(found, totals, strict=True)))
    return table


def _times(work: Path, media: Path, names: list[str]) -> tuple[dict[str, float], float]:
    """Processor seconds by stage, seconds of media; without the start of the program and of its processes."""
    listing = Listing("speed", "Speed", [Clip(n, "train", n) for n in names], ("audio", "frames"), {})
    plan = make_plan(listing, Settings())
    for part in ("set", "facts", "pieces"):
        (work / part).mkdir(parents=True)
    job, stages, seconds = Job(work, media, plan.settings, plan.schema), Stages(), 0.0
    decode = stages.stepped(lambda track: f"{track._kind} decode", Track._decode)
    with (
        mock.patch.object(Track, "_decode", decode),
        mock.patch.object(audio._Line, "resampled", stages.timed("resample", audio._Line.resampled)),
        mock.patch.object(frames._Writer, "_upright", stages.timed("to RGB", frames._Writer._upright)),
        mock.patch.object(Image.Image, "resize", stages.timed("resize", Image.Image.resize)),
        mock.patch.object(Image.Image, "save", stages.timed("JPEG encode", Image.Image.save)),
        stages.stage(STAGES[-1]),
    ):
        for shard in plan.shards():
            pieces = plan.pieces(shard, 8)
            seconds += sum(write_piece(job, piece).media for piece in pieces)
            merge_shard(job, shard, pieces)
    return {stage: stages.seconds[stage] for stage in STAGES}, seconds
