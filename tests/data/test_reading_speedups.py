"""The quick ways of reading prepared data give what the plain ones give."""

import io

import numpy as np
import prepared_files as files
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from mmr_jax.data.prepare.records import Decoder, Encoder, Schema
from mmr_jax.data.prepared.inputs import read_video


class AsBytes(tfds.decode.SkipDecoding):
    def decode_batch_example_np(self, serialized):
        return serialized


@pytest.mark.parametrize("changes", [{}, {"frames": 0, "samples": 0, "texts": ()}, {"frames": 1, "sounds": (0, 1)}])
def test_records_are_decoded_as_tfds_decodes_them(changes):
    features = Schema(files.CLASSES, ("text", "no_label")).features
    record = Encoder(features).encode(files.example(3, **changes))
    found = Decoder(features).decode(record)
    expected = features.deserialize_example_np(record, decoders={"frames": AsBytes()})
    assert found["frames"] == list(expected["frames"]) and found["duration"] == expected["duration"]
    assert [found[key].encode() for key in ("id", "source")] == [expected[key] for key in ("id", "source")]
    for key in ("audio", "frame_times"):
        np.testing.assert_array_equal(found[key], expected[key], strict=True)
    for name, texts in expected["texts"].items():
        assert [text.encode() for text in found["texts"][name]] == list(texts)
    for name, values in expected["labels"].items():
        for one, key in zip(found["labels"][name], ("name", "start", "end"), strict=True):
            np.testing.assert_array_equal(one, values[key])


@pytest.mark.parametrize("place", [0.0, 0.37, 0.999])
@pytest.mark.parametrize("size", [(96, 96), (160, 160), (120, 60)])
def test_a_window_is_scaled_as_the_whole_picture_is(size, place):
    jpeg = files.jpeg(1, 128, 228)
    out = np.zeros((1, *size, 3), np.uint8)
    read_video({"frames": [jpeg]}, {"frames": 1}, np.full(4, place), out)
    whole = Image.open(io.BytesIO(jpeg)).convert("RGB")
    scale = max(size[0] / whole.height, size[1] / whole.width)
    whole = whole.resize((round(whole.width * scale), round(whole.height * scale)), Image.Resampling.BILINEAR)
    left, top = (round(place * spare) for spare in (whole.width - size[1], whole.height - size[0]))
    expected = np.asarray(whole)[top : top + size[0], left : left + size[1]].astype(int)
    assert np.abs(out[0] - expected).max() <= 1  # places are rounded to float32 on the way
