"""mmr prepare: from label files or a list of clips, and a folder of media, to a data set that training reads.

mmr prepare --dataset=grid --labels=grid_s1 --media=grid_s1/clips --out=prepared/grid
mmr prepare --manifest=clips.csv --media=clips --out=prepared/clips
"""

from pathlib import Path

from absl import flags

from mmr_jax.cli.options import require
from mmr_jax.data import sets
from mmr_jax.data.prepare import manifest
from mmr_jax.data.prepare.listing import Listing
from mmr_jax.data.prepare.run import Options, prepare
from mmr_jax.data.prepare.settings import Settings
from mmr_jax.errors import UserError

DATASET = flags.DEFINE_string("dataset", None, f"a data set whose label files are known: {', '.join(sets.SETS)}")
LABELS = flags.DEFINE_string("labels", None, "with --dataset: the folder of the publisher's label files")
MANIFEST = flags.DEFINE_string("manifest", None, "your own list of clips, .csv or .jsonl; column media is required")
MEDIA = flags.DEFINE_string("media", None, "the folder of media files")
OUT = flags.DEFINE_string("out", None, "the folder to write; work in progress lies beside it in OUT.partial")
MODALITIES = flags.DEFINE_list("modalities", [], "of audio, frames, text: what to prepare; default: all that it has")
SPLITS = flags.DEFINE_list("splits", [], "the splits to prepare; default: all")
FRAMES = flags.DEFINE_integer("frames", Settings.frames, "frames per clip")
SHORT_SIDE = flags.DEFINE_integer("short_side", Settings.short_side, "of the frames, in pixels; 0: as it is")
RATE = flags.DEFINE_integer("rate", Settings.rate, "samples of audio per second")
QUALITY = flags.DEFINE_integer("quality", Settings.quality, "of the frames' JPEGs, 1 to 100")
CLIPS_PER_SHARD = flags.DEFINE_integer("clips_per_shard", 256, "clips per file")
PROCESSES = flags.DEFINE_integer("processes", 0, "processes that decode; 0: one per core")
MAX_FAILED = flags.DEFINE_float("max_failed", Options.max_failed, "share of clips lost whole above which it stops")
RUNNER = flags.DEFINE_string("runner", "", "a runner of Apache Beam (extra [beam]); default: processes of this machine")
RUNNER_OPTIONS = flags.DEFINE_list("runner_options", [], 'options of the runner: "--a=b,--c=d"')


def run() -> None:
    """Prepares the set, or goes on where the same command was cut off."""
    out = require(OUT.value, "out", "prepared/clips")
    media = Path(require(MEDIA.value, "media", "clips"))
    settings = Settings(FRAMES.value, SHORT_SIDE.value, RATE.value, QUALITY.value)
    options = Options(PROCESSES.value, MAX_FAILED.value, _elsewhere())
    prepare(_listing(media), media, out, settings, CLIPS_PER_SHARD.value, SPLITS.value, MODALITIES.value, options)


def _listing(media: Path) -> Listing:
    if bool(DATASET.value) == bool(MANIFEST.value):
        raise UserError("give either --dataset=NAME with --labels=FOLDER, or --manifest=clips.csv")
    if MANIFEST.value:
        if LABELS.value:
            raise UserError("--labels goes with --dataset; the labels of a manifest are in its column labels")
        return manifest.read(Path(MANIFEST.value))
    return sets.load(DATASET.value, Path(require(LABELS.value, "labels", "labels")), media)


def _elsewhere():
    """Beam with its runner, or None for this machine."""
    if not RUNNER.value:
        if RUNNER_OPTIONS.value:
            raise UserError("--runner_options goes with --runner")
        return None
    from mmr_jax.data.prepare import beam  # an extra, and a second to import

    return beam.executor(RUNNER.value, RUNNER_OPTIONS.value)
