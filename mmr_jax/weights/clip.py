"""CLIP with a ViT image tower (arXiv 2103.00020): names of github.com/openai/CLIP and of mlfoundations/open_clip.

Modalities "image" and "text". open_clip's CustomTextCLIP puts the text tower's names below `text.`. Which GELU a model
was trained with is not in its weights: OpenAI's all need quick_gelu, the default here; open_clip's need gelu unless
their config says quick_gelu.
"""

from collections.abc import Iterable

from mmr_jax.errors import UserError
from mmr_jax.weights.mapping import Kind, Leaf, Options, Table, Tensors
from mmr_jax.weights.parts import blocks, image_fields, layers, leaf, norm
from mmr_jax.weights.transforms import ROW, patch_kernel

NAMES = ("attn.in_proj_{}", "attn.out_proj.{}", "mlp.c_fc.{}", "mlp.c_proj.{}")
NORMS = ("ln_1", "ln_2")
BLOCKS = "transformer.resblocks."
# Facts about the model that a state dict may carry, the causal mask, and the bias of a sigmoid loss.
ASIDE = frozenset(("input_resolution", "context_length", "vocab_size", "attn_mask", "text.attn_mask", "logit_bias"))


def _sizes(tensors: Tensors, options: Options) -> dict:
    if tensors.any("visual.layer1."):
        raise UserError(f"{tensors.source}: its image tower is a ResNet; only CLIP with a ViT is read")
    text = "text." if "text.token_embedding.weight" in tensors else ""
    vocabulary, width = tensors.shape(f"{text}token_embedding.weight", 2)
    length = tensors.shape(f"{text}positional_embedding", 2)[0]
    tower = {"width": width, "depth": tensors.depth(text + BLOCKS), "length": length, "vocabulary": vocabulary}
    tower |= {"mlp": tensors.shape(f"{text}{BLOCKS}0.mlp.c_fc.weight", 2)[0]}
    tower |= {"heads": Options().heads_of(width)}  # always 64 wide in the text tower
    sizes = {"text_prefix": text, "image": _image(tensors, options), "text": tower}
    sizes |= {"dim": tensors.shape("visual.proj", 2)[1], "activation": options.activation or "quick_gelu"}
    return sizes


def _image(tensors: Tensors, options: Options) -> dict:
    width, channels, high, wide = tensors.shape("visual.conv1.weight", 4)
    side = tensors.square("visual.positional_embedding", tensors.shape("visual.positional_embedding", 2)[0] - 1)
    found = {"width": width, "depth": tensors.depth(f"visual.{BLOCKS}"), "patch": [high, wide], "channels": channels}
    mlp = tensors.shape(f"visual.{BLOCKS}0.mlp.c_fc.weight", 2)[0]
    return found | {"mlp": mlp, "heads": options.heads_of(width), "grid": [side, side]}


def _table(sizes: dict) -> Table:
    scale = [leaf("logit_scale", "logit_scale", ())]
    return Table(tuple(_image_leaves(sizes) + _text_leaves(sizes) + scale), optional=ASIDE)


def _image_leaves(sizes: dict) -> list[Leaf]:
    cfg, path = sizes["image"], "encoder/tokenizers/image"
    width, (rows, columns), kernel = cfg["width"], cfg["grid"], (cfg["width"], cfg["channels"], *cfg["patch"])
    leaves = [leaf(f"{path}/embed/kernel", "visual.conv1.weight", kernel, patch_kernel(*kernel[1:]))]
    leaves += [leaf(f"{path}/class_token", "visual.class_embedding", (width,), ROW)]
    leaves += [leaf(f"{path}/position", "visual.positional_embedding", (1 + rows * columns, width))]
    leaves += norm(f"{path}/pre_norm", "visual.ln_pre", width) + norm("encoder/norms/image", "visual.ln_post", width)
    leaves += [leaf("projections/image/out/kernel", "visual.proj", (width, sizes["dim"]))]
    at = layers(f"visual.{BLOCKS}", cfg["depth"])
    return leaves + blocks("encoder/owned/image", at, width, cfg["mlp"], {"image": NORMS}, NAMES)


def _text_leaves(sizes: dict) -> list[Leaf]:
    cfg, path, text = sizes["text"], "encoder/tokenizers/text", sizes["text_prefix"]
    width = cfg["width"]
    leaves = [leaf(f"{path}/embed/embedding", f"{text}token_embedding.weight", (cfg["vocabulary"], width))]
    leaves += [leaf(f"{path}/position", f"{text}positional_embedding", (cfg["length"], width))]
    leaves += norm("encoder/norms/text", f"{text}ln_final", width)
    leaves += [leaf("projections/text/out/kernel", f"{text}text_projection", (width, sizes["dim"]))]
    at = layers(text + BLOCKS, cfg["depth"])
    return leaves + blocks("encoder/owned/text", at, width, cfg["mlp"], {"text": NORMS}, NAMES)


def _describe(sizes: dict) -> dict:
    image, text = sizes["image"], sizes["text"]
    model = dict(_tower(image), class_token=True, pool="cls", pre_norm=True, patch_bias=False, causal=False)
    model |= dict(adapter_depth=-1, activation=sizes["activation"], norm_eps=1e-5, positions="learned")
    model |= dict(modality_token=False, projection={"kind": "linear", "dim": sizes["dim"]})
    model["overrides"] = {"text": dict(_tower(text), class_token=False, pool="last", pre_norm=False, causal=True)}
    fields = dict(kind="text", length=text["length"], vocab_size=text["vocabulary"], grid=[text["length"]])
    return {
        "model": model,
        "decoder": None,
        "modalities": {"image": image_fields(image), "text": fields},
        "classes": None,
    }


def _tower(cfg: dict) -> dict:
    return dict(width=cfg["width"], depth=cfg["depth"], heads=cfg["heads"], mlp_dim=cfg["mlp"])


def _fits(names: Iterable[str]) -> bool:
    return any(name.startswith(("visual.transformer.", "visual.layer1.")) for name in names)


CLIP = Kind(_sizes, _table, _describe, _fits)
