"""Parts that the mapping tables share: layers, stacks of blocks, the decoder of MAE and CAV-MAE, a picture's fields."""

from collections.abc import Iterable, Mapping

from mmr_jax.weights.mapping import Leaf, Options, Shape, Tensors, divides
from mmr_jax.weights.transforms import FIRST, SAME, TRANSPOSE, Transform

TIMM = ("attn.qkv.{}", "attn.proj.{}", "mlp.fc1.{}", "mlp.fc2.{}")


def leaf(path: str, name: str, shape: Shape, transform: Transform = SAME, at: tuple[str, ...] | None = None) -> Leaf:
    """A leaf made of one tensor, or of one per layer whose prefixes are `at`."""
    groups = ((name,),) if at is None else tuple((prefix + name,) for prefix in at)
    return Leaf(path, groups, (shape,), transform, at is not None)


def linear(path: str, name: str, n_in: int, n_out: int, at: tuple[str, ...] | None = None) -> list[Leaf]:
    """A linear layer; `name` has {} where weight or bias stands."""
    kernel = leaf(f"{path}/kernel", name.format("weight"), (n_out, n_in), TRANSPOSE, at)
    return [kernel, leaf(f"{path}/bias", name.format("bias"), (n_out,), SAME, at)]


def norm(path: str, name: str, width: int, at: tuple[str, ...] | None = None) -> list[Leaf]:
    """A LayerNorm."""
    scale = leaf(f"{path}/scale", f"{name}.weight", (width,), SAME, at)
    return [scale, leaf(f"{path}/bias", f"{name}.bias", (width,), SAME, at)]


def blocks(
    path: str,
    at: Iterable[str],
    width: int,
    mlp_dim: int,
    norms: Mapping[str, tuple[str, str]],
    names: tuple[str, str, str, str] = TIMM,
) -> list[Leaf]:
    """A stack of blocks below `path`/layers; `at` are the layers' prefixes, `norms` {stream: (norm 1, norm 2)}."""
    at, path = tuple(at), f"{path}/layers"
    if not at:
        return []
    qkv, out, up, down = names
    made = linear(f"{path}/attention/qkv", qkv, width, 3 * width, at)
    made += linear(f"{path}/attention/out", out, width, width, at)
    made += linear(f"{path}/mlp/up", up, width, mlp_dim, at) + linear(f"{path}/mlp/down", down, mlp_dim, width, at)
    for stream, (first, second) in norms.items():
        made += norm(f"{path}/norms/{stream}/attention", first, width, at)
        made += norm(f"{path}/norms/{stream}/mlp", second, width, at)
    return made


def layers(prefix: str, depth: int) -> list[str]:
    """Prefixes of a stack's layers: "blocks.0.", "blocks.1.", .."""
    return [f"{prefix}{i}." for i in range(depth)]


def decoder_sizes(tensors: Tensors, options: Options) -> dict | None:
    """Sizes of the decoder, None where a file has none."""
    if not tensors.any("decoder_"):
        return None
    width = tensors.shape("decoder_norm.weight", 1)[0]
    heads = divides(options.decoder_heads, width, "decoder_heads")
    mlp_dim = tensors.shape("decoder_blocks.0.mlp.fc1.weight", 2)[0]
    return {"width": width, "depth": tensors.depth("decoder_blocks."), "heads": heads, "mlp_dim": mlp_dim}


def decoder_trunk(n_in: int, sizes: dict) -> list[Leaf]:
    """The decoder from encoder width `n_in` on, without what belongs to a modality."""
    width = sizes["width"]
    at = layers("decoder_blocks.", sizes["depth"])
    leaves = linear("decoder/embed", "decoder_embed.{}", n_in, width) + norm("decoder/norm", "decoder_norm", width)
    leaves += blocks("decoder/blocks", at, width, sizes["mlp_dim"], {"decoder": ("norm1", "norm2")})
    return [*leaves, leaf("decoder/mask_token", "mask_token", (1, 1, width), FIRST)]


def image_fields(sizes: dict) -> dict:
    """Config fields of a picture from its patch, grid and channels."""
    (high, wide), (rows, columns) = sizes["patch"], sizes["grid"]
    size = dict(height=rows * high, width=columns * wide, channels=sizes["channels"])
    return dict(kind="image", patch_size=[high, wide], grid=[rows, columns], **size)
