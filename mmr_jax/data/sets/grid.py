"""GRID: talkers who speak sentences of six words; each word is a label, and texts leave it out."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mmr_jax.data.prepare import tables
from mmr_jax.data.prepare.listing import Clip, Collector, Label, Listing, encodable, label_set
from mmr_jax.data.sets.files import Media, find_media, need
from mmr_jax.errors import UserError
from mmr_jax.seeds import fold_seed

TITLE = "GRID"
WORDS = ("command", "color", "preposition", "letter", "digit", "adverb")  # in the order of the sentence
COLUMNS = ("file", "id", "speaker", "text", "split")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SILENCE = ("sil", "sp")


class _Utterance(NamedTuple):
    talker: str
    name: str
    words: tuple[str, ...]
    split: str
    media: str
    row: tables.Row
    path: Path


def listing(labels: Path, media: Path) -> Listing:
    """From index.csv, else from the publisher's {utterance}.align in folders by talker. Metric top-1.

    Label sets: each of the six words, and "talker". Text sets: "text", and for each word X "no_X", the sentence without
    it. The publisher has no splits: without index.csv a digest of talker and utterance puts one in four into "test".
    """
    index = labels / "index.csv"
    aligned = [] if index.is_file() else sorted(labels.rglob("*.align"))
    if not aligned:
        need(labels, TITLE, "index.csv", "{talker}/align/{utterance}.align")
    origin = "a digest of the name, 3 to 1" if aligned else index.name
    collected = Collector()
    for utterance in _of_alignments(aligned, labels, find_media(media)) if aligned else _of_index(index):
        collected.add(_clip(utterance), utterance.path.name, utterance.row.line, utterance.row.intact)
    return Listing(
        name="grid",
        title=TITLE,
        clips=collected.clips,
        modalities=("audio", "frames", "text"),
        label_sets={name: label_set(collected.clips, name) for name in (*WORDS, "talker")},
        texts=("text", *(f"no_{name}" for name in WORDS)),
        notes=("Cooke et al. 2006, CC BY 4.0", f"splits by {origin}"),
        problems=collected.problems,
    )


def _clip(said: _Utterance) -> Clip:
    labels = {name: (Label(_value(word)),) for name, word in zip(WORDS, said.words, strict=True)}
    texts = {"text": (" ".join(said.words),)}
    for k, name in enumerate(WORDS):
        texts[f"no_{name}"] = (" ".join(said.words[:k] + said.words[k + 1 :]),)
    return Clip(
        id=f"{said.talker}_{said.name}",
        split=said.split,
        media=said.media,
        texts=texts,
        labels=labels | {"talker": (Label(said.talker),)},
    )


def _value(word: str) -> str:
    return str(DIGITS.index(word)) if word in DIGITS else word


def _of_index(path: Path) -> Iterator[_Utterance]:
    for row in tables.table(path, COLUMNS):
        file, name, talker, text, split = (row.cells[column] for column in COLUMNS)
        yield _Utterance(talker, name, _words(text, f"{path} line {row.line}"), split, file, row, path)


def _of_alignments(paths: list[Path], labels: Path, found: Media) -> Iterator[_Utterance]:
    for path in paths:
        parts = [part for part in path.relative_to(labels).parts[:-1] if part not in ("align", "alignments")]
        if not parts:
            raise UserError(f"{path} must lie in a folder named after its talker, as s1/align/{path.name}")
        folder, stem = parts[-1], path.stem
        talker, name = encodable(folder), encodable(stem)
        lines = [line.cells[-1] for line in tables.csv_rows(path, " ")]
        words = _words(" ".join(word for word in lines if word not in _SILENCE), str(path))
        split = "train" if fold_seed(0, "grid", talker, name) % 4 else "test"
        files = [file for file in found.get(stem, ()) if folder in PurePosixPath(file).parts]
        media = files[0] if files else f"{folder}/{stem}.mpg"
        yield _Utterance(talker, name, words, split, media, tables.Row(1, [], True), path)


def _words(text: str, where: str) -> tuple[str, ...]:
    words = tuple(text.split())
    if len(words) != len(WORDS) or words[WORDS.index("digit")] not in DIGITS:
        raise UserError(f"{where}: {text!r} is no sentence of GRID ({', '.join(WORDS)})")
    return words
