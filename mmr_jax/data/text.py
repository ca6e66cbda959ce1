"""Text to token ids on the host: bytes, hashed words, a trained BPE or CLIP's. A tokenizer is a function of (text,
modality config).

Id 0 is padding, 1 begins and 2 ends a sequence of bytes or of a trained BPE; ids from 3 on carry the text. CLIP's ids
are the published ones. Of a text that is too long the tail is lost; the end token stays.
"""

import re
import zlib
from collections.abc import Mapping

import numpy as np

from mmr_jax.data import bpe
from mmr_jax.errors import UserError, nearest

PAD, BEGIN, END, FIRST = 0, 1, 2, 3


def encode_bytes(text: str, spec: Mapping) -> tuple[np.ndarray, int]:
    """Begin, UTF-8 bytes + 3, end."""
    data = np.frombuffer(text.encode()[: spec["length"] - 2], np.uint8).astype(np.int32) + FIRST
    return _padded([BEGIN, *data.tolist(), END], spec["length"])


def encode_words(text: str, spec: Mapping) -> tuple[np.ndarray, int]:
    """Lower-case words hashed (CRC-32) into the vocabulary: no file, no training, a few collisions."""
    words = re.findall(r"\w+", text.lower())
    ids = [FIRST + zlib.crc32(word.encode()) % (spec["vocab_size"] - FIRST) for word in words]
    return _padded(ids[: spec["length"]] or [END], spec["length"])


def encode_bpe(text: str, spec: Mapping) -> tuple[np.ndarray, int]:
    """Begin, byte-level BPE by the file spec["vocab"], end."""
    return _padded([BEGIN, *bpe.bpe_ids(text, spec)[: spec["length"] - 2], END], spec["length"])


def encode_clip(text: str, spec: Mapping) -> tuple[np.ndarray, int]:
    """CLIP's begin, BPE and end (49407, the last valid id: where CLIP's text tower is read, model.pool="last")."""
    ids = bpe.clip_ids(text, spec)
    return _padded([*ids[: spec["length"] - 1], ids[-1]] if len(ids) > spec["length"] else ids, spec["length"])


TOKENIZERS = {"byte": encode_bytes, "word": encode_words, "bpe": encode_bpe, "clip": encode_clip}


def encode(text: str, spec: Mapping) -> tuple[np.ndarray, int]:
    """`text` as int32 [spec["length"]] padded with 0, and how many ids are valid, by spec["tokenizer"]."""
    name = spec.get("tokenizer", "byte")
    if name not in TOKENIZERS:
        raise UserError(f"unknown tokenizer {name!r}{nearest(name, TOKENIZERS)}")
    return TOKENIZERS[name](text, spec)


def _padded(ids: list[int], length: int) -> tuple[np.ndarray, int]:
    tokens = np.full(length, PAD, np.int32)
    tokens[: len(ids)] = ids
    return tokens, len(ids)
