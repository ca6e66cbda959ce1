"""Name sets of published checkpoints, written down from their state dicts, and torch files written by hand."""

import struct
import zipfile
from typing import NamedTuple

import ml_dtypes
import numpy as np

# -- names ---------------------------------------------------------------------------------------------------------


def with_bias(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def block(prefix, width, norms=("norm1", "norm2")):
    names = {}
    for norm in norms:
        names |= with_bias(f"{prefix}.{norm}", width)
    names |= with_bias(f"{prefix}.attn.qkv", 3 * width, width) | with_bias(f"{prefix}.attn.proj", width, width)
    return names | with_bias(f"{prefix}.mlp.fc1", 4 * width, width) | with_bias(f"{prefix}.mlp.fc2", width, 4 * width)


SIX = ("norm1", "norm1_a", "norm1_v", "norm2", "norm2_a", "norm2_v")


def cavmae(width=768, wide=512, depth=11, deep=8, times=64, side=14, letters="av", classes=0, mels=8):
    """Pretrained, or fine-tuned with `classes` > 0; one of the letters alone for a single-modality model."""
    tokens, channels = {"a": mels * times, "v": side * side}, {"a": 1, "v": 3}
    names = with_bias("norm", width)
    names |= block("blocks_u.0", width, SIX)
    for s in letters:
        names |= {f"modality_{s}": (1, 1, width), f"pos_embed_{s}": (1, tokens[s], width)}
        names |= with_bias(f"patch_embed_{s}.proj", width, channels[s], 16, 16) | with_bias(f"norm_{s}", width)
        for i in range(depth):
            names |= block(f"blocks_{s}.{i}", width, SIX)
    if classes:
        return names | with_bias("mlp_head.0", width) | with_bias("mlp_head.1", classes, width)
    names |= {"mask_token": (1, 1, wide), **with_bias("decoder_embed", wide, width), **with_bias("decoder_norm", wide)}
    for i in range(deep):
        names |= block(f"decoder_blocks.{i}", wide, SIX)
    for s in letters:
        names |= {f"decoder_modality_{s}": (1, 1, wide), f"decoder_pos_embed_{s}": (1, tokens[s], wide)}
        names |= with_bias(f"decoder_pred_{s}", 256 * channels[s], wide)
    return names


def mae(width=768, wide=512, depth=12, deep=8, side=14, patch=16, full=True):
    names = {"cls_token": (1, 1, width), "pos_embed": (1, 1 + side * side, width)}
    names |= with_bias("patch_embed.proj", width, 3, patch, patch) | with_bias("norm", width)
    for i in range(depth):
        names |= block(f"blocks.{i}", width)
    if not full:
        return names
    names |= {"mask_token": (1, 1, wide), "decoder_pos_embed": (1, 1 + side * side, wide)}
    names |= with_bias("decoder_embed", wide, width) | with_bias("decoder_norm", wide)
    for i in range(deep):
        names |= block(f"decoder_blocks.{i}", wide)
    return names | with_bias("decoder_pred", 3 * patch * patch, wide)


def clip_tower(prefix, width, depth):
    names = {}
    for i in range(depth):
        at = f"{prefix}transformer.resblocks.{i}"
        names |= with_bias(f"{at}.ln_1", width) | with_bias(f"{at}.ln_2", width)
        names |= {f"{at}.attn.in_proj_weight": (3 * width, width), f"{at}.attn.in_proj_bias": (3 * width,)}
        names |= with_bias(f"{at}.attn.out_proj", width, width)
        names |= with_bias(f"{at}.mlp.c_fc", 4 * width, width) | with_bias(f"{at}.mlp.c_proj", width, 4 * width)
    return names


def clip(width=768, text=512, depth=12, side=14, patch=16, vocabulary=49408, length=77, dim=512, below=""):
    """`below` is "text." for open_clip's CustomTextCLIP."""
    names = {"visual.conv1.weight": (width, 3, patch, patch), "visual.class_embedding": (width,)}
    names |= {"visual.positional_embedding": (1 + side * side, width), "visual.proj": (width, dim), "logit_scale": ()}
    names |= with_bias("visual.ln_pre", width) | with_bias("visual.ln_post", width)
    names |= clip_tower("visual.", width, depth) | clip_tower(below, text, depth) | with_bias(f"{below}ln_final", text)
    names |= {f"{below}token_embedding.weight": (vocabulary, text), f"{below}positional_embedding": (length, text)}
    return names | {f"{below}text_projection": (text, dim)}


def augreg(width=768, heads=12, depth=12, side=14, classes=1000):
    part = width // heads
    names = {"cls": (1, 1, width), "embedding/kernel": (16, 16, 3, width), "embedding/bias": (width,)}
    names |= {"Transformer/posembed_input/pos_embedding": (1, 1 + side * side, width)}
    names |= {"head/kernel": (width, classes), "head/bias": (classes,)}
    for w in ("scale", "bias"):
        names |= {f"Transformer/encoder_norm/{w}": (width,)}
    for i in range(depth):
        at = f"Transformer/encoderblock_{i}"
        names |= {f"{at}/LayerNorm_{n}/{w}": (width,) for n in (0, 2) for w in ("scale", "bias")}
        names |= {f"{at}/MlpBlock_3/Dense_0/kernel": (width, 4 * width), f"{at}/MlpBlock_3/Dense_0/bias": (4 * width,)}
        names |= {f"{at}/MlpBlock_3/Dense_1/kernel": (4 * width, width), f"{at}/MlpBlock_3/Dense_1/bias": (width,)}
        at = f"{at}/MultiHeadDotProductAttention_1"
        for n in ("query", "key", "value"):
            names |= {f"{at}/{n}/kernel": (width, heads, part), f"{at}/{n}/bias": (heads, part)}
        names |= {f"{at}/out/kernel": (heads, part, width), f"{at}/out/bias": (width,)}
    return names


def filled(names, seed=0, dtype=np.float32):
    """Random tensors of these names and shapes."""
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.normal(size=shape)).astype(dtype) for name, shape in names.items()}


def hollow(names):
    """Arrays of these shapes that hold a single number."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in names.items()}


def reference_tensors(folder, name):
    """The published parameters of a reference file."""
    with np.load(folder / f"{name}.npz") as file:
        return {key.removeprefix("param/"): file[key] for key in file.files if key.startswith("param/")}


# -- torch files ---------------------------------------------------------------------------------------------------

STORAGES = {
    "float32": "Float", "float16": "Half", "float64": "Double", "bfloat16": "BFloat16", "int64": "Long",
    "uint8": "Byte", "bool": "Bool",
}  # fmt: skip


class Name(NamedTuple):
    """A global."""

    module: str
    name: str


class Call(NamedTuple):
    """`function`(*args); by NEWOBJ instead of REDUCE if `new`; then BUILD with `state` unless None."""

    function: object
    args: tuple
    state: object = None
    new: bool = False


class Reference(NamedTuple):
    """A persistent id."""

    id: tuple


def opcodes(value):
    """The protocol-2 opcodes that leave `value` on the stack."""
    if isinstance(value, Name):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Reference):
        return opcodes(value.id) + b"Q"
    if isinstance(value, Call):
        made = opcodes(value.function) + opcodes(value.args) + (b"\x81" if value.new else b"R")
        return made + (b"" if value.state is None else opcodes(value.state) + b"b")
    if isinstance(value, dict):
        return b"}(" + b"".join(opcodes(k) + opcodes(v) for k, v in value.items()) + b"u"
    if isinstance(value, tuple | list):
        open_, close = (b"(", b"t") if isinstance(value, tuple) else (b"](", b"e")
        return open_ + b"".join(map(opcodes, value)) + close
    if isinstance(value, bool) or value is None:
        return {True: b"\x88", False: b"\x89", None: b"N"}[value]
    if isinstance(value, int):
        return b"\x8a\x10" + value.to_bytes(16, "little", signed=True)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


ORDERED = Name("collections", "OrderedDict")


class TorchFile:
    """Collects storages; `tensor` gives the pickled form of an array, `write` the archive."""

    def __init__(self, root="archive"):
        self.root, self.entries = root, {}

    def storage(self, array, count=None):
        """Reference to a new storage with the flat array's bytes."""
        key = str(len(self.entries))
        self.entries[key] = np.ascontiguousarray(array).tobytes()
        kind = Name("torch", STORAGES[array.dtype.name] + "Storage")
        return Reference(("storage", kind, key, "cpu", array.size if count is None else count))

    def tensor(self, array, offset=0, size=None, strides=None, storage=None):
        """A tensor over a storage of its own, or a view of a given one; strides count elements."""
        array = np.asarray(array)
        size = array.shape if size is None else size
        if strides is None:
            strides = tuple(int(np.prod(size[i + 1 :])) for i in range(len(size)))
        storage = storage or self.storage(array)
        return Call(
            Name("torch._utils", "_rebuild_tensor_v2"), (storage, offset, size, strides, False, Call(ORDERED, ()))
        )

    def write(self, path, payload, compression=zipfile.ZIP_STORED, extra=()):
        """The archive with `payload` pickled; what the reader has no use for is there too."""
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr(f"{self.root}/data.pkl", b"\x80\x02" + opcodes(payload) + b".")
            for key, raw in self.entries.items():
                archive.writestr(f"{self.root}/data/{key}", raw)
            for name, raw in (("version", b"3\n"), *extra):
                archive.writestr(f"{self.root}/{name}", raw)
        return path


def state_dict(file, tensors):
    """The pickled form of {name: array}."""
    return {name: file.tensor(tensor) for name, tensor in tensors.items()}


BF16 = ml_dtypes.bfloat16
