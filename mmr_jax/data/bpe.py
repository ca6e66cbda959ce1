"""Byte-pair encodings by the `tokenizers` library (extra media): one trained on one's own texts, and CLIP's.

A vocabulary is loaded once per file and process, on the first text; the functions can be pickled and called from
threads. CLIP's published tokenizer also runs every text through ftfy, which is not done here: curly quotes, ligatures,
full-width letters, decomposed accents and wrongly decoded text give other ids than there. All else is the same.
"""

import functools
import gzip
import html
import re
import threading
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmr_jax.errors import UserError
from mmr_jax.files import write_text

SPECIAL = ("<pad>", "<begin>", "<end>")  # ids 0, 1 and 2
SMALLEST = len(SPECIAL) + 256
KINDS = ("bpe", "clip")
CLIP_MERGES = 49152 - 256 - 2
CLIP_SIZE = 512 + CLIP_MERGES + 2
_CLIP_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_SHOWN = dict(zip((*SPECIAL, *_CLIP_SPECIAL), "·‹›‹›", strict=True))
_CLIP_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_CLIP_FILE = "CLIP's bpe_simple_vocab_16e6.txt.gz"
_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_BYTES = _PRINTABLE + [b for b in range(256) if b not in _PRINTABLE]  # in the order of the published vocabulary
_lock = threading.Lock()


def bpe_ids(text: str, spec: Mapping) -> list[int]:
    """Ids of `text` (neither begin nor end) by the vocabulary that `train_bpe` wrote to the file spec["vocab"]."""
    return _load("bpe", spec).encode(text, add_special_tokens=False).ids


def clip_ids(text: str, spec: Mapping) -> list[int]:
    """Ids of `text` with CLIP's begin (49406) and end (49407), by the published vocabulary in spec["vocab"]."""
    text = html.unescape(html.unescape(text)).strip()
    text = re.sub(r"\s+", " ", text).strip().lower()
    return [CLIP_SIZE - 2, *_load("clip", spec).encode(text, add_special_tokens=False).ids, CLIP_SIZE - 1]


def token_text(token: int, spec: Mapping) -> str:
    """What an id stands for, to be shown; CLIP's end of a word is a space, bytes that are no character are dots."""
    name = _load(spec["tokenizer"], spec).id_to_token(token)
    if name in _SHOWN:
        return _SHOWN[name]
    letters = dict(zip(_byte_letters(), _BYTES, strict=True))
    data = bytes(letters[c] for c in name.removesuffix("</w>") if c in letters)
    text = data.decode("utf-8", "replace") + " " * name.endswith("</w>")
    return "".join(c if c.isprintable() else "·" for c in text)


def train_bpe(texts: Iterable[str], vocab_size: int, path: str | Path) -> None:
    """Train a byte-level BPE of exactly `vocab_size` ids on `texts` and write it to `path` (JSON, whole or not at all).

    It has an id for every byte, so every text can be told from its ids; case is kept. The same texts, in any order,
    give the same file. Texts too few for so many ids are a UserError.
    """
    library = _library()
    if vocab_size < SMALLEST:
        raise UserError(f"vocab_size is {vocab_size}; a byte-level BPE needs at least {SMALLEST}")
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    found = tokenizer.get_vocab_size()
    if found != vocab_size:
        raise UserError(
            f"the texts give a vocabulary of {found} ids, not {vocab_size}; ask for {found} or give more texts"
        )
    write_text(path, tokenizer.to_str(pretty=True))


def _library():
    from mmr_jax.data.media import require

    return require("tokenizers", "media")


def _load(kind: str, spec: Mapping):
    """The `tokenizers.Tokenizer` of spec["vocab"]; UserError if the file does not fit or spec["vocab_size"] is not its
    size."""
    path = spec.get("vocab", "")
    if not path:
        what = _CLIP_FILE if kind == "clip" else "a file written by mmr_jax.data.bpe.train_bpe"
        raise UserError(f"the tokenizer {kind!r} needs a vocabulary: set the field vocab to {what}")
    with _lock:  # reading threads arrive together; one loads, the others wait
        tokenizer, size = _loaded(kind, str(path))
    if spec["vocab_size"] != size:
        raise UserError(f"vocab_size is {spec['vocab_size']}, but {path} has {size} ids; set vocab_size={size}")
    return tokenizer


@functools.lru_cache(maxsize=8)
def _loaded(kind: str, path: str) -> tuple:
    """(tokenizer, its number of ids)."""
    if not Path(path).is_file():
        raise UserError(f"vocabulary {path} does not exist; the tokenizer {kind!r} reads its field vocab")
    tokenizer = {"bpe": _read_bpe, "clip": _read_clip}[kind](path)
    return tokenizer, tokenizer.get_vocab_size()


def _read_bpe(path: str):
    library = _library()
    try:
        tokenizer = library.Tokenizer.from_str(Path(path).read_text(encoding="utf-8"))
    except Exception as error:  # the library raises plain Exceptions
        raise UserError(
            f"{path} is no vocabulary of the tokenizer 'bpe' ({_line(error)}); write one with train_bpe"
        ) from None
    if [tokenizer.id_to_token(i) for i in range(len(SPECIAL))] != list(SPECIAL):
        raise UserError(f"{path} was not written by train_bpe: its first ids are not {', '.join(SPECIAL)}")
    tokenizer.encode_special_tokens = True  # "<pad>" in a text is five characters
    return tokenizer


def _read_clip(path: str):
    """Published: 256 bytes, 256 bytes that end a word, the first 48,894 merges in the file's order, begin and end."""
    library, merges = _library(), _clip_merges(path)
    letters = _byte_letters()
    names = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), *_CLIP_SPECIAL]
    vocab = {name: i for i, name in enumerate(names)}
    try:
        model = library.models.BPE(vocab, merges, end_of_word_suffix="</w>")
    except Exception as error:  # a pair of which a part is unknown
        raise UserError(f"{path} is not {_CLIP_FILE}: {_line(error)}") from None
    tokenizer = library.Tokenizer(model)
    words = library.pre_tokenizers.Split(library.Regex(_CLIP_WORD), "removed", invert=True)
    in_bytes = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence([words, in_bytes])
    tokenizer.add_special_tokens(list(_CLIP_SPECIAL))  # as published: written in a text, they are begin and end
    return tokenizer


def _clip_merges(path: str) -> list[tuple[str, str]]:
    """The first 48,894 pairs of the file, whose first line is a header."""
    try:
        lines = gzip.decompress(Path(path).read_bytes()).decode("utf-8").split("\n")[1 : CLIP_MERGES + 1]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not {_CLIP_FILE}: {_line(error)}") from None
    merges = [tuple(line.split()) for line in lines]
    good = sum(len(pair) == 2 for pair in merges)
    if good != CLIP_MERGES:
        raise UserError(f"{path} is not {_CLIP_FILE}: it has {good} pairs where {CLIP_MERGES} are needed")
    return merges


def _byte_letters() -> list[str]:
    """A printable character (GPT-2's) for every byte of `_BYTES`."""
    return [chr(b) for b in _PRINTABLE] + [chr(256 + i) for i in range(256 - len(_PRINTABLE))]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
