"""avdigits as a TFDS data set in ArrayRecord files, prepared and read without TensorFlow.

TFDS's own Audio feature needs TensorFlow, hence audio is a Tensor of PCM samples; images are PNG bytes.
"""

import contextlib
import errno
import io
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmr_jax.data import avdigits_raw as raw
from mmr_jax.errors import UserError

SPLITS = ("train", "val", "test", "mnist_test")
_LAYOUT = 1  # of the prepared files; part of the folder's name
_QUIET = threading.Lock()  # redirecting stdout concerns the whole process


class AvDigits(tfds.core.GeneratorBasedBuilder):
    """Spoken digits (FSDD) paired with written ones (MNIST); `mnist_test` has images alone."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, root: str, **kwargs: Any):
        self._root = Path(root)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "audio": tfds.features.Tensor(shape=(None,), dtype=np.int16),  # 8 kHz PCM
            "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=10),
            "speaker": tfds.features.Text(),
            "id": tfds.features.Text(),  # FSDD's name of the clip, or MNIST's row
            "index": tfds.features.Scalar(dtype=np.int32),  # FSDD's number of the clip, or MNIST's row
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Spoken digits (FSDD) paired with handwritten digits (MNIST) of the same class.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # records keep the order of the pairing
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        pairs, images = raw.read_pairs(self._root), raw.read_images(self._root)
        test_labels = raw.read_labels(self._root)["test"].tolist()
        splits = {s: self._pairs([p for p in pairs if p.split == s], images) for s in SPLITS[:3]}
        splits["mnist_test"] = _images(images["test"], test_labels)
        return {split: self._generate_examples(examples) for split, examples in splits.items()}

    def _generate_examples(self, examples: Iterator[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        return enumerate(examples)

    def _pairs(self, pairs: list[raw.Pair], images: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
        for pair in pairs:
            yield {
                "audio": raw.read_wav(self._root / pair.audio),
                "image": _png(images[pair.image_set][pair.image]),
                "label": pair.digit,
                "speaker": pair.speaker,
                "id": pair.name,
                "index": pair.index,
            }


class PreparedSplit:
    """Examples of one prepared split, by random access; damage is a UserError that names the file."""

    def __init__(self, folder: Path, split: str):
        self._folder = folder
        try:
            builder = tfds.builder_from_directory(str(folder))
            self._files = [str(path) for path in builder.info.splits[split].filepaths]
            self._data = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        except Exception as error:  # TFDS raises anything, from KeyError to its own types
            raise UserError(f"{folder} holds no intact prepared data: {error}; {self._advice()}") from error
        for file in self._files:
            if not os.path.isfile(file):
                raise UserError(f"{file} is missing; {self._advice()}")

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """audio int16 `[samples]`, image uint8 `[28, 28, 1]`, label int, index int, speaker and id str."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        try:
            example = self._data[index]
            image = np.array(Image.open(io.BytesIO(example["image"])))[..., None]
        except Exception as error:  # what a damaged file raises depends on where it is damaged
            reason = str(error).split("; ")[0]
            raise UserError(
                f"{', '.join(self._files)}: record {index} cannot be read ({reason}); {self._advice()}"
            ) from error
        return {
            "audio": np.asarray(example["audio"], np.int16),
            "image": image,
            "label": int(example["label"]),
            "index": int(example["index"]),
            "speaker": example["speaker"].decode(),
            "id": example["id"].decode(),
        }

    def _advice(self) -> str:
        return f"delete the folder {self._folder} and it is built again"


def prepare(root: Path, cache: Path) -> Path:
    """Builds the data set from `root` unless it is there; returns its folder.

    The folder's name holds a digest of the raw files, so a changed root is built anew. A build becomes
    visible by one rename: it is there in full or not at all, whoever else builds at the same time.
    """
    folder = cache / f"avdigits-{_LAYOUT}-{raw.content_digest(root, raw.check_files(root))}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=cache))
    try:
        with _QUIET, contextlib.redirect_stdout(io.StringIO()):  # TFDS announces itself by print
            tfds.disable_progress_bar()
            builder = AvDigits(root=str(root), data_dir=str(work), file_format="array_record")
            builder.download_and_prepare()
        os.rename(builder.data_dir, folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # else another process was faster
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _png(image: np.ndarray) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    buffer.seek(0)
    return buffer


def _images(images: np.ndarray, labels: list[int]) -> Iterator[dict[str, Any]]:
    """Examples without audio."""
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        example = {"audio": np.zeros(0, np.int16), "image": _png(image), "label": label, "speaker": ""}
        yield example | {"id": f"mnist_{row}", "index": row}
