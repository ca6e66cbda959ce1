import struct

import av
import media_files as made
import numpy as np
import pytest
from PIL import Image

from mmr_jax.data.media.errors import REASONS, MediaError
from mmr_jax.data.media.track import Track
from mmr_jax.data.media.video import read_frames

FAST = {"movflags": "faststart"}


def reason(path, count=4, short_side=32, **kwargs):
    with pytest.raises(MediaError) as caught:
        read_frames(path, count, short_side, **kwargs)
    assert caught.value.reason in REASONS
    return caught.value.reason


def numbers(frames):
    return [made.number_of(jpeg) for jpeg in frames.jpegs]


def expected(times, count, start, end):
    """Indices of the frames nearest to the middles of `count` equal parts, and the parts' length, by brute force."""
    middles = [start + (end - start) * (2 * i + 1) / (2 * count) for i in range(count)]
    return [[i for i, t in enumerate(times) if abs(t - m) <= np.abs(times - m).min() + 1e-4] for m in middles]


def check(path, times, count, start=0.0, end=None, last=None):
    """The frames' contents and their times agree, and are the nearest."""
    found = read_frames(path, count, 0, start, end)
    wanted = expected(np.asarray(times), count, start, last if end is None else end)
    for number, time, allowed in zip(numbers(found), found.times, wanted, strict=True):
        assert number in allowed
        assert time + start == pytest.approx(times[number], abs=1.5e-3)  # Matroska's milliseconds, rounded
    assert found.times.dtype == np.float32 and (found.height, found.width) == (made.HEIGHT, made.WIDTH)
    return found


SPANS = [(0.0, None), (0.0, 2.0), (0.53, 1.37), (5.0, 5.2), (8.3, 15.0), (19.0, None), (0.0, 20.0)]


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Twenty seconds at 25 frames per second with B-frames, as several containers, with sound."""
    folder, sound = tmp_path_factory.mktemp("long"), made.tones(44100, 20)
    codecs = {"a.mp4": ("libx264", "aac"), "a.mkv": ("libx264", "aac"), "a.ts": ("libx264", "aac")}
    codecs |= {"a.webm": ("libvpx", "libopus"), "a.mpg": ("mpeg2video", "mp2"), "fragmented.mp4": ("libx264", "aac")}
    paths = {}
    for name, pair in codecs.items():
        mux = {"movflags": "frag_keyframe+empty_moov+delay_moov"} if name == "fragmented.mp4" else {}
        fast = {"video": {"deadline": "realtime", "cpu-used": "8", "b": "2M", "g": "12"}} if name == "a.webm" else {}
        rate, audio = (48000, made.tones(48000, 20)) if pair[1] == "libopus" else (44100, sound)
        paths[name] = made.write_media(folder / name, made.steady(500), [audio], rate, pair, mux=mux, **fast)
    return paths


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "fragmented.mp4"])
def test_the_nearest_frames(long, name, span):
    found = check(long[name], np.arange(500) / 25, 8, *span, last=20.0)
    assert found.notes == (() if span[1] != 5.2 else ("fewer frames than asked for, some repeat",))


@pytest.mark.parametrize("span", SPANS[:5])
@pytest.mark.parametrize("name", ["a.ts", "a.mpg"])
def test_containers_that_begin_at_any_time(long, name, span):
    """Their time zero is where their first track begins, which is the sound here.

    A program stream does not stamp every frame; after a seek libav is half a frame off.
    """
    within = 0.0201 if name == "a.mpg" else 0.002
    with av.open(str(long[name])) as file:
        begin = file.streams.video[0].start_time * file.streams.video[0].time_base - file.start_time / 1e6
        assert file.start_time > 0
    found = read_frames(long[name], 8, 0, *span)
    for number, time in zip(numbers(found), found.times, strict=True):
        assert time + span[0] == pytest.approx(number / 25 + float(begin), abs=within)
    if span[1]:
        middles = (np.arange(8) + 0.5) * (span[1] - span[0]) / 8
        assert np.abs(found.times - middles).max() <= max(0.0205, float(begin) - middles[0])


def test_variable_frame_rate(tmp_path):
    rng = np.random.default_rng(0)
    times = np.round(np.cumsum(rng.choice([0.01, 0.04, 0.25, 1.1], 80)) * 1000) / 1000
    times -= times[0]
    path = made.write_media(tmp_path / "a.mp4", [(t, made.numbered(i)) for i, t in enumerate(times)])
    with av.open(str(path)) as file:
        last = float(file.streams.video[0].duration * file.streams.video[0].time_base)
    for span in [(0.0, None), (0.0, times[-1]), (3.3, 9.1), (times[40], times[41]), (times[60] + 0.003, times[70])]:
        check(path, times, 16, *map(lambda s: None if s is None else float(s), span), last=last)


def test_one_frame_in_the_middle(long):
    assert numbers(read_frames(long["a.mp4"], 1, 0)) == [250]
    assert numbers(read_frames(long["a.mp4"], 1, 0, 12.0, 12.08)) == [301]


def test_only_what_is_needed_is_decoded(tmp_path, monkeypatch):
    """Ten seconds of four minutes, and eight frames of all of it."""
    path = made.write_media(tmp_path / "a.mp4", made.steady(4000, 16.0))
    decoded, decode = [], Track._decode

    def counting(self):
        for item in decode(self):
            decoded.append(item[0])
            yield item

    monkeypatch.setattr(Track, "_decode", counting)
    found = read_frames(path, 8, 0, 200.0, 210.0)
    assert numbers(found) == pytest.approx((200 + (np.arange(8) + 0.5) * 10 / 8) * 16, abs=0.51)
    assert len(decoded) < 10 * 16 + 30
    decoded.clear()
    assert numbers(read_frames(path, 8, 0)) == pytest.approx((np.arange(8) + 0.5) * 500, abs=0.51)
    assert len(decoded) < 8 * 30


def test_sizes(long):
    for short_side, size in ((24, (24, 48)), (96, (96, 192)), (0, (48, 96)), (31, (31, 62))):
        found = read_frames(long["a.mp4"], 2, short_side)
        assert (found.height, found.width) == size
        assert {made.pixels(j).shape for j in found.jpegs} == {(*size, 3)}


def corners(jpeg):
    """Colours of the four corners, clockwise from the top left."""
    image = made.pixels(jpeg)
    places = [image[4:12, 4:12], image[4:12, -12:-4], image[-12:-4, -12:-4], image[-12:-4, 4:12]]
    return ["".join("RGB"[c] for c in range(3) if place.mean((0, 1))[c] > 128) for place in places]


def quarters():
    """Red, green, blue and white quarters, clockwise from the top left."""
    image = np.zeros((48, 96, 3), np.uint8)
    image[:24, :48], image[:24, 48:], image[24:, 48:], image[24:, :48] = [255, 0, 0], [0, 255, 0], [0, 0, 255], 255
    return image


def test_colours(tmp_path):
    path = made.write_media(tmp_path / "a.mp4", [(i / 25, quarters()) for i in range(5)])
    image = made.pixels(read_frames(path, 1, 0, quality=100).jpegs[0])
    assert np.abs(image[8:16, 8:40] - [255, 0, 0]).mean() < 6
    assert corners(read_frames(path, 1, 0).jpegs[0]) == ["R", "G", "B", "RGB"]


# a, b, c, d of the matrix in an MP4's track header, and what viewers show then
MATRICES = {
    (0, 1, -1, 0): (["RGB", "R", "G", "B"], "rotated 90"),  # a phone held upright
    (-1, 0, 0, -1): (["B", "RGB", "R", "G"], "rotated 180"),
    (0, -1, 1, 0): (["G", "B", "RGB", "R"], "rotated 270"),
    (-1, 0, 0, 1): (["G", "R", "RGB", "B"], "mirrored"),
    (1, 0, 0, 1): (["R", "G", "B", "RGB"], None),
}


@pytest.mark.parametrize("matrix", MATRICES)
def test_rotation_by_the_track_header(tmp_path, matrix):
    path = made.write_media(tmp_path / "a.mp4", [(i / 25, quarters()) for i in range(5)])
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", data[place : place + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    a, b, c, d = (65536 * v for v in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    found, (shown, note) = read_frames(path, 2, 24), MATRICES[matrix]
    turned = bool(matrix[1])
    assert (found.height, found.width) == ((48, 24) if turned else (24, 48))
    assert corners(read_frames(path, 2, 0).jpegs[1]) == shown
    assert set(found.notes) - {"fewer frames than asked for, some repeat"} == ({note} if note else set())


def test_rotation_by_libav(tmp_path):
    """Its degrees are counter-clockwise."""
    frames = [(i / 25, quarters()) for i in range(5)]
    path = made.write_media(tmp_path / "a.mp4", frames, rotation=90)
    assert read_frames(path, 2, 0).notes == ("rotated 270",)
    assert read_frames(made.write_media(tmp_path / "b.mp4", frames, rotation=33), 2, 0).notes == (
        "rotated by no multiple of 90, left as it is",
    )


def test_pixels_that_are_not_square(tmp_path):
    def wide(stream):
        stream.codec_context.sample_aspect_ratio = 2

    path = made.write_media(tmp_path / "a.mp4", made.steady(10), prepare=wide)
    found = read_frames(path, 2, 24)
    assert (found.height, found.width, found.notes) == (24, 96, ("pixels made square",))
    assert read_frames(path, 2, 0).width == 96


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.gif"])
def test_one_frame(tmp_path, name):
    if name == "a.gif":
        Image.fromarray(made.numbered(5)).save(tmp_path / name)
        path = tmp_path / name
    else:
        path = made.write_media(tmp_path / name, [(0.0, made.numbered(5))])
    found = read_frames(path, 8, 0)
    assert numbers(found) == [5] * 8 and not found.times.any() and found.notes == ("one distinct frame",)
    assert read_frames(path, 1, 0).notes == ()


def test_fewer_frames_than_asked_for(tmp_path):
    path = made.write_media(tmp_path / "a.mp4", made.steady(3))
    found = check(path, np.arange(3) / 25, 8, last=0.12)
    assert sorted(set(numbers(found))) == [0, 1, 2]
    assert found.notes == ("fewer frames than asked for, some repeat",)


def test_video_shorter_than_its_sound(tmp_path):
    path = made.write_media(tmp_path / "a.mp4", made.steady(50), [made.tones(16000, 4.0)], 16000)
    check(path, np.arange(50) / 25, 8, last=2.0)
    assert reason(path, start=0.0, end=4.0) == "outside the file"


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_frames_from_outside_the_cut(tmp_path, name, count):
    """A track that begins six seconds late, and one with a gap from 2 to 9 s."""
    sound = [made.tones(48000, 10.0)]
    codecs = ("libx264", "mp2" if name == "a.ts" else "aac")
    late = made.write_media(tmp_path / f"late_{name}", made.steady(100), sound, 48000, codecs, lead=6.0)
    assert reason(late, count, start=0.0, end=5.0) == "no frames"
    assert reason(late, count, start=5.0, end=5.9) == "no frames"
    found = read_frames(late, count, 0, 5.0, 7.0)
    assert ((found.times >= 0.98) & (found.times < 2.04)).all()
    assert len(read_frames(late, count, 0).jpegs) == count
    frames = [(time, image) for time, image in made.steady(250) if not 2.0 <= time < 9.0]
    gap = made.write_media(tmp_path / f"gap_{name}", frames, sound, 48000, codecs)
    assert reason(gap, count, start=3.0, end=8.0) == "no frames"
    assert (read_frames(gap, count, 0, 1.0, 2.5).times < 1.05).all()  # what of it is there


def test_few_frames_per_second(tmp_path):
    """A frame that is shown in the cut and begins before it; half a second is what one lasts."""
    path = made.write_media(tmp_path / "a.mp4", [(i / 2, made.numbered(i)) for i in range(20)])
    for start in (0.1, 3.2, 7.4, 9.0):
        found = read_frames(path, 3, 0, start, start + 0.1)
        assert set(numbers(found)) <= {round(2 * start), round(2 * (start + 0.1))}


def test_two_video_tracks(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        tracks = [out.add_stream("libx264", rate=25, options=made.H264) for _ in range(2)]
        for track in tracks:
            track.width, track.height, track.pix_fmt = made.WIDTH, made.HEIGHT, "yuv420p"
        for k, track in enumerate(tracks):
            for i in range(10):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(made.numbered(i + 100 * k)), format="rgb24")
                out.mux(track.encode(frame))
        for track in tracks:
            out.mux(track.encode())
    found = read_frames(path, 2, 0)
    assert max(numbers(found)) < 10 and found.notes == ("several video tracks, the first is used",)


def test_cover_art_is_no_video(tmp_path):
    path = made.write_media(tmp_path / "a.mp3", (), [made.tones(16000, 1.0)], 16000, ("", "libmp3lame"))
    Image.fromarray(quarters()).save(tmp_path / "a.jpg")
    picture = b"\0image/jpeg\0\x03\0" + (tmp_path / "a.jpg").read_bytes()
    frame = b"APIC" + struct.pack(">I", len(picture)) + bytes(2) + picture
    size = len(frame)
    header = b"ID3\x03\0\0" + bytes((size >> s) & 127 for s in (21, 14, 7, 0))
    song = path.read_bytes()
    path.write_bytes(header + frame + song[song.index(b"\xff") :])
    with av.open(str(path)) as file:
        assert len(file.streams.video) == 1  # libav shows the cover as one
    assert reason(path) == "no video track"


def test_no_track_and_no_frames(tmp_path):
    sound = [made.tones(44100, 1.0)]
    assert reason(made.write_media(tmp_path / "a.m4a", (), sound, codecs=("", "aac"))) == "no video track"
    assert reason(made.write_media(tmp_path / "a.mkv", [], sound)) == "no frames"


def test_files_that_are_no_video(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "page.mp4").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    (tmp_path / "note.txt").write_text("a text\n" * 300)
    Image.fromarray(quarters()).save(tmp_path / "picture.png")
    assert reason(tmp_path / "missing.mp4") == "missing file"
    assert reason(tmp_path / "empty.mp4") == "empty file"
    assert {reason(tmp_path / name) for name in ("page.mp4", "note.txt", "picture.png")} == {"not media"}


def test_the_content_decides_not_the_name(tmp_path):
    path = made.write_media(tmp_path / "a.mp4", made.steady(10))
    check(path.rename(tmp_path / "a.jpg"), np.arange(10) / 25, 5, last=0.4)


def test_cuts_outside_the_file(long):
    for start, end in ((20.0, None), (30.0, 40.0), (15.0, 25.0), (-1.0, 2.0), (3.0, 3.0)):
        assert reason(long["a.mp4"], start=start, end=end) == "outside the file"
    assert read_frames(long["a.mp4"], 4, 0, 18.0, 20.15).notes == ("the cut ends after the track",)


@pytest.mark.parametrize("count", [1, 8])
def test_truncated_mp4(tmp_path, count):
    path = made.write_media(tmp_path / "a.mp4", made.steady(400), [made.tones(16000, 16.0)], 16000, mux=FAST)
    data = path.read_bytes()
    content = data.index(b"mdat")

    def cut(part):
        path.write_bytes(data[: content + int(part * (len(data) - content))])
        return path

    assert reason(cut(0.5), count) == "truncated"
    assert reason(cut(0.5), count, start=14.0, end=16.0) == "truncated"
    assert reason(cut(0.0), count) == "truncated"
    assert len(read_frames(path := cut(0.5), count, 0, 1.0, 3.0).jpegs) == count
    middles = (np.arange(count) + 0.5) * 16 / count
    assert numbers(read_frames(cut(0.97), count, 0)) == pytest.approx(middles * 25, abs=13)
    path.write_bytes(data[: content // 2])
    assert reason(path, count) == "truncated"


def test_mp4_without_its_index(tmp_path):
    path = made.write_media(tmp_path / "a.mp4", made.steady(50))
    data = path.read_bytes()
    assert data.index(b"moov") > data.index(b"mdat")
    path.write_bytes(data[: data.index(b"moov") - 4])
    assert reason(path) == "truncated"


def test_a_decoder_that_is_not_there(tmp_path):
    path = made.write_media(tmp_path / "a.mp4", made.steady(5))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"xyz1"))
    assert reason(path) == "undecodable"


def test_frames_that_are_too_large(tmp_path):
    """The size in the header of a container is believed before anything is decoded."""
    path = made.write_media(tmp_path / "a.avi", made.steady(3), codecs=("rawvideo", ""))
    data = bytearray(path.read_bytes())
    place = data.index(b"strf") + 12
    assert struct.unpack("<2i", data[place : place + 8]) == (made.WIDTH, made.HEIGHT)
    data[place : place + 8] = struct.pack("<2i", 12000, 9000)
    path.write_bytes(data)
    assert reason(path) == "too large"


def test_output_that_is_too_large(long):
    assert reason(long["a.mp4"], short_side=20000) == "too large"


def test_nothing_but_media_errors_and_nothing_printed(tmp_path, capfd):
    rng = np.random.default_rng(0)
    for name, codec in (("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.mkv", "libx264")):
        path = made.write_media(
            tmp_path / name, made.steady(20), codecs=(codec, ""), mux=FAST if name == "a.mp4" else {}
        )
        data = np.frombuffer(path.read_bytes(), np.uint8)
        for k in range(40):
            broken = data[: rng.integers(1, len(data) + 1)].copy()
            reach = min(len(broken), 1500) if k % 2 else len(broken)
            broken[rng.integers(0, reach, 12)] = rng.integers(0, 256, 12)
            path.write_bytes(broken)
            try:
                found = read_frames(path, 4, 32, *[(), (0.2, 0.6)][rng.integers(2)])
                assert len(found.jpegs) == 4 and np.isfinite(found.times).all()
            except MediaError as error:
                assert error.reason in REASONS
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not (made.REAL / "grid_s1/clips").is_dir(), reason="no GRID clips")
def test_grid_clips():
    kinds = set()
    for path in sorted((made.REAL / "grid_s1/clips").glob("*.mp4")):
        with av.open(str(path)) as file:
            count = file.streams.video[0].frames
            if count in kinds:
                continue
            kinds.add(count)
            frames = list(file.decode(video=0))
        found = read_frames(path, 8, 0)
        middles = (np.arange(8) + 0.5) * count / 25 / 8
        assert found.times == pytest.approx(middles, abs=0.0201) and found.notes == ()
        for time, jpeg in zip(found.times, found.jpegs, strict=True):
            frame = min(frames, key=lambda f: abs(f.time - time))
            assert frame.time == pytest.approx(time, abs=1e-4)
            assert np.abs(made.pixels(jpeg) - frame.to_ndarray(format="rgb24")).mean() < 4
    assert 75 in kinds
