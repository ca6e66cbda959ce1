"""mmr convert: published weights to a folder of ours, and back.

mmr convert --from=cavmae --input=audio_model.21.pth --output=weights/cavmae
mmr convert --to=published --input=weights/cavmae --output=audio_model.safetensors
"""

from collections import Counter
from pathlib import Path

import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from mmr_jax import tree
from mmr_jax.cli.options import require
from mmr_jax.errors import UserError
from mmr_jax.weights.convert import KINDS, Converted, from_published, mae_as_cavmae, to_published
from mmr_jax.weights.folder import load_converted, save_converted, save_tensors
from mmr_jax.weights.read import read_tensors

FROM = flags.DEFINE_enum("from", None, list(KINDS), "what the published weights are")
TO = flags.DEFINE_enum("to", None, ["published"], "the way back: a folder to the published names, bit for bit")
INPUT = flags.DEFINE_string("input", None, "a .safetensors, .npz, .pt or .pth file; with --to a folder")
OUTPUT = flags.DEFINE_string("output", None, "the folder to write; with --to a .safetensors file")
AS = flags.DEFINE_enum("as", None, ["cavmae"], "with --from=mae: the start of a CAV-MAE")
HEADS = flags.DEFINE_integer("heads", None, "attention heads of the encoder (of CLIP's image tower); else 64 wide each")
DECODER_HEADS = flags.DEFINE_integer("decoder_heads", 16, "attention heads of the decoder of MAE and CAV-MAE")
ACTIVATION = flags.DEFINE_enum(
    "activation", None, ["quick_gelu", "gelu"], "of CLIP; OpenAI's need quick_gelu, the default"
)
MELS = flags.DEFINE_integer("mels", 128, "mel bins of CAV-MAE's spectrograms")


def run() -> None:
    """One direction or the other; on an error nothing is written."""
    if bool(FROM.value) == bool(TO.value):
        raise UserError("give either --from=cavmae|cavmae_ft|clip|mae|vit or --to=published")
    source = require(INPUT.value, "input", "audio_model.21.pth" if FROM.value else "weights/cavmae")
    target = require(OUTPUT.value, "output", "weights/cavmae" if FROM.value else "audio_model.safetensors")
    if Path(target).exists():
        raise UserError(f"{target} exists already; give another --output or remove it")
    if TO.value:
        tensors = to_published(load_converted(source))
        save_tensors(tensors, target)
        Console(highlight=False).print(f"{target}: {len(tensors)} tensors", markup=False)
        return
    converted = _convert(source)
    save_converted(converted, target)
    _show(converted, target)


def _convert(source: str) -> Converted:
    if AS.value and FROM.value != "mae":
        raise UserError(f"--as={AS.value} goes with --from=mae only")
    tensors = read_tensors(source)
    if AS.value:
        return mae_as_cavmae(tensors, HEADS.value, decoder_heads=DECODER_HEADS.value, source=source)
    more = dict(decoder_heads=DECODER_HEADS.value, activation=ACTIVATION.value, mels=MELS.value)
    return from_published(FROM.value, tensors, HEADS.value, **more, source=source)


def _show(converted: Converted, target: str) -> None:
    """Where every tensor went."""
    info, console = converted.info, Console(highlight=False, soft_wrap=True)
    used, numbers = Counter(), Counter()
    flat = tree.flatten(converted.params)
    for path, names in info["account"]["used"].items():
        part = "/".join(path.split("/")[:2]) if path.startswith(("encoder/", "decoder/")) else path.split("/")[0]
        used[part] += len(names)
        numbers[part] += flat[path].size
    table = Table("part", "published tensors", "numbers")
    for part in sorted(used):
        table.add_row(part, f"{used[part]:,}", f"{numbers[part]:,}")
    aside = sum(np.size(tensor) for tensor in converted.aside.values())
    table.add_row("kept aside", f"{len(converted.aside):,}", f"{aside:,}", end_section=True)
    table.add_row("all", f"{info['tensors']:,}", f"{sum(numbers.values()) + aside:,}")
    console.print(table)
    absent = info["account"]["absent"]
    if absent:
        console.print(f"{len(absent)} tensors are not given and keep their own initialisation", markup=False)
    console.print(f"{target}: {info['parameters']:,} parameters as published", markup=False)
    heads = {"model": info["model"]["heads"], "decoder": (info["decoder"] or {}).get("heads")}
    known = ", ".join(f"{part} {n}" for part, n in heads.items() if n)
    console.print(f"attention heads: {known}; activation: {info['model']['activation']}", markup=False)
