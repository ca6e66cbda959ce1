"""The raw files behind avdigits: FSDD's recordings, MNIST's idx files and the pairing of the two.

<root>/fsdd/recordings/{digit}_{speaker}_{index}.wav    8 kHz, mono, 16 bit
<root>/mnist/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz
<root>/avdigits/all.csv                                 the pairing; made up by a fixed rule if absent
"""

import csv
import dataclasses
import gzip
import hashlib
import struct
import wave
import zlib
from pathlib import Path

import numpy as np

from mmr_jax.errors import UserError
from mmr_jax.seeds import fold_seed

RATE = 8000
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
CLIPS = 50  # per speaker and digit
IMAGES = {"train": "train-images-idx3-ubyte.gz", "test": "t10k-images-idx3-ubyte.gz"}
LABELS = {"train": "train-labels-idx1-ubyte.gz", "test": "t10k-labels-idx1-ubyte.gz"}
RECORDINGS = "fsdd/recordings"
PAIRING = "avdigits/all.csv"
_IDX_DTYPE = 8  # idx code of unsigned bytes


@dataclasses.dataclass(frozen=True)
class Pair:
    """A spoken and a written digit: paths relative to the root, `image` a row of MNIST's `image_set`."""

    name: str
    digit: int
    speaker: str
    index: int
    split: str  # train, val or test
    audio: str
    image_set: str  # train or test
    image: int


def check_files(root: Path) -> list[str]:
    """The files to build from, relative to `root`. A UserError tells what is absent."""
    if not root.is_dir():
        raise UserError(
            f"data folder {root} does not exist; set --config.data.root (or MMR_DATA) to the folder "
            "that holds fsdd/ and mnist/, or --config.data.download=True where there is a network"
        )
    wanted = [f"mnist/{file}" for files in (IMAGES, LABELS) for file in files.values()]
    wanted += [f"{RECORDINGS}/{name}.wav" for name in clip_names()]
    missing = [file for file in wanted if not (root / file).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more files" if len(missing) > 1 else ""
        raise UserError(f"data folder {root} is incomplete: {missing[0]} is missing{more}")
    return wanted + [PAIRING] * (root / PAIRING).is_file()


def clip_names() -> list[str]:
    """The names of FSDD's clips, without extension."""
    return [f"{d}_{speaker}_{i}" for d in range(10) for speaker in SPEAKERS for i in range(CLIPS)]


def content_digest(root: Path, files: list[str]) -> str:
    """12 hex digits that name the content of `files`."""
    digest = hashlib.blake2b(digest_size=6)
    for file in files:
        data = (root / file).read_bytes()
        digest.update(f"{file} {len(data)} ".encode())
        digest.update(data)
    return digest.hexdigest()


def read_wav(path: Path) -> np.ndarray:
    """PCM int16 `[samples]` of an 8 kHz mono 16-bit wav file."""
    try:
        with wave.open(str(path)) as file:
            shape = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            frames, data = file.getnframes(), file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise UserError(f"{path} is damaged or no wav file: {error or 'it ends too early'}") from error
    if shape != (1, 2, RATE):
        raise UserError(
            f"{path} has {shape[0]} channels of {8 * shape[1]} bit at {shape[2]} Hz; needed: mono, 16 bit, {RATE} Hz"
        )
    if len(data) != 2 * frames:
        raise UserError(f"{path} is truncated: {len(data) // 2} of {frames} samples")
    return np.frombuffer(data, "<i2").astype(np.int16)


def read_idx(path: Path) -> np.ndarray:
    """uint8 array of a gzipped idx file, of the shape that its header tells."""
    try:
        data = gzip.decompress(path.read_bytes())
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path} is truncated or damaged: {error}") from error
    if len(data) < 4 or data[:3] != bytes((0, 0, _IDX_DTYPE)) or len(data) < 4 + 4 * data[3]:
        raise UserError(f"{path} is no idx file of unsigned bytes")
    start = 4 + 4 * data[3]
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    values = np.frombuffer(data, np.uint8, offset=start)
    if values.size != np.prod(shape):
        raise UserError(f"{path} holds {values.size} values; its header promises {' x '.join(map(str, shape))}")
    return values.reshape(shape)


def read_labels(root: Path) -> dict[str, np.ndarray]:
    """MNIST's labels uint8 `[n]` by set ("train", "test")."""
    return {name: read_idx(root / "mnist" / file) for name, file in LABELS.items()}


def read_images(root: Path) -> dict[str, np.ndarray]:
    """MNIST's images uint8 `[n, 28, 28]` by set ("train", "test")."""
    return {name: read_idx(root / "mnist" / file) for name, file in IMAGES.items()}


def read_pairs(root: Path) -> list[Pair]:
    """The pairs, by the csv file or by rule; an image shows the digit that is spoken and is used once."""
    labels = read_labels(root)
    path = root / PAIRING
    pairs = _pairs_of_csv(path) if path.is_file() else _pairs_by_rule(labels)
    for pair in pairs:
        known = labels[pair.image_set]
        if pair.image >= len(known) or known[pair.image] != pair.digit:
            raise UserError(f"{path}: {pair.name} is paired with {pair.image_set} image {pair.image}, no {pair.digit}")
    if len({(pair.image_set, pair.image) for pair in pairs}) != len(pairs):
        raise UserError(f"{path} pairs an image with two clips")
    return pairs


def _pairs_of_csv(path: Path) -> list[Pair]:
    image_sets = {f"mnist/{file}": name for name, file in IMAGES.items()}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        return [
            Pair(
                row["id"],
                int(row["digit"]),
                row["speaker"],
                int(row["fsdd_index"]),
                row["split3"],
                row["audio"],
                image_sets[row["mnist_file"]],
                int(row["mnist_index"]),
            )
            for row in rows
        ]
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no pairing of avdigits: {type(error).__name__}: {error}") from error


def _pairs_by_rule(labels: dict[str, np.ndarray]) -> list[Pair]:
    """Every clip gets an image of its own; test clips take MNIST's test images."""
    free = {(s, d): _shuffled(s, d, labels[s]) for s in labels for d in range(10)}
    pairs = []
    for name in clip_names():
        digit, speaker, index = name.split("_")
        split = split_of(int(index))
        image_set = "test" if split == "test" else "train"
        images = free[image_set, int(digit)]
        if not images:
            raise UserError(f"MNIST's {image_set} set has too few images of {digit} to pair with FSDD's clips")
        audio = f"{RECORDINGS}/{name}.wav"
        pairs.append(Pair(name, int(digit), speaker, int(index), split, audio, image_set, images.pop()))
    return pairs


def split_of(index: int) -> str:
    """FSDD's official test clips are 0-4; of the rest, 5-9 serve as validation."""
    return "test" if index < 5 else "val" if index < 10 else "train"


def _shuffled(image_set: str, digit: int, labels: np.ndarray) -> list[int]:
    return sorted(np.flatnonzero(labels == digit).tolist(), key=lambda i: fold_seed(0, image_set, digit, i))
