"""Trained and CLIP's byte-pair encodings, against a BPE in plain Python."""

import functools
import gzip
import itertools
import pickle
import random
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mmr_jax import config as configs
from mmr_jax.data import bpe
from mmr_jax.data.text import encode
from mmr_jax.errors import UserError

pytest.importorskip("tokenizers")

TEXTS = [
    "a dog barks at a cat",
    "the cat purrs, the dog's tail wags",
    "naïve café: 3 × 4 = 12",
    "one two three four",
] * 5
ODD = [
    "",
    " ",
    "Don't  STOP",
    "日本語 emoji 🎉🎉",
    "tab\tand\nline",
    "<pad><begin> are no tokens",
    "x" * 5000,
    "\x00\x7f ÿ",
]
CORNERS = ["", "a", "they've 'd", "<|endoftext|> a", "İstanbul ΣΑΣ", "\x85", "Ⅷ ² ٣٤", "e\u0301 ’s", "a\u00a0b\u3000c"]


# ---- CLIP's tokenizer as published (openai/CLIP, clip/simple_tokenizer.py), without its library and written out


def byte_letters():
    kept = [b for b in range(256) if chr(b).isprintable() and b not in (32, 160, 173)]
    others = [b for b in range(256) if b not in kept]
    return {**{b: chr(b) for b in kept}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def split_words(text):
    """The published pattern by hand: specials, contractions, runs of letters, single digits, runs of anything else."""

    def kind(c):
        first = unicodedata.category(c)[0]
        return " " if c.isspace() else first if first in "LN" else "other"

    words, i = [], 0
    while i < len(text):
        heads = ("<|startoftext|>", "<|endoftext|>", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
        head = next((h for h in heads if text.startswith(h, i)), None)
        if head is None:
            run = itertools.takewhile(lambda c, k=kind(text[i]): kind(c) == k, text[i:])
            head = text[i] if kind(text[i]) == "N" else "".join(run)
        words += [head] if kind(head[0]) != " " else []
        i += len(head)
    return words


def merge_word(word, ranks):
    """Repeatedly the best pair of neighbours, everywhere it stands, from the left."""
    parts = [*word[:-1], word[-1] + "</w>"]
    while len(parts) > 1:
        best = min(itertools.pairwise(parts), key=lambda pair: ranks.get(pair, float("inf")))
        if best not in ranks:
            break
        merged, i = [], 0
        while i < len(parts):
            both = tuple(parts[i : i + 2]) == best
            merged.append("".join(best) if both else parts[i])
            i += 1 + both
        parts = merged
    return parts


@functools.cache
def published(path):
    """text -> ids, by the published code's reading of the file."""
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    merges, letters = [tuple(line.split()) for line in lines], byte_letters()
    order = sorted(letters, key=lambda b: (letters[b] != chr(b), letters[b]))
    names = [letters[b] for b in order]
    names += [name + "</w>" for name in names] + ["".join(pair) for pair in merges]
    ids = {name: i for i, name in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}
    ranks = {pair: i for i, pair in enumerate(merges)}

    def tokens(text):
        found = [ids["<|startoftext|>"]]
        for word in split_words(" ".join(text.split()).lower()):
            if word in ("<|startoftext|>", "<|endoftext|>"):
                found.append(ids[word])
            else:
                found += [ids[part] for part in merge_word("".join(letters[b] for b in word.encode()), ranks)]
        return [*found, ids["<|endoftext|>"]]

    return tokens


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    """A file of the published form and size, with other merges: the parts of each stand before it."""
    rng, letters = random.Random(0), byte_letters()
    latin, others = "etaoinshrdlucmfwypvbgkjqxz", ["'", "-", *(letters[b] for b in "é日本🎉ß".encode())]
    merges = [(a, b + end) for a in latin for b in latin for end in ("", "</w>")]
    merges += [pair for a in others for b in others for pair in ((a, b), (a, b + "</w>"))]
    rng.shuffle(merges)
    merges, parts = list(dict.fromkeys(merges)), [*latin, *others]
    parts += [p + "</w>" for p in parts] + ["".join(pair) for pair in merges]
    seen = {*parts}
    while len(merges) < 60_000:  # more than are read
        left, right = rng.choice(parts), rng.choice(parts)
        name = left + right
        if not left.endswith("</w>") and name not in seen and len(name) < 10:
            seen.add(name)
            merges.append((left, right))
            parts.append(name)
    path = tmp_path_factory.mktemp("clip") / "bpe_simple_vocab_16e6.txt.gz"
    text = '"bpe_simple_vocab_16e6.txt#version: 0.2\n' + "\n".join(" ".join(pair) for pair in merges) + "\n"
    path.write_bytes(gzip.compress(text.encode()))
    return path


@pytest.fixture(scope="module")
def bpe_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("bpe") / "vocab.json"
    bpe.train_bpe(TEXTS, 300, path)
    return path


def clip(path, **changes):
    return configs.text(tokenizer="clip", vocab=str(path), **changes)


def trained(path, **changes):
    return configs.text(**{"tokenizer": "bpe", "vocab": str(path), "vocab_size": 300, "length": 6000, **changes})


def random_text(rng):
    words = (
        "don't",
        "it's",
        "WE'LL",
        "3rd",
        "2024",
        "naïve",
        "日本語",
        "🎉🎉",
        "x-ray",
        "...",
        "ß",
        "&amp;",
        "&amp;lt;3",
        "½",
    )
    made = ("".join(rng.choices("etaoinshrd", k=rng.randint(1, 12))) for _ in range(4))
    return rng.choice([" ", "  ", "\t", "\n "]).join(rng.sample([*words, *made], 8))


def test_clip_gives_the_published_ids(clip_file):
    spec, oracle, rng = clip(clip_file), published(clip_file), random.Random(1)
    assert (spec["length"], spec["vocab_size"]) == (77, 49408)
    merged = 0
    for text in [random_text(rng) for _ in range(200)] + CORNERS:
        decoded = text.replace("&amp;", "&").replace("&lt;", "<")  # what html stands for here
        ids, count = encode(text, {**spec, "length": 300})
        expected = oracle(decoded)
        assert ids[:count].tolist() == expected and not ids[count:].any() and ids.dtype == np.int32
        merged += sum(i >= 512 for i in expected[1:-1])
    assert merged > 1000  # the merges of the file are used
    assert encode("a", spec)[0][:3].tolist() == [49406, 320, 49407]  # whatever the merges


def test_clip_of_a_very_long_word(clip_file):
    word = "".join(random.Random(2).choices("etaoin", k=3000))
    ids, count = encode(word, clip(clip_file, length=3000))
    assert ids[:count].tolist() == published(clip_file)(word) and count > 77


def test_clip_cuts_with_its_end_as_the_last_token(clip_file):
    spec = clip(clip_file)
    whole, n = encode("etaoin shrdlu " * 40, {**spec, "length": 1000})
    ids, count = encode("etaoin shrdlu " * 40, spec)
    assert n > 77 and count == 77 and ids.shape == (77,)
    assert ids[0] == 49406 and ids[-1] == 49407
    np.testing.assert_array_equal(ids[:76], whole[:76])
    exact, count = encode("etaoin shrdlu " * 40, {**spec, "length": n})
    assert count == n and (exact == whole[:n]).all()  # nothing is cut that fits
    short, count = encode("", spec)
    assert count == 2 and short[:3].tolist() == [49406, 49407, 0]


@pytest.mark.parametrize("text", TEXTS[:4] + ODD)
def test_a_trained_bpe_gives_back_its_text(bpe_file, text):
    import tokenizers

    ids, count = encode(text, trained(bpe_file))
    inner = ids[1 : count - 1]
    assert ids[0] == 1 and ids[count - 1] == 2 and not ids[count:].any()
    assert not len(inner) or (inner.min() >= 3 and inner.max() < 300)
    assert tokenizers.Tokenizer.from_file(str(bpe_file)).decode(inner.tolist(), skip_special_tokens=False) == text


def test_a_trained_bpe_has_merged_and_cuts_its_tail(bpe_file):
    spec = trained(bpe_file)
    whole, count = encode("the cat the dog", spec)
    assert count < len("the cat the dog")  # fewer ids than bytes
    ids, n = encode("the cat the dog", {**spec, "length": 4})
    assert n == 4 and ids.tolist() == [1, *whole[1:3], 2]


def test_training_depends_on_the_texts_alone(bpe_file, tmp_path):
    bpe.train_bpe(iter(TEXTS[::-1]), 300, tmp_path / "a.json")
    assert (tmp_path / "a.json").read_bytes() == bpe_file.read_bytes()
    script = "import sys; from mmr_jax.data.bpe import train_bpe; train_bpe(eval(sys.argv[1]), 300, sys.argv[2])"
    subprocess.run([sys.executable, "-c", script, repr(TEXTS), tmp_path / "b.json"], check=True)
    assert (tmp_path / "b.json").read_bytes() == bpe_file.read_bytes()
    bpe.train_bpe(["something else entirely, and more of it"] * 3, 262, tmp_path / "a.json")
    assert (tmp_path / "a.json").read_bytes() != bpe_file.read_bytes()


def test_training_asks_for_a_size_that_the_texts_give(tmp_path):
    with pytest.raises(UserError, match="at least 259"):
        bpe.train_bpe(TEXTS, 258, tmp_path / "v.json")
    with pytest.raises(UserError, match="vocabulary of 261 ids, not 5000; ask for 261"):
        bpe.train_bpe(["ab ab"], 5000, tmp_path / "v.json")
    assert not list(tmp_path.iterdir())
    bpe.train_bpe(["ab ab"], 261, tmp_path / "v.json")


@pytest.mark.parametrize("kind", ["bpe", "clip"])
def test_a_vocabulary_is_loaded_once_by_many_threads(kind, clip_file, bpe_file, monkeypatch):
    spec, loads = (clip(clip_file) if kind == "clip" else trained(bpe_file)), []
    name = f"_read_{kind}"
    read = getattr(bpe, name)
    monkeypatch.setattr(bpe, name, lambda path: loads.append(path) or read(path))
    bpe._loaded.cache_clear()
    texts = [random_text(random.Random(i)) for i in range(64)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda t: encode(t, spec), texts))
    assert loads == [spec["vocab"]]
    for text, (ids, count) in zip(texts, found, strict=True):
        again, n = encode(text, spec)
        assert n == count and (ids == again).all()


def test_an_encoder_can_be_sent_to_another_process(bpe_file, tmp_path):
    encoder = functools.partial(encode, spec=trained(bpe_file, length=32))
    ids, count = encoder("the dog")
    (tmp_path / "encoder").write_bytes(pickle.dumps(encoder))
    script = "import pickle, sys; ids, n = pickle.load(open(sys.argv[1], 'rb'))('the dog');"
    script += "print(n, *ids, 'jax' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "encoder"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(count), *map(str, ids), "False"]


def refused(spec, match):
    with pytest.raises(UserError, match=match) as caught:
        encode("a text", spec)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_refused(clip_file, bpe_file, tmp_path):
    refused(configs.text(tokenizer="clip"), "set the field vocab to CLIP's bpe_simple_vocab_16e6.txt.gz")
    refused(configs.text(tokenizer="bpe"), "train_bpe")
    refused(clip(tmp_path / "none.gz"), "none.gz does not exist")
    refused(trained(tmp_path), "does not exist")
    refused(clip(bpe_file), "is not CLIP's")
    refused(trained(clip_file), "is no vocabulary of the tokenizer 'bpe'")
    refused(clip(clip_file, vocab_size=259), "vocab_size is 259, but .* has 49408 ids; set vocab_size=49408")
    refused(trained(bpe_file, vocab_size=301), "set vocab_size=300")
    refused(configs.text(tokenizer="clap"), "unknown tokenizer 'clap'; did you mean 'clip'")


def test_files_of_the_right_form_and_wrong_content_are_refused(tmp_path):
    import tokenizers

    head = '"bpe_simple_vocab_16e6.txt#version: 0.2\n'
    (tmp_path / "short.gz").write_bytes(gzip.compress((head + "a b\n" * 10).encode()))
    refused(clip(tmp_path / "short.gz"), "has 10 pairs where 48894 are needed")
    (tmp_path / "unknown.gz").write_bytes(gzip.compress((head + "a b\n" + "never made\n" * 48893).encode()))
    refused(clip(tmp_path / "unknown.gz"), "unknown.gz is not CLIP's")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(head.encode() * 99)[:40])
    refused(clip(tmp_path / "cut.gz"), "cut.gz is not CLIP's")
    tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, [])).save(str(tmp_path / "other.json"))
    refused(trained(tmp_path / "other.json"), "was not written by train_bpe")


def test_without_the_extra_it_says_which(clip_file, bpe_file, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    bpe._loaded.cache_clear()
    for spec in (clip(clip_file), trained(bpe_file)):
        refused(spec, r"tokenizers .*pip install -e \.\[media\]")
    with pytest.raises(UserError, match=r"pip install -e \.\[media\]"):
        bpe.train_bpe(TEXTS, 300, tmp_path / "v.json")
    bpe._loaded.cache_clear()


def test_ids_are_shown_as_what_they_stand_for(clip_file, bpe_file):
    spec = trained(bpe_file)
    ids, count = encode("Zwölf owls!", spec)
    assert "".join(bpe.token_text(int(i), spec) for i in ids[:count]).startswith("‹Zw")
    spec = clip(clip_file)
    ids, count = encode("The owl's 2 eggs!", spec)
    assert "".join(bpe.token_text(int(i), spec) for i in ids[:count]) == "‹the owl 's 2 eggs ! ›"
