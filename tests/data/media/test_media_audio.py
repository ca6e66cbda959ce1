import gc
import pickle
import struct
import sys
from fractions import Fraction

import av
import media_files as made
import numpy as np
import pytest
import soxr

from mmr_jax.data.media import require
from mmr_jax.data.media.audio import read_audio
from mmr_jax.data.media.errors import REASONS, MediaError
from mmr_jax.data.media.track import Track
from mmr_jax.data.media.video import read_frames
from mmr_jax.errors import UserError


def reason(path, *args, **kwargs):
    with pytest.raises(MediaError) as caught:
        read_audio(path, 16000, *args, **kwargs)
    assert caught.value.reason in REASONS and "\n" not in str(caught.value)
    return caught.value.reason


def plainly(path, rate, samples=None):
    """int16 [n]: all of the file decoded, its channels averaged, resampled at once, and nothing else."""
    with av.open(str(path)) as file:
        same = av.AudioResampler(format="fltp")
        parts = [part.to_ndarray() for frame in file.decode(audio=0) for part in same.resample(frame)]
        source = file.streams.audio[0].rate
    sound = np.concatenate(parts, 1)[:, :samples].astype(np.float64).mean(0)
    return np.clip(np.rint(soxr.resample(sound, source, rate, "HQ") * 32768), -32768, 32767).astype(int)


def integers(rate, seconds, channels=1, bits=16):
    return np.rint(made.tones(rate, seconds, channels).T * 0.9 * 2 ** (bits - 1)).astype(np.int64)


def near(found, expected, lsb=1, edge=0):
    """Whether at most `lsb` apart; the last `edge` samples are left out."""
    assert len(found) == len(expected)
    stop = len(found) - edge
    assert np.abs(found[:stop].astype(int) - expected[:stop]).max() <= lsb
    assert np.abs(expected).max() > 3000


def test_wav_at_its_own_rate_is_unchanged(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32768, 5000)
    audio = read_audio(made.write_wav(tmp_path / "a.wav", samples, 16000), 16000)
    np.testing.assert_array_equal(audio.pcm, samples)
    assert (audio.pcm.dtype, audio.source_rate, audio.channels, audio.notes) == (np.int16, 16000, 1, ())


@pytest.mark.parametrize(
    ("rate", "width", "channels"), [(44100, 2, 1), (8000, 1, 1), (96000, 3, 1), (22050, 4, 2), (11025, 2, 2)]
)
def test_wav_of_any_rate_and_width(tmp_path, rate, width, channels):
    samples = integers(rate, 1.3, channels, 8 * width)
    if width == 1:
        samples += 128
    audio = read_audio(made.write_wav(tmp_path / "a.wav", samples, rate, width), 16000)
    sound = (samples - (128 if width == 1 else 0)) / 2 ** (8 * width - 1)
    expected = np.rint(soxr.resample(sound.mean(1), rate, 16000, "HQ") * 32768)
    near(audio.pcm, expected)
    assert (audio.source_rate, audio.channels) == (rate, channels)


FAST = {"movflags": "faststart"}  # the index before the content
CODECS = {
    "long.mp4": (44100, ("libx264", "aac"), 2),
    "long.m4a": (48000, ("", "aac"), 1),
    "long.mp3": (44100, ("", "libmp3lame"), 2),
    "long.flac": (44100, ("", "flac"), 1),
    "long.mkv": (48000, ("libx264", "libopus"), 2),
    "long.wav": (44100, ("", "pcm_s16le"), 1),
}


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Twenty seconds of sound, and of video where the container has one, by file name."""
    folder, paths = tmp_path_factory.mktemp("long"), {}
    for name, (rate, codecs, channels) in CODECS.items():
        frames = made.steady(500) if codecs[0] else ()
        paths[name] = made.write_media(folder / name, frames, [made.tones(rate, 20, channels)], rate, codecs)
    return paths


@pytest.mark.parametrize("name", CODECS)
def test_whole_and_cut_sound_is_what_plain_decoding_gives(long, name):
    declared = {".mp4": 20, ".m4a": 20}.get(long[name].suffix)
    expected = plainly(long[name], 16000)[: declared and declared * 16000]
    near(read_audio(long[name], 16000).pcm, expected)
    for start, end in ((0.0, 1.0), (0.5, 0.75), (3.1234, 4.0), (12.5, 17.25), (19.0, None)):
        cut, part = read_audio(long[name], 16000, start, end), slice(round(start * 16000), end and round(end * 16000))
        if name == "long.mkv" and start > 4:
            # After a seek all that is known of the time is a whole number of milliseconds.
            sound = expected[part]
            assert abs(len(cut.pcm) - len(sound)) <= 8
            inner = sound[100:-100]
            match = [np.corrcoef(cut.pcm[100 + lag :][: len(inner)], inner)[0, 1] for lag in range(-8, 9)]
            assert max(match) > 0.99
        else:
            near(cut.pcm, expected[part])


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_cuts_at_other_rates(long, rate):
    expected = plainly(long["long.flac"], rate)
    near(read_audio(long["long.flac"], rate, 7.77, 9.1).pcm, expected[round(7.77 * rate) : round(9.1 * rate)])


def test_the_first_sample_is_the_first_that_was_encoded(tmp_path):
    """AAC begins with 1024 samples of nothing, which the edit list leaves out, and ends with a filled frame."""
    sound = made.tones(44100, 1.5)
    audio = read_audio(made.write_media(tmp_path / "a.m4a", (), [sound], codecs=("", "aac")), 44100)
    assert len(audio.pcm) == sound.shape[1]
    lags = range(-1200, 1201)
    middle = audio.pcm[20000:40000] / 32768
    match = [np.dot(middle, sound[0, 20000 + lag : 40000 + lag]) for lag in lags]
    assert lags[int(np.argmax(match))] == 0


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.mov"])
@pytest.mark.parametrize(("delay", "lead"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.4)])
def test_sound_and_frames_share_one_clock(tmp_path, name, delay, lead):
    """A click and a white frame at 1.0 s, either track begun late or neither."""
    white, black = np.full((48, 96, 3), 255, np.uint8), np.zeros((48, 96, 3), np.uint8)
    frames = [(i / 25, white if i / 25 + lead >= 1.0 else black) for i in range(50)]
    sound = made.click(48000, 2.0, 1.0 - delay)
    path = made.write_media(tmp_path / name, frames, [sound], 48000, delay=delay, lead=lead)
    pcm = read_audio(path, 16000).pcm
    heard = np.flatnonzero(np.abs(pcm.astype(int)) > 4000)[0] / 16000
    shown = read_frames(path, 400, 0, 0.0, 2.0)
    seen = min(t for t, jpeg in zip(shown.times, shown.jpegs, strict=True) if made.pixels(jpeg).mean() > 128)
    # A transport stream does not say that its first 1024 samples are the encoder's: the file begins 21 ms earlier.
    begin = 1024 / 48000 if name == "a.ts" and delay == 0 else 0.0
    assert heard == pytest.approx(seen, abs=0.004)
    if name != "a.ts":
        assert heard == pytest.approx(1.0 + begin, abs=0.002)
    cut = np.flatnonzero(np.abs(read_audio(path, 16000, 0.75).pcm.astype(int)) > 4000)[0] / 16000
    assert cut + 0.75 == pytest.approx(heard, abs=1e-4)


def test_late_sound_begins_with_silence(tmp_path):
    path = made.write_media(tmp_path / "a.mp4", made.steady(50), [made.tones(16000, 1.0)], 16000, delay=1.0)
    pcm = read_audio(path, 16000).pcm
    assert len(pcm) == 32000 and not pcm[:14900].any() and np.abs(pcm[16500:]).max() > 1000


FILLED = "over a tenth is silence that was filled in"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_cut_that_holds_no_sample(tmp_path, name):
    """Six seconds late; silence that is in the file is sound, what is filled in is none."""
    codec = "mp2" if name == "a.ts" else "aac"
    codecs, sound = ("libx264", codec), made.tones(48000, 3.0)
    sound[:, 48000:96000] = 0
    path = made.write_media(tmp_path / name, made.steady(225), [sound], 48000, codecs, delay=6.0)
    for cut in ((0.0, 5.0), (1.0, 5.0), (0.5, 0.6)):
        assert reason(path, *cut) == "no samples"
    late, most = read_audio(path, 16000, 5.0, 7.0), read_audio(path, 16000, 5.95, 7.0)
    assert len(late.pcm) == 32000 and FILLED in late.notes and not late.pcm[:15000].any() and late.pcm[17000:].any()
    assert len(most.pcm) == 16800 and FILLED not in most.notes
    silent = read_audio(path, 16000, 7.2, 7.8)
    assert FILLED not in silent.notes and np.abs(silent.pcm.astype(int)).max() < 100


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_cut_in_a_gap(tmp_path, name):
    path, sound = tmp_path / name, made.tones(48000, 10.0)
    with av.open(str(path), "w") as out:
        track = made._audio_track(out, sound, 48000, "mp2" if name == "a.ts" else "aac")
        size = track.codec_context.frame_size or 1152
        for begin in range(0, sound.shape[1], size):
            if not 2.0 <= begin / 48000 < 9.0:
                frame = made._audio_frame(track, sound[:, begin : begin + size], 48000)
                frame.pts, frame.time_base = begin, Fraction(1, 48000)
                out.mux(track.encode(frame))
        out.mux(track.encode())
    assert reason(path, 3.0, 8.0) == "no samples"
    part, little = read_audio(path, 16000, 1.0, 4.0), read_audio(path, 16000, 1.0, 2.1)
    assert len(part.pcm) == 48000 and FILLED in part.notes and part.pcm[:14000].any() and not part.pcm[19000:].any()
    assert FILLED not in little.notes


def test_stereo_is_averaged(tmp_path):
    samples = integers(16000, 0.5, 2)
    audio = read_audio(made.write_wav(tmp_path / "a.wav", samples, 16000), 16000)
    near(audio.pcm, samples.mean(1))
    assert audio.channels == 2 and audio.notes == ()


def test_one_silent_channel_is_no_cancelling(tmp_path):
    samples = integers(16000, 0.5)
    audio = read_audio(made.write_wav(tmp_path / "a.wav", np.hstack([samples, samples * 0]), 16000), 16000)
    near(audio.pcm, samples[:, 0] / 2)
    assert audio.notes == ()


@pytest.mark.parametrize("rate", [16000, 44100])
def test_channels_that_cancel(tmp_path, rate):
    samples = integers(rate, 0.5)
    audio = read_audio(made.write_wav(tmp_path / "a.wav", np.hstack([-samples * 0.9, samples]), rate), 16000)
    near(audio.pcm, np.rint(soxr.resample(samples[:, 0] / 32768, rate, 16000) * 32768))
    assert audio.notes == ("channels cancel, the loudest one is used",)


def test_the_first_of_two_tracks(tmp_path):
    sounds = [made.tones(44100, 1.0, seed=1), made.tones(44100, 1.0, seed=2)]
    audio = read_audio(made.write_media(tmp_path / "two.mp4", (), sounds), 44100)
    alone = read_audio(made.write_media(tmp_path / "one.mp4", (), sounds[:1]), 44100)
    np.testing.assert_array_equal(audio.pcm, alone.pcm)
    assert audio.notes == ("several audio tracks, the first is used",) and alone.notes == ()


def test_floats_that_are_no_numbers(tmp_path):
    sound = made.tones(16000, 0.5)
    sound[0, 100], sound[0, 200] = np.nan, np.inf
    audio = read_audio(made.write_media(tmp_path / "a.wav", (), [sound], 16000, ("", "pcm_f32le")), 16000)
    assert audio.pcm[100] == 0 and audio.pcm[200] == 0 and audio.pcm[150] == round(float(sound[0, 150]) * 32768)
    assert audio.notes == ("samples that are no numbers are silent",)


def test_loud_floats_are_clipped(tmp_path):
    sound = 20 * made.tones(16000, 0.5)
    pcm = read_audio(made.write_media(tmp_path / "a.wav", (), [sound], 16000, ("", "pcm_f32le")), 16000).pcm
    np.testing.assert_array_equal(pcm, np.clip(np.rint(sound[0] * 32768), -32768, 32767))


def test_only_the_cut_is_decoded(tmp_path, monkeypatch):
    """Ten seconds of some minutes: seeking must not decode the rest."""
    path = tmp_path / "long.m4a"
    made.write_media(path, (), [np.tile(made.tones(8000, 10), (1, 40))], 8000, ("", "aac"))
    decoded, decode = [], Track._decode

    def counting(self):
        for time, frame in decode(self):
            decoded.append(frame.samples)
            yield time, frame

    monkeypatch.setattr(Track, "_decode", counting)
    assert len(read_audio(path, 16000, 300.0, 310.0).pcm) == 160000
    assert sum(decoded) < 14 * 8000


def test_too_much_sound(tmp_path, monkeypatch):
    path = made.write_wav(tmp_path / "a.wav", integers(16000, 3.0), 16000)
    monkeypatch.setattr("mmr_jax.data.media.audio.MAX_SAMPLES", 20000)
    assert reason(path) == "too large"
    assert len(read_audio(path, 16000, 0.5, 1.0).pcm) == 8000


def test_files_that_are_no_sound(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "page.mp4").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    (tmp_path / "note.txt").write_text("a text\n" * 300)
    (tmp_path / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(40000))
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.wav\n#EXT-X-ENDLIST\n")
    made.write_wav(tmp_path / "a.wav", integers(16000, 1.0), 16000)
    assert reason(tmp_path / "missing.wav") == "missing file"
    assert reason(tmp_path) == "missing file"
    assert reason(tmp_path / "empty.wav") == "empty file"
    assert reason(tmp_path / "page.mp4") == "not media"
    assert reason(tmp_path / "note.txt") == "not media"
    assert reason(tmp_path / "list.m3u8") == "not media"
    assert reason(tmp_path / "noise.mp3") in ("not media", "undecodable")


def test_no_track_and_no_samples(tmp_path):
    assert reason(made.write_media(tmp_path / "silent.mp4", made.steady(10))) == "no audio track"
    assert reason(made.write_wav(tmp_path / "none.wav", np.zeros(0), 16000)) == "no samples"
    none = made.write_media(tmp_path / "none.mkv", made.steady(10), [np.zeros((1, 0), np.float32)])
    assert reason(none) == "no samples"


def test_the_content_decides_not_the_name(tmp_path):
    path = made.write_wav(tmp_path / "a: concat.mp4", integers(16000, 0.5), 16000)
    assert len(read_audio(path, 16000).pcm) == 8000


def test_cuts_outside_the_file(tmp_path):
    path = made.write_wav(tmp_path / "a.wav", integers(16000, 2.0), 16000)
    for cut in [(2.0,), (5.0, 6.0), (1.0, 2.5), (-1.0, 1.0), (1.0, 1.0), (1.5, 1.0), (float("nan"), 1.0), (0, np.inf)]:
        assert reason(path, *cut) == "outside the file"
    audio = read_audio(path, 16000, 1.0, 2.1)  # nine tenths are there
    assert len(audio.pcm) == 16000 and audio.notes == () and len(read_audio(path, 16000, 0.5, 2.15).pcm) == 24000
    assert read_audio(path, 16000, 0.5, 2.15).notes == ("the cut ends after the track",)
    mp3 = made.write_media(tmp_path / "a.mp3", (), [made.tones(16000, 2.0)], 16000, ("", "libmp3lame"))
    assert reason(mp3, 9.0, 10.0) == "outside the file" == reason(mp3, 1.0, 10.0)


@pytest.mark.parametrize("name", ["a.wav", "a.mp4"])
def test_truncated_files(tmp_path, name):
    if name == "a.wav":
        path = made.write_wav(tmp_path / name, integers(16000, 4.0), 16000)
    else:
        path = made.write_media(tmp_path / name, made.steady(100), [made.tones(44100, 4.0)], mux=FAST)
    whole, data = read_audio(path, 16000).pcm, path.read_bytes()
    path.write_bytes(data[: int(0.96 * len(data))])
    assert 0.9 * len(whole) < len(read_audio(path, 16000).pcm) < len(whole)
    path.write_bytes(data[: len(data) // 2])
    assert reason(path) == "truncated" == reason(path, 3.0, 4.0)
    near(read_audio(path, 16000, 0.2, 1.0).pcm, whole[3200:16000].astype(int))


def test_mp4_without_its_index(tmp_path):
    path = made.write_media(tmp_path / "a.mp4", made.steady(25), [made.tones(44100, 1.0)])
    data = path.read_bytes()
    assert data.index(b"moov") > len(data) // 2
    path.write_bytes(data[: len(data) // 2])
    assert reason(path) == "truncated"


def test_lost_packets(tmp_path):
    """Some packets of a FLAC file overwritten: few are silent, many are an error."""
    path = made.write_media(tmp_path / "a.mkv", (), [made.tones(16000, 8.0)], 16000, ("", "flac"))
    data = path.read_bytes()
    with av.open(str(path)) as file:
        places = [data.index(bytes(p)) for p in file.demux(audio=0) if p.size]

    def damaged(which):
        broken = bytearray(data)
        for place in which:
            broken[place : place + 40] = bytes(40)
        (tmp_path / "b.mkv").write_bytes(broken)
        return tmp_path / "b.mkv"

    whole, some = read_audio(path, 16000), read_audio(damaged(places[5:6]), 16000)
    assert len(some.pcm) == len(whole.pcm) and some.notes == ("gaps are silent",)
    assert (some.pcm != whole.pcm).mean() < 0.1
    assert reason(damaged(places[2:-3])) == "undecodable" == reason(damaged(places))


def test_a_decoder_that_is_not_there(tmp_path):
    path = made.write_media(tmp_path / "a.mkv", (), [made.tones(44100, 1.0)], codecs=("", "aac"))
    path.write_bytes(path.read_bytes().replace(b"A_AAC", b"A_XYZ"))
    assert reason(path) == "undecodable"


def test_nothing_but_media_errors_and_nothing_printed(tmp_path, capfd):
    rng = np.random.default_rng(0)
    paths = [
        made.write_media(tmp_path / "a.mp4", made.steady(10), [made.tones(16000, 0.5)], 16000),
        made.write_media(tmp_path / "a.mp3", (), [made.tones(16000, 0.5)], 16000, ("", "libmp3lame")),
        made.write_wav(tmp_path / "a.wav", integers(16000, 0.1), 16000),
    ]
    for path in paths:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(40):
            broken = data[: rng.integers(1, len(data) + 1)].copy()
            header = min(len(broken), 2000)
            broken[rng.integers(0, header, 8)] = rng.integers(0, 256, 8)
            path.write_bytes(broken)
            try:
                read_audio(path, 16000, *[(), (0.1, 0.2)][rng.integers(2)])
            except MediaError as error:
                assert error.reason in REASONS
    assert capfd.readouterr() == ("", "")


def test_files_are_closed(tmp_path):
    path = made.write_media(tmp_path / "a.mp4", made.steady(100), [made.tones(44100, 4.0)], mux=FAST)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    gc.collect()
    gc.disable()
    try:
        before = made.open_files()
        for _ in range(3):
            read_audio(path, 16000, 3.0, 4.0)
            assert reason(cut) == "truncated"
        assert made.open_files() == before
    finally:
        gc.enable()


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(MediaError("truncated", "half of\nit")))
    assert (error.reason, error.detail, str(error)) == ("truncated", "half of it", "truncated: half of it")
    with pytest.raises(ValueError, match="REASONS"):
        MediaError("bad luck", "")


def test_require(monkeypatch):
    assert require("struct", "media") is struct
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(UserError, match=r"soxr cannot be loaded .*pip install -e \.\[media\]"):
        require("soxr", "media")


def test_a_missing_package_is_no_fault_of_the_file(tmp_path, monkeypatch):
    path = made.write_wav(tmp_path / "a.wav", integers(8000, 0.1), 8000)
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(UserError, match="soxr"):
        read_audio(path, 16000)


@pytest.mark.skipif(not (made.REAL / "grid_s1/clips").is_dir(), reason="no GRID clips")
def test_grid_clips():
    for path in sorted((made.REAL / "grid_s1/clips").glob("*.mp4"))[:4]:
        with av.open(str(path)) as file:
            declared = file.streams.audio[0].duration
            assert file.start_time == 0 == file.streams.video[0].start_time
            first = next(file.decode(audio=0))
            assert first.pts == 0  # so sample 0 is at the time of frame 0
        audio = read_audio(path, 16000)
        expected = plainly(path, 16000)
        assert len(audio.pcm) == declared <= len(expected) and audio.source_rate == 16000
        near(audio.pcm, expected[:declared])
        near(read_audio(path, 16000, 1.24, 1.45).pcm, expected[19840:23200])
