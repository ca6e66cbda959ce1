"""Records of a prepared data set: the TFDS features, and examples to bytes and back without TensorFlow.

An example is

    {"id": str, "source": str, "duration": float seconds,
     "frames": list[bytes] of JPEG, "frame_times": float32 [frames] seconds from the clip's start,
     "audio": int16 [samples] mono, "texts": {set: list[str]},
     "labels": {set: (class int64 [k], start float32 [k], end float32 [k] seconds)}}

A modality that is absent has no frames, no samples or no texts. Text is there if any of the text sets has one.
"""

import dataclasses
import functools
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.proto import tf_example_pb2

from mmr_jax.data.prepare.layout import INFO, LAYOUT
from mmr_jax.errors import UserError
from mmr_jax.files import read_json

MODALITIES = ("audio", "frames", "text")

Example = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Schema:
    """What the records of one data set hold: classes by label set, the names of its text sets."""

    classes: Mapping[str, tuple[str, ...]]
    texts: tuple[str, ...]
    modalities: tuple[str, ...] = MODALITIES

    @functools.cached_property
    def features(self) -> tfds.features.FeaturesDict:
        """The TFDS features of such records."""
        f = tfds.features
        return f.FeaturesDict(
            {
                "id": f.Text(),
                "source": f.Text(),
                "frames": f.Sequence(f.Image(encoding_format="jpeg")),
                "frame_times": f.Tensor(shape=(None,), dtype=np.float32),
                # As bytes: the default, a list of integers, takes ten times as long to read.
                "audio": f.Tensor(shape=(None,), dtype=np.int16, encoding=f.Encoding.BYTES),
                "texts": {name: f.Sequence(f.Text()) for name in self.texts},
                "labels": {name: _label_feature(names) for name, names in self.classes.items()},
                "duration": f.Scalar(np.float32),
            }
        )


def presence(example: Example) -> list[bool]:
    """Which of MODALITIES an example has."""
    return [len(example["audio"]) > 0, len(example["frames"]) > 0, any(example["texts"].values())]


class Encoder:
    """Examples to bytes; equal examples give equal bytes on every machine."""

    def __init__(self, features: tfds.features.FeaturesDict):
        self._features = features
        self._serializer = ExampleSerializer(features.get_serialized_info())

    def encode(self, example: Example) -> bytes:
        """The record of one example (see the module)."""
        labels = example["labels"].items()
        fields = {
            **example,
            "frames": [io.BytesIO(jpeg) for jpeg in example["frames"]],
            "labels": {name: dict(zip(("name", "start", "end"), values, strict=True)) for name, values in labels},
        }
        message = self._serializer.get_tf_example(self._features.encode_example(fields))
        return message.SerializeToString(deterministic=True)  # else the fields come in any order


class Decoder:
    """Bytes back to examples.

    The fields of the message are taken one by one: the way through TFDS takes three times as long, and holds up the
    other reading threads all the while.
    """

    def __init__(self, features: tfds.features.FeaturesDict):
        self._texts, self._labels = list(features["texts"]), list(features["labels"])

    def decode(self, record: bytes) -> Example:
        """The example of one record (see the module); frames stay JPEG. ValueError for what is no such record."""
        try:
            return self._example(tf_example_pb2.Example.FromString(record).features.feature)
        except Exception as error:  # protobuf raises what it likes
            raise ValueError(f"no record of this data set ({type(error).__name__}: {error})") from error

    def _example(self, fields: Any) -> Example:
        def values(key: str, kind: str) -> Any:
            if key not in fields or not fields[key].HasField(kind):
                raise ValueError(f"it has no {key} as {kind}")
            return getattr(fields[key], kind).value

        def label(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            start, end = (np.array(values(f"labels/{name}/{at}", "float_list"), np.float32) for at in ("start", "end"))
            return np.array(values(f"labels/{name}/name", "int64_list"), np.int64), start, end

        return {
            "id": values("id", "bytes_list")[0].decode(),
            "source": values("source", "bytes_list")[0].decode(),
            "frames": list(values("frames", "bytes_list")),
            "frame_times": np.array(values("frame_times", "float_list"), np.float32),
            "audio": np.frombuffer(values("audio", "bytes_list")[0], np.int16),
            "texts": {name: [t.decode() for t in values(f"texts/{name}", "bytes_list")] for name in self._texts},
            "labels": {name: label(name) for name in self._labels},
            "duration": values("duration", "float_list")[0],
        }


def features_of(folder: str | Path) -> tfds.features.FeaturesDict:
    """The features of a prepared folder; UserError if it is none."""
    try:
        return tfds.features.FeaturesDict.from_config(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}/features.json cannot be read ({error}); run mmr prepare again") from None


def class_names(features: tfds.features.FeaturesDict) -> dict[str, tuple[str, ...]]:
    """Classes by label set."""
    return {name: tuple(labels["name"].names) for name, labels in sorted(features["labels"].items())}


def read_info(folder: str | Path) -> dict[str, Any]:
    """prepared.json of a prepared folder; UserError if it is none, or of another layout."""
    path = Path(folder) / INFO
    if not path.is_file():
        raise UserError(f"{folder} is no prepared data set: it has no {INFO}; mmr prepare --out={folder} makes one")
    info = read_json(path)
    if not isinstance(info, dict) or info.get("schema") != LAYOUT:
        found = info.get("schema") if isinstance(info, dict) else None
        raise UserError(f"{path} has schema {found!r}, and this version reads {LAYOUT}; run mmr prepare again")
    return info


def _label_feature(names: tuple[str, ...]) -> tfds.features.Sequence:
    f = tfds.features
    return f.Sequence(
        {"name": f.ClassLabel(names=list(names)), "start": f.Scalar(np.float32), "end": f.Scalar(np.float32)}
    )
