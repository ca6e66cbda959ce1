"""mmr validate-data: what is in a prepared data set and what is wrong with it, before anything is trained on it.

mmr validate-data --folder=prepared/grid
mmr validate-data --folder=prepared/audioset --share=0.02 --mels=128 --window=hann
"""

from absl import flags

from mmr_jax.cli.options import require
from mmr_jax.data.validate.run import validate

FOLDER = flags.DEFINE_string("folder", None, "a folder that mmr prepare wrote")
OUT = flags.DEFINE_string("out", None, "where to write the report; default: FOLDER-report")
SHARE = flags.DEFINE_float("share", 1.0, "share of every split that is read, at random but the same in every run")
MELS = flags.DEFINE_integer("mels", 128, "of the log-mel whose mean and deviation are taken")
WINDOW = flags.DEFINE_enum("window", "hamming", ["hamming", "hann"], "of the log-mel")


def run() -> None:
    """Prints and writes the report."""
    folder = require(FOLDER.value, "folder", "prepared/clips")
    validate(folder, OUT.value, SHARE.value, MELS.value, WINDOW.value)
