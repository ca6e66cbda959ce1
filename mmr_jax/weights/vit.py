"""Vision transformers: names of timm (github.com/huggingface/pytorch-image-models) and of the AugReg npz files.

The latter are of github.com/google-research/vision_transformer and big_vision. The one modality is "image".
"""

from collections.abc import Iterable

from mmr_jax.errors import UserError
from mmr_jax.weights.mapping import Kind, Leaf, Options, Table, Tensors, divides
from mmr_jax.weights.parts import blocks, image_fields, layers, leaf, linear, norm
from mmr_jax.weights.transforms import FIRST, Transform, heads_bias, heads_kernel, heads_out, one, patch_kernel

BLOCK = "Transformer/encoderblock_"
TOKENIZER = "encoder/tokenizers/image"
_SCALE, _WEIGHTS = ("scale", "bias"), ("kernel", "bias")


def named_by_torch(names: Iterable[str]) -> bool:
    """Whether these are timm's names."""
    return {"blocks.0.norm1.weight", "patch_embed.proj.weight"} <= set(names)


def has_head(names: Iterable[str]) -> bool:
    """Whether there is a classifier among them."""
    return any(name.startswith(("head.", "fc_norm.", "head/")) for name in names)


def torch_sizes(tensors: Tensors, options: Options) -> dict:
    """Sizes of a ViT with timm's names."""
    if tensors.any("fc_norm."):
        raise UserError(f"{tensors.source}: it has fc_norm in place of the final norm, which a model here cannot have")
    width, channels, high, wide = tensors.shape("patch_embed.proj.weight", 4)
    class_token = "cls_token" in tensors
    side = tensors.square("pos_embed", tensors.shape("pos_embed", 3)[1] - class_token)
    sizes = {"names": "torch", "width": width, "heads": options.heads_of(width), "depth": tensors.depth("blocks.")}
    sizes |= {"mlp": tensors.shape("blocks.0.mlp.fc1.weight", 2)[0], "class_token": class_token}
    sizes |= {"patch": [high, wide], "channels": channels, "grid": [side, side]}
    return sizes | {"classes": tensors.shape("head.weight", 2)[0] if tensors.any("head.") else None}


def torch_leaves(sizes: dict) -> list[Leaf]:
    """The encoder's leaves with timm's names."""
    width, (rows, columns), (high, wide) = sizes["width"], sizes["grid"], sizes["patch"]
    kernel = (width, sizes["channels"], high, wide)
    leaves = [leaf(f"{TOKENIZER}/embed/kernel", "patch_embed.proj.weight", kernel, patch_kernel(kernel[1], high, wide))]
    leaves += [leaf(f"{TOKENIZER}/embed/bias", "patch_embed.proj.bias", (width,))]
    places = (1, rows * columns + sizes["class_token"], width)
    leaves += [leaf(f"{TOKENIZER}/position", "pos_embed", places, FIRST)]
    if sizes["class_token"]:
        leaves += [leaf(f"{TOKENIZER}/class_token", "cls_token", (1, 1, width), FIRST)]
    at = layers("blocks.", sizes["depth"])
    leaves += blocks("encoder/owned/image", at, width, sizes["mlp"], {"image": ("norm1", "norm2")})
    return leaves + norm("encoder/norms/image", "norm", width)


def _sizes(tensors: Tensors, options: Options) -> dict:
    return torch_sizes(tensors, options) if named_by_torch(tensors) else _augreg_sizes(tensors, options)


def _augreg_sizes(tensors: Tensors, options: Options) -> dict:
    high, wide, channels, width = tensors.shape("embedding/kernel", 4)
    heads = tensors.shape(f"{BLOCK}0/MultiHeadDotProductAttention_1/query/kernel", 3)[1]
    if options.heads not in (None, heads):
        raise UserError(f"heads={options.heads}, but the weights of {tensors.source} have {heads} attention heads")
    class_token, depth = "cls" in tensors, len({name.split("/")[1] for name in tensors if name.startswith(BLOCK)})
    places = tensors.shape("Transformer/posembed_input/pos_embedding", 3)[1]
    side = tensors.square("pos_embedding", places - class_token)
    sizes = {"names": "augreg", "width": width, "heads": divides(heads, width, "heads"), "depth": depth}
    sizes |= {"mlp": tensors.shape(f"{BLOCK}0/MlpBlock_3/Dense_0/kernel", 2)[1], "class_token": class_token}
    sizes |= {"patch": [high, wide], "channels": channels, "grid": [side, side]}
    return sizes | {"classes": tensors.shape("head/kernel", 2)[1] if tensors.any("head/") else None}


def _flat(sizes: dict) -> Transform:
    """[rows, columns, C, D] <-> [rows * columns * C, D]."""
    shape = (*sizes["patch"], sizes["channels"], -1)
    return one(lambda a: a.reshape(-1, a.shape[-1]), lambda a: a.reshape(shape))


def _augreg_leaves(sizes: dict) -> list[Leaf]:
    width, (rows, columns) = sizes["width"], sizes["grid"]
    kernel = (*sizes["patch"], sizes["channels"], width)
    leaves = [leaf(f"{TOKENIZER}/embed/kernel", "embedding/kernel", kernel, _flat(sizes))]
    leaves += [leaf(f"{TOKENIZER}/embed/bias", "embedding/bias", (width,))]
    places = (1, rows * columns + sizes["class_token"], width)
    leaves += [leaf(f"{TOKENIZER}/position", "Transformer/posembed_input/pos_embedding", places, FIRST)]
    if sizes["class_token"]:
        leaves += [leaf(f"{TOKENIZER}/class_token", "cls", (1, 1, width), FIRST)]
    leaves += _augreg_blocks(sizes)
    return leaves + [leaf(f"encoder/norms/image/{w}", f"Transformer/encoder_norm/{w}", (width,)) for w in _SCALE]


def _augreg_blocks(sizes: dict) -> list[Leaf]:
    """Query, key and value are three tensors with an axis of heads; all the rest is as ours."""
    width, mlp, heads = sizes["width"], sizes["mlp"], sizes["heads"]
    at, path = [f"{BLOCK}{i}/" for i in range(sizes["depth"])], "encoder/owned/image/layers"
    attention, part = "MultiHeadDotProductAttention_1", width // heads
    three = {
        w: tuple(tuple(f"{p}{attention}/{n}/{w}" for n in ("query", "key", "value")) for p in at) for w in _WEIGHTS
    }
    leaves = [
        Leaf(f"{path}/attention/qkv/kernel", three["kernel"], ((width, heads, part),) * 3, heads_kernel(heads), True)
    ]
    leaves += [Leaf(f"{path}/attention/qkv/bias", three["bias"], ((heads, part),) * 3, heads_bias(heads), True)]
    shape = (heads, part, width)
    leaves += [leaf(f"{path}/attention/out/kernel", f"{attention}/out/kernel", shape, heads_out(heads), at)]
    leaves += [leaf(f"{path}/attention/out/bias", f"{attention}/out/bias", (width,), at=at)]
    for ours, theirs, n_in, n_out in (("up", "Dense_0", width, mlp), ("down", "Dense_1", mlp, width)):
        leaves += [leaf(f"{path}/mlp/{ours}/kernel", f"MlpBlock_3/{theirs}/kernel", (n_in, n_out), at=at)]
        leaves += [leaf(f"{path}/mlp/{ours}/bias", f"MlpBlock_3/{theirs}/bias", (n_out,), at=at)]
    norms = (("attention", "LayerNorm_0"), ("mlp", "LayerNorm_2"))
    path = f"{path}/norms/image"
    return leaves + [leaf(f"{path}/{ours}/{w}", f"{n}/{w}", (width,), at=at) for ours, n in norms for w in _SCALE]


def _table(sizes: dict) -> Table:
    width, classes = sizes["width"], sizes["classes"]
    if sizes["names"] == "torch":
        head = linear("head", "head.{}", width, classes) if classes else []
        return Table(tuple(torch_leaves(sizes) + head))
    shapes = {"kernel": (width, classes), "bias": (classes,)}
    head = [leaf(f"head/{w}", f"head/{w}", shapes[w]) for w in _WEIGHTS] if classes else []
    return Table(tuple(_augreg_leaves(sizes) + head))


def describe(sizes: dict) -> dict:
    """Config fields of a ViT."""
    model = dict(width=sizes["width"], depth=sizes["depth"], heads=sizes["heads"], mlp_dim=sizes["mlp"])
    model |= dict(adapter_depth=-1, activation="gelu", norm_eps=1e-6, positions="learned", modality_token=False)
    model |= dict(class_token=sizes["class_token"], pool="cls" if sizes["class_token"] else "mean", pre_norm=False)
    model |= dict(patch_bias=True, normalize="none", projection={"kind": "none"})
    return {"model": model, "decoder": None, "modalities": {"image": image_fields(sizes)}, "classes": sizes["classes"]}


def _fits(names: Iterable[str]) -> bool:
    names = set(names)
    torch = named_by_torch(names) and not any(name.startswith("decoder_") for name in names)
    return torch or f"{BLOCK}0/LayerNorm_0/scale" in names


VIT = Kind(_sizes, _table, describe, _fits)
