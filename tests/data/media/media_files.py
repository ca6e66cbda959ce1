"""Makes small media files whose every frame and sample is known."""

import io
import os
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

REAL = Path(os.environ.get("MMR_DATA") or Path(__file__).parents[4] / "shared" / "data")
HEIGHT, WIDTH, BITS = 48, 96, 12
TICKS = 12_800  # of the time stamps of frames, per second
H264 = {"g": "12", "bf": "2", "preset": "ultrafast", "crf": "10"}  # ultrafast alone has no B-frames


def tones(rate, seconds, channels=1, seed=0):
    """float32 [channels, n]: a few tones below 3 kHz and quiet noise, of its own for each channel."""
    rng, time = np.random.default_rng(seed), np.arange(round(rate * seconds)) / rate
    tone = [[np.sin(2 * np.pi * f * time + f) for f in rng.uniform(100, 3000, 4)] for _ in range(channels)]
    return (0.12 * np.sum(tone, 1) + 0.01 * rng.standard_normal((channels, len(time)))).astype(np.float32)


def click(rate, seconds, at):
    """float32 [1, n]: silence but for 20 ms of noise that begins at `at` seconds."""
    sound, begin = np.zeros((1, round(rate * seconds)), np.float32), round(rate * at)
    sound[0, begin : begin + rate // 50] = np.random.default_rng(0).uniform(-0.7, 0.7, rate // 50)
    return sound


def write_wav(path, samples, rate, width=2):
    """A WAV file of integer `samples` [n] or [n, channels] of `width` bytes."""
    samples = np.atleast_2d(np.asarray(samples).T).T
    raw = samples.astype("<u1") if width == 1 else samples.astype("<i4")
    data = raw.tobytes() if width in (1, 4) else raw[..., None].view("u1")[..., :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setparams((samples.shape[1], width, rate, 0, "NONE", ""))
        file.writeframes(data)
    return path


def numbered(index, height=HEIGHT, width=WIDTH):
    """uint8 [height, width, 3] that shows `index` in black and white stripes, which `number_of` reads."""
    bits = [255 * ((index >> b) & 1) for b in range(BITS)]
    return np.broadcast_to(np.repeat(bits, width // BITS)[None, :, None], (height, width, 3)).astype(np.uint8)


def number_of(jpeg):
    """The index that a numbered frame shows."""
    row = pixels(jpeg)[:, :, 0].mean(0).reshape(BITS, -1).mean(1)
    return sum(1 << b for b in range(BITS) if row[b] > 128)


def pixels(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)


def write_media(path, frames=(), sounds=(), rate=44100, codecs=("libx264", "aac"), delay=0.0, lead=0.0, **options):
    """A container of `frames` [(seconds, uint8 image)] (or [] for a track of none, () for no track) and `sounds`.

    `sounds` are float32 [channels, n], a track each, `delay` seconds late; `lead` is added to the time of frames;
    `options`: `mux` and `video` are dicts of libav's, `rotation` in degrees, `prepare` is called with the stream.
    """
    with av.open(str(path), "w", options=options.get("mux", {})) as out:
        video = None if frames == () else _video_track(out, frames, codecs[0], options)
        tracks = [_audio_track(out, sound, rate, codecs[1]) for sound in sounds]
        out.start_encoding()
        if video:
            _write_frames(out, video, frames, lead)
        for track, sound in zip(tracks, sounds, strict=True):
            _write_sound(out, track, sound, rate, delay)
    return path


def _video_track(out, frames, codec, options):
    video = out.add_stream(codec, rate=25, options=options.get("video", H264 if codec == "libx264" else {}))
    video.height, video.width = frames[0][1].shape[:2] if frames else (HEIGHT, WIDTH)
    video.pix_fmt = options.get("pixels", "yuv420p")
    if codec == "libx264":
        video.codec_context.time_base = Fraction(1, TICKS)  # for frames at any time
    if "rotation" in options:
        video.set_display_rotation(options["rotation"])
    if "prepare" in options:
        options["prepare"](video)
    return video


def _audio_track(out, sound, rate, codec):
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(sound)]
    exact = {"aac_pns": "0"} if codec == "aac" else {}  # noise that is drawn at decoding differs after a seek
    return out.add_stream(codec, rate=rate, layout=layout, options=exact)


def _write_frames(out, video, frames, lead):
    base = video.codec_context.time_base
    for time, image in frames:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = round((time + lead) / base), base
        out.mux(video.encode(frame))
    if frames:
        out.mux(video.encode())


def _write_sound(out, track, sound, rate, delay):
    size = track.codec_context.frame_size or 1024
    for begin in range(0, sound.shape[1], size):
        frame = _audio_frame(track, sound[:, begin : begin + size], rate)
        frame.pts, frame.time_base = begin + round(delay * rate), Fraction(1, rate)
        out.mux(track.encode(frame))
    if sound.shape[1]:
        out.mux(track.encode())


def _audio_frame(track, block, rate):
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=track.layout.name)
    frame.sample_rate = rate
    if track.format.name == "fltp":
        return frame
    converted = av.AudioResampler(format=track.format.name, layout=track.layout.name, rate=rate).resample(frame)[0]
    return converted


def steady(count, rate=25.0):
    """`count` numbered frames at `rate` per second."""
    return [(i / rate, numbered(i)) for i in range(count)]


def open_files():
    return len(os.listdir("/proc/self/fd"))
