"""Records: what goes in comes out, and equal examples are equal bytes in every process."""

import hashlib
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mmr_jax.data.prepare import records
from mmr_jax.errors import UserError

SCHEMA = records.Schema({"labels": ("a", "b c", "é|,"), "per_second": ("x", "y")}, ("text", "title"))


def example(frames=2, samples=5, texts=("hé", "b"), labels=2):
    rng = np.random.default_rng(0)
    return {
        "id": "clip é",
        "source": "video",
        "frames": [jpeg(rng) for _ in range(frames)],
        "frame_times": np.arange(frames, dtype=np.float32) + 0.25,
        "audio": rng.integers(-32768, 32767, samples).astype(np.int16),
        "texts": {"text": list(texts), "title": []},
        "labels": {
            "labels": (
                np.array([2, 0][:labels], np.int64),
                np.float32([0, 1.5][:labels]),
                np.float32([1.5, 3][:labels]),
            ),
            "per_second": (np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32)),
        },
        "duration": 3.0,
    }


def jpeg(rng):
    data = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (8, 12, 3), np.uint8)).save(data, "JPEG")
    return data.getvalue()


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert [a[k] for k in ("id", "source", "frames", "texts", "duration")] == [
        b[k] for k in ("id", "source", "frames", "texts", "duration")
    ]
    for name in ("frame_times", "audio"):
        np.testing.assert_array_equal(a[name], b[name], strict=True)
    for name, values in a["labels"].items():
        for one, other in zip(values, b["labels"][name], strict=True):
            np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("sizes", [(2, 5, ("hé", "b"), 2), (0, 0, (), 0), (1, 1, ("",), 1)])
def test_round_trip(sizes):
    given = example(*sizes)
    record = records.Encoder(SCHEMA.features).encode(given)
    assert_same(given, records.Decoder(SCHEMA.features).decode(record))


def test_round_trip_with_features_from_the_folder(tmp_path):
    SCHEMA.features.save_config(str(tmp_path))
    features = records.features_of(tmp_path)
    assert records.class_names(features) == SCHEMA.classes
    assert_same(example(), records.Decoder(features).decode(records.Encoder(features).encode(example())))


def test_no_label_sets_and_no_texts():
    schema = records.Schema({}, ())
    given = {**example(), "texts": {}, "labels": {}}
    assert_same(given, records.Decoder(schema.features).decode(records.Encoder(schema.features).encode(given)))


def test_equal_bytes_in_another_process():
    code = (
        "import sys; sys.path.insert(0, 'tests/data/prepare'); import hashlib, test_prepare_records as t;"
        "print(hashlib.sha256(t.records.Encoder(t.SCHEMA.features).encode(t.example())).hexdigest(),"
        "'tensorflow' in sys.modules)"
    )
    here = hashlib.sha256(records.Encoder(SCHEMA.features).encode(example())).hexdigest()
    for _ in range(2):
        there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert there.stdout.split() == [here, "False"]


def test_damage_is_a_value_error():
    record = records.Encoder(SCHEMA.features).encode(example())
    with pytest.raises(ValueError, match="no record"):
        records.Decoder(SCHEMA.features).decode(record[: len(record) // 2])
    with pytest.raises(ValueError, match="no record"):
        records.Decoder(SCHEMA.features).decode(b"")


def test_folders_that_are_no_prepared_set(tmp_path):
    with pytest.raises(UserError, match="no prepared data set"):
        records.read_info(tmp_path)
    with pytest.raises(UserError, match=r"features\.json"):
        records.features_of(tmp_path)
    (tmp_path / "prepared.json").write_text('{"schema": 0}')
    with pytest.raises(UserError, match="schema 0"):
        records.read_info(tmp_path)
