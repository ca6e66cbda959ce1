"""What benchmarks/media.py measures: prepared clips and videos with the detail of real ones, and a clock for stages."""

import contextlib
import functools
import io
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmr_jax.data.media.audio import read_audio
from mmr_jax.data.prepare.records import LAYOUT, Encoder, Schema
from mmr_jax.data.prepare.shards import _write_records as write_records  # as mmr prepare writes them

DATA = Path(os.environ.get("MMR_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
RATE = 16000
VIDEO_RATE = 25
TITLES = [f"Title {i}: a dog barks, somebody speaks and music plays (live in {1990 + i})" for i in range(64)]


class Stages:
    """Processor seconds of the whole process by stage; a stage that is called from another one counts for itself."""

    def __init__(self):
        self.seconds, self._stage, self._since = Counter(), "rest", time.process_time()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What happens inside belongs to `name`."""
        outer = self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def timed(self, name: str, function: Callable) -> Callable:
        """`function`, its time counted as `name`."""

        @functools.wraps(function)
        def run(*args, **kwargs):
            with self.stage(name):
                return function(*args, **kwargs)

        return run

    def stepped(self, name: Callable[..., str], generator: Callable) -> Callable:
        """The same for a generator; `name` is a function of its arguments."""

        def run(*args):
            items, end = generator(*args), object()
            while True:
                with self.stage(name(*args)):
                    item = next(items, end)
                if item is end:
                    return
                yield item

        return run

    def _switch(self, name: str) -> str:
        now, outer = time.process_time(), self._stage
        self.seconds[outer] += now - self._since
        self._stage, self._since = name, now
        return outer


@functools.cache
def pictures() -> list[Image.Image]:
    """Photographs; where there are none, noise with the spectrum of photographs."""
    files = sorted((DATA / "captioned_images" / "images").glob("*.jpg"))
    if files:
        return [Image.open(file).convert("RGB") for file in files[:48]]
    frequency = np.hypot(np.fft.fftfreq(480)[:, None], np.fft.rfftfreq(640)[None]) + 1 / 640
    rng = np.random.default_rng(0)
    waves = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(3, 480, 640))) / frequency) for _ in range(16)]
    return [Image.fromarray(np.uint8(np.clip(128 + 45 * w / w.std(), 0, 255)).transpose(1, 2, 0)) for w in waves]


@functools.cache
def sounds() -> list[np.ndarray]:
    """Recordings int16 of several seconds; where there are none, noise."""
    files = sorted((DATA / "esc10" / "audio").glob("*.flac"))[::9][:24]
    return [read_audio(f, RATE).pcm for f in files] or [np.random.default_rng(0).normal(0, 3000, 5 * RATE).astype("i2")]


def sound(i: int, samples: int) -> np.ndarray:
    """int16 [samples] from recording i on."""
    return np.resize(np.concatenate([sounds()[(i + k) % len(sounds())] for k in range(6)]), samples)


def origin() -> str:
    """Where pictures and sounds come from, for the line below the table."""
    return "photographs and recordings" if (DATA / "captioned_images").is_dir() else "pictures and sounds of noise"


def moving(i: int, count: int, size: tuple[int, int]) -> Iterator[Image.Image]:
    """`count` frames of `size` (width, height): a 16:9 window that moves over picture i, 1 % of it in 1/25 s."""
    picture = pictures()[i % len(pictures())]
    wide = 0.7 * min(picture.width, picture.height * 16 / 9)
    for phase in np.linspace(0, 1, count):
        x, y = phase * (picture.width - wide), phase * (picture.height - wide * 9 / 16)
        yield picture.resize(size, Image.Resampling.BICUBIC, box=(x, y, x + wide, y + wide * 9 / 16))


def prepared(folder: Path, clips: int, seconds: int, frames: int, short_side: int) -> Path:
    """A prepared folder with one split of AudioSet-shaped clips, JPEG quality 90."""
    folder.mkdir()
    schema = Schema({"labels": tuple(f"class {i}" for i in range(527))}, ("text",))
    encoder = Encoder(schema.features)
    examples = (_example(i, seconds, frames, (round(short_side * 16 / 9), short_side)) for i in range(clips))
    write_records(folder / "speed-train.array_record-00000-of-00001", map(encoder.encode, examples))
    where = dict(dataset_name="speed", split="train", filetype_suffix="array_record")
    template = tfds.core.ShardedFileTemplate(data_dir=str(folder), **where)
    split = tfds.core.SplitInfo(name="train", shard_lengths=[clips], num_bytes=1, filename_template=template)
    meta = dict(features=schema.features, split_infos=[split], description="", check_data=False)
    tfds.folder_dataset.write_metadata(data_dir=str(folder), **meta)
    (folder / "prepared.json").write_text(json.dumps({"schema": LAYOUT, "name": "speed"}))
    return folder


def _example(i: int, seconds: int, frames: int, size: tuple[int, int]) -> dict:
    none = np.zeros(0, np.float32)
    return {
        "id": f"clip{i}",
        "source": f"video{i}",
        "frames": [_jpeg(picture) for picture in moving(i, frames, size)],
        "frame_times": np.arange(frames, dtype=np.float32),
        "audio": sound(i, seconds * RATE),
        "texts": {"text": [TITLES[i % len(TITLES)]]},
        "labels": {"labels": (none.astype(np.int64), none, none)},
        "duration": float(seconds),
    }


def _jpeg(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()


def video(path: Path, i: int, seconds: int, size: tuple[int, int]) -> Path:
    """An mp4 of H.264 and AAC, 44.1 kHz stereo."""
    with av.open(str(path), "w") as out:
        track = out.add_stream("libx264", rate=VIDEO_RATE, options={"preset": "veryfast", "crf": "23"})
        track.width, track.height, track.pix_fmt = *size, "yuv420p"
        audio = out.add_stream("aac", rate=44100, layout="stereo")
        for picture in moving(i, seconds * VIDEO_RATE, size):
            out.mux(track.encode(av.VideoFrame.from_image(picture)))
        out.mux(track.encode())
        wave = sound(i, seconds * 44100).astype(np.float32) / 32768
        for begin in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(np.stack([wave[begin : begin + 1024]] * 2), "fltp", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = 44100, begin, Fraction(1, 44100)
            out.mux(audio.encode(frame))
        out.mux(audio.encode())
    return path
