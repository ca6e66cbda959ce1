"""CAV-MAE (arXiv 2210.07839, github.com/YuanGongND/cav-mae): pretrained, fine-tuned and single-modality checkpoints.

Names end in _a (audio, ours "audio": a spectrogram) and _v (a picture, ours "image"). Every published block owns six
norms, of which all but blocks_u use two: the dead ones are kept aside. A spectrogram is 128 mels high there; the number
of mels cannot be read off the weights.
"""

from collections.abc import Iterable

from mmr_jax.errors import UserError
from mmr_jax.weights.mapping import Kind, Leaf, Options, Table, Tensors
from mmr_jax.weights.parts import (
    blocks,
    decoder_sizes,
    decoder_trunk,
    image_fields,
    layers,
    leaf,
    linear,
    norm,
)
from mmr_jax.weights.transforms import (
    FIRST,
    SAME,
    TRANSPOSE,
    patch_kernel,
    spectrogram_kernel,
    spectrogram_output,
    spectrogram_output_bias,
    spectrogram_table,
)

LETTERS = {"audio": "a", "image": "v"}


def _sizes(tensors: Tensors, options: Options) -> dict:
    width = tensors.shape("norm.weight", 1)[0]
    own = {m: tensors.depth(f"blocks_{s}.") for m, s in LETTERS.items() if _has(tensors, s)}
    if len(set(own.values())) != 1:
        raise UserError(f"{tensors.source}: blocks_a and blocks_v are of unequal depth or absent: {own}")
    sizes = {"width": width, "mlp": tensors.shape("blocks_u.0.mlp.fc1.weight", 2)[0], "heads": options.heads_of(width)}
    sizes |= {"own": next(iter(own.values())), "shared": tensors.depth("blocks_u.")}
    sizes["audio"] = _audio(tensors, options.mels) if "audio" in own else None
    sizes["image"] = _image(tensors) if "image" in own else None
    sizes["decoder"] = decoder_sizes(tensors, options)
    sizes["classes"] = tensors.shape("mlp_head.1.weight", 2)[0] if tensors.any("mlp_head.") else None
    return sizes


def _has(tensors: Tensors, letter: str) -> bool:
    return any(tensors.any(f"{name}_{letter}") for name in ("patch_embed", "blocks", "pos_embed", "modality"))


def _count(tensors: Tensors, name: str) -> int:
    """Tokens of a position table; an absent one is reported with the other missing tensors."""
    return tensors.shape(name, 3)[1] if name in tensors else 0


def _audio(tensors: Tensors, mels: int) -> dict:
    _, channels, high, wide = tensors.shape("patch_embed_a.proj.weight", 4)
    count, rows = _count(tensors, "pos_embed_a"), mels // max(high, 1)
    if channels != 1 or not rows or mels % high or count % rows:
        raise UserError(
            f"{tensors.source}: {channels} x {high} x {wide} patches at {count} places do not tile a spectrogram of "
            f"{mels} mels; give the number of mels"
        )
    return {"patch": [high, wide], "grid": [count // rows, rows]}


def _image(tensors: Tensors) -> dict:
    _, channels, high, wide = tensors.shape("patch_embed_v.proj.weight", 4)
    count = _count(tensors, "pos_embed_v")
    side = tensors.square("pos_embed_v", count) if count else 0
    return {"patch": [high, wide], "channels": channels, "grid": [side, side]}


def _table(sizes: dict) -> Table:
    width, mlp, present = sizes["width"], sizes["mlp"], [m for m in LETTERS if sizes[m]]
    leaves, aside = norm("encoder/norms/joint", "norm", width), {}
    shared = layers("blocks_u.", sizes["shared"])
    streams = {m: (f"norm1_{LETTERS[m]}", f"norm2_{LETTERS[m]}") for m in present}
    leaves += blocks("encoder/shared", shared, width, mlp, {**streams, "joint": ("norm1", "norm2")})
    aside |= _norms(shared, [LETTERS[m] for m in LETTERS if m not in present], width)
    for m in present:
        own = layers(f"blocks_{LETTERS[m]}.", sizes["own"])
        leaves += _tokenizer(m, sizes) + norm(f"encoder/norms/{m}", f"norm_{LETTERS[m]}", width)
        leaves += blocks(f"encoder/owned/{m}", own, width, mlp, {m: ("norm1", "norm2")})
        aside |= _norms(own, "av", width)
    if sizes["decoder"]:
        leaves += _decoder_leaves(sizes, present)
        aside |= _norms(layers("decoder_blocks.", sizes["decoder"]["depth"]), "av", sizes["decoder"]["width"])
    if sizes["classes"]:
        leaves += norm("head_norm", "mlp_head.0", width) + linear("head", "mlp_head.1.{}", width, sizes["classes"])
    return Table(tuple(leaves), aside)


def _norms(at: Iterable[str], letters: Iterable[str], width: int) -> dict:
    """The norms of a block that the published model never uses."""
    kinds = [f"norm{n}_{s}.{w}" for n in (1, 2) for s in letters for w in ("weight", "bias")]
    return {prefix + kind: (width,) for prefix in at for kind in kinds}


def _table_of(path: str, name: str, modality: str, sizes: dict, width: int) -> list[Leaf]:
    """Position table and modality token, of the encoder or the decoder."""
    first, second = sizes[modality]["grid"]
    transform = spectrogram_table(second, first) if modality == "audio" else FIRST
    position = leaf(f"{path}/position", name.format("pos_embed"), (1, first * second, width), transform)
    return [position, leaf(f"{path}/modality_token", name.format("modality"), (1, 1, width), FIRST)]


def _tokenizer(modality: str, sizes: dict) -> list[Leaf]:
    path, name = f"encoder/tokenizers/{modality}", f"patch_embed_{LETTERS[modality]}.proj"
    (high, wide), channels = sizes[modality]["patch"], sizes[modality].get("channels", 1)
    transform = spectrogram_kernel(high, wide) if modality == "audio" else patch_kernel(channels, high, wide)
    kernel = leaf(f"{path}/embed/kernel", f"{name}.weight", (sizes["width"], channels, high, wide), transform)
    bias = leaf(f"{path}/embed/bias", f"{name}.bias", (sizes["width"],))
    return [kernel, bias, *_table_of(path, f"{{}}_{LETTERS[modality]}", modality, sizes, sizes["width"])]


def _decoder_leaves(sizes: dict, present: list[str]) -> list[Leaf]:
    width = sizes["decoder"]["width"]
    leaves = decoder_trunk(sizes["width"], sizes["decoder"])
    for m in present:
        path, name = f"decoder/outputs/{m}", f"decoder_pred_{LETTERS[m]}"
        (high, wide), channels = sizes[m]["patch"], sizes[m].get("channels", 1)
        mel = m == "audio"
        kernel, bias = (
            (spectrogram_output(high, wide), spectrogram_output_bias(high, wide)) if mel else (TRANSPOSE, SAME)
        )
        leaves += _table_of(path, f"decoder_{{}}_{LETTERS[m]}", m, sizes, width)
        leaves += [leaf(f"{path}/predict/kernel", f"{name}.weight", (high * wide * channels, width), kernel)]
        leaves += [leaf(f"{path}/predict/bias", f"{name}.bias", (high * wide * channels,), bias)]
    return leaves


def _describe(sizes: dict) -> dict:
    model = dict(width=sizes["width"], depth=sizes["own"] + sizes["shared"], heads=sizes["heads"], mlp_dim=sizes["mlp"])
    model |= dict(adapter_depth=sizes["own"], fusion="joint", stream_norms="own", activation="gelu", norm_eps=1e-5)
    model |= dict(positions="sincos", modality_token=True, class_token=False, pool="mean", pre_norm=False)
    model |= dict(patch_bias=True, normalize="layer" if sizes["classes"] else "none", projection={"kind": "none"})
    found = {"model": model, "decoder": sizes["decoder"], "modalities": {}, "classes": sizes["classes"]}
    if sizes["audio"]:
        (mel, time), grid = sizes["audio"]["patch"], sizes["audio"]["grid"]
        audio = dict(kind="spectrogram", patch_size=[time, mel])
        if grid[0]:  # else its positions are absent and fit any length
            audio |= dict(grid=grid, frames=grid[0] * time, mels=grid[1] * mel)
        found["modalities"]["audio"] = audio
    if sizes["image"]:
        found["modalities"]["image"] = image_fields(sizes["image"])
    return found


def _shared(names: Iterable[str]) -> bool:
    return any(name.startswith("blocks_u.") for name in names)


PRETRAINED = Kind(_sizes, _table, _describe, lambda names: _shared(names) and "mlp_head.1.weight" not in names)
FINETUNED = Kind(_sizes, _table, _describe, lambda names: _shared(names) and "mlp_head.1.weight" in names)
