"""Small media files and listings of them, and what is needed to compare and to break runs of mmr prepare."""

import io
import os
import signal
import time
import wave
from pathlib import Path

import numpy as np
from PIL import Image

from mmr_jax.data.prepare.listing import Clip, Label, LabelSet, Listing
from mmr_jax.data.prepare.settings import Settings
from mmr_jax.data.prepare.shards import merge_shard, write_piece

SMALL = Settings(frames=2, short_side=16, rate=8000, quality=80)
CLASSES = ("cat", "dog", "owl")


def write_wav(path, seconds=0.5, rate=8000, seed=0):
    pcm = np.random.default_rng(seed).integers(-9000, 9000, round(seconds * rate)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(pcm.tobytes())
    return pcm


def write_jpeg(path, seed=0):
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24, 32, 3), np.uint8)).save(path, "JPEG")


def write_mp4(path, seconds=1.0, video=True, audio=True, seed=0):
    """10 frames a second of 32 x 24 pixels, sound at 8 kHz."""
    import av

    rng = np.random.default_rng(seed)
    with av.open(str(path), "w", format="mp4") as out:
        if video:
            stream = out.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        if audio:
            sound = out.add_stream("aac", rate=8000, layout="mono")
        if video:
            for _ in range(round(10 * seconds)):
                image = np.full((24, 32, 3), rng.integers(0, 255, 3), np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            out.mux(stream.encode(None))
        if audio:
            samples = rng.uniform(-0.2, 0.2, (1, round(8000 * seconds))).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate = 8000
            out.mux(sound.encode(frame))
            out.mux(sound.encode(None))


def wavs(folder, count, split="train", seconds=0.2):
    """`count` clips of sound, each with a text and one or two labels."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for i in range(count):
        write_wav(folder / f"{split}{i}.wav", seconds, seed=i)
        labels = tuple(Label(c) for c in CLASSES[: 1 + i % 2])
        clips.append(
            Clip(f"{split}-{i}", split, f"{split}{i}.wav", texts={"text": (f"clip {i}",)}, labels={"labels": labels})
        )
    return clips


def listing(clips, modalities=("audio", "text"), **more):
    sets = {"labels": LabelSet(CLASSES, True, "map")}
    return Listing("sounds", "Sounds", list(clips), modalities, sets, ("text",) * ("text" in modalities), **more)


def directly(job, shards, progress):
    """All the work in this process, where it does not matter who does it: starting others takes longer."""
    for shard, pieces in shards.items():
        for piece in pieces:
            progress.add(write_piece(job, piece))
        progress.add(merge_shard(job, shard, pieces))


def write_manifest(path, rows):
    """A csv manifest of rows (bytes or str)."""
    lines = [row if isinstance(row, bytes) else row.encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def contents(folder):
    """{path: bytes} of every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def mean_pixel(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)), float).mean()


class Deadly(str):
    """A path that kills the first `times` processes that it is sent to, by default as a codec's fault would.

    `number` 0 has them sleep instead.
    """

    def __new__(cls, path, counter, times, number=signal.SIGSEGV):
        self = super().__new__(cls, path)
        self.more = (str(counter), times, int(number))
        return self

    def __reduce__(self):
        return _arrive, (str(self), *self.more, os.getpid())


def _arrive(path, counter, times, number, home):
    if os.getpid() != home:
        deaths = Path(counter).stat().st_size if Path(counter).exists() else 0
        if deaths < times:
            with open(counter, "ab") as file:
                file.write(b".")
            harm(number)
    return Deadly(path, counter, times, number)


def harm(number):
    """Ends this process by a signal; 0: never returns."""
    if number:
        os.kill(os.getpid(), number)
    time.sleep(1000)


def fail_at_three(number):
    """A task for tests of the pool."""
    if number == 3:
        harm(signal.SIGSEGV)
    if number == 33:
        harm(0)
    if number == 13:
        raise OSError(28, "No space left on device", "there")
    return number * number


def die(*_):
    harm(signal.SIGSEGV)
