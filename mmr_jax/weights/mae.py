"""MAE (arXiv 2111.06377, github.com/facebookresearch/mae): encoder files and the `_full` ones with the decoder.

The one modality is "image". `mae_to_cavmae` is the initialisation of CAV-MAE by it, at the level of published names.
"""

import re
from collections.abc import Mapping

import numpy as np

from mmr_jax.errors import UserError
from mmr_jax.weights import vit
from mmr_jax.weights.mapping import Kind, Leaf, Options, Table, Tensors
from mmr_jax.weights.parts import decoder_sizes, decoder_trunk, leaf, linear
from mmr_jax.weights.transforms import FIRST

# What a CAV-MAE has and an MAE cannot give: it keeps its own initialisation.
NOT_GIVEN = r"(decoder_)?(modality_[av]|pos_embed_a)|(blocks_[av]|decoder_blocks)\.\d+\.norm[12]_[av]\.(weight|bias)"


def _sizes(tensors: Tensors, options: Options) -> dict:
    return vit.torch_sizes(tensors, options) | {"decoder": decoder_sizes(tensors, options)}


def _table(sizes: dict) -> Table:
    return Table(tuple(vit.torch_leaves(sizes) + (_decoder(sizes) if sizes["decoder"] else [])))


def _decoder(sizes: dict) -> list[Leaf]:
    width, (rows, columns), (high, wide) = sizes["decoder"]["width"], sizes["grid"], sizes["patch"]
    path, places = "decoder/outputs/image", (1, rows * columns + sizes["class_token"], width)
    leaves = decoder_trunk(sizes["width"], sizes["decoder"])
    leaves += [leaf(f"{path}/position", "decoder_pos_embed", places, FIRST)]
    return leaves + linear(f"{path}/predict", "decoder_pred.{}", width, high * wide * sizes["channels"])


def _describe(sizes: dict) -> dict:
    found = vit.describe(sizes)
    return {**found, "model": {**found["model"], "positions": "sincos"}, "decoder": sizes["decoder"]}


MAE = Kind(_sizes, _table, _describe, lambda names: vit.named_by_torch(names) and not vit.has_head(names))


def mae_to_cavmae(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors of an MAE under its published names -> those of a CAV-MAE that they start, under its own.

    All blocks but the last go to both modalities; the last is the shared one, its norms those of every stream. Spectro-
    grams get the patch kernel summed over the colours and the first rows of the last projection. Modality tokens and
    the positions of spectrograms (`NOT_GIVEN`) are not among the result: they keep their own initialisation.
    """
    if not vit.named_by_torch(tensors):
        raise UserError("mae_to_cavmae: these are not the tensors of an MAE (blocks.0.norm1.weight, ..)")
    last = max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    out = {}
    for name, tensor in tensors.items():
        if name.startswith("blocks."):
            out |= _block(name, tensor, last)
        elif name.startswith(("norm.", "patch_embed.", "decoder_pred.")) or name.endswith("pos_embed"):
            out |= _both(name, tensor, tensors)
        elif name != "cls_token":
            out[name] = tensor
    return out


def _block(name: str, tensor: np.ndarray, last: int) -> dict:
    _, index, rest = name.split(".", 2)
    if int(index) < last:
        return {f"blocks_{s}.{index}.{rest}": tensor for s in "av"}
    copies = [re.sub(r"^(norm\d)", rf"\1{s}", rest) for s in ("", "_a", "_v")]
    return {f"blocks_u.0.{copy}": tensor for copy in copies}


def _both(name: str, tensor: np.ndarray, tensors: Mapping[str, np.ndarray]) -> dict:
    """What both modalities have, and the joint stream if it is a norm."""
    first, _, rest = name.partition(".")
    if first == "norm":
        return {f"{copy}.{rest}": tensor for copy in ("norm", "norm_a", "norm_v")}
    if first.endswith("pos_embed"):
        return {f"{first}_v": tensor[:, 1:]}  # without the class token's row
    if first == "decoder_pred":
        high, wide = tensors["patch_embed.proj.weight"].shape[2:]
        return {f"decoder_pred_a.{rest}": tensor[: high * wide], f"decoder_pred_v.{rest}": tensor}
    audio = tensor.sum(axis=1, keepdims=True) if rest == "proj.weight" else tensor
    return {f"patch_embed_a.{rest}": audio, f"patch_embed_v.{rest}": tensor}
