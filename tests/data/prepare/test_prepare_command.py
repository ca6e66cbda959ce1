"""The command in a process of its own: killed, stopped, out of room, and a manifest with everything wrong in it."""

import collections
import csv
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import prepare_files as made
import pytest

from mmr_jax.data.prepare.records import Decoder, features_of, read_info

ROOT = Path(__file__).parents[3]
CLIPS = 40


def start(*arguments, **more):
    """mmr prepare with small settings."""
    settings = ["--rate=8000", "--frames=2", "--short_side=16", "--clips_per_shard=16", "--processes=2"]
    command = [sys.executable, "-m", "mmr_jax", "prepare", *settings, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def finished(process):
    """(exit code, stdout, lines of stderr)."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, [line for line in err.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Sound, pictures and videos; long enough for a run to be cut off in the middle of."""
    folder = tmp_path_factory.mktemp("media")
    rows = ["media,split,text,labels"]
    for i in range(CLIPS):
        name = f"{i}.{('wav', 'jpg', 'mp4', 'mp4')[i % 4]}"
        if name.endswith("wav"):
            made.write_wav(folder / name, 10.0, 44100, seed=i)
        elif name.endswith("jpg"):
            made.write_jpeg(folder / name, seed=i)
        else:
            made.write_mp4(folder / name, 2.0, seed=i)
        rows.append(f"{name},{'test' if i > 30 else 'train'},clip {i},{'even' if i % 2 else 'odd'}")
    made.write_manifest(folder / "clips.csv", rows)
    return folder


@pytest.fixture(scope="module")
def whole(media, tmp_path_factory):
    """What a run gives that nobody disturbs: all files."""
    out = tmp_path_factory.mktemp("whole") / "out"
    code, text, errors = finished(start(f"--manifest={media}/clips.csv", f"--media={media}", f"--out={out}"))
    assert (code, errors) == (0, []) and "x real time per core" in text
    return made.contents(out)


def done_so_far(out):
    return len(list(Path(f"{out}.partial").glob("*/*.json")))


def children(process):
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [Path(f"/proc/{child}") for child in found]


def end_when(reached, process, number):
    """Sends a signal a little after `reached()`, unless the command has ended; its workers must end too."""
    while process.poll() is None and not reached():
        time.sleep(0.001)
    time.sleep(random.Random(process.pid).uniform(0, 0.02))
    workers = children(process) if process.poll() is None else []
    process.send_signal(number)
    ended = finished(process)
    deadline = time.monotonic() + 20
    while any(w.exists() for w in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(w.exists() for w in workers)
    return ended


def more_done(out, number):
    """Whether so many more pieces and shards are done than now."""
    goal = done_so_far(out) + number
    return lambda: done_so_far(out) >= goal


def test_killed_again_and_again_gives_the_same_bytes(whole, media, tmp_path):
    out = tmp_path / "out"
    arguments, kills = (f"--manifest={media}/clips.csv", f"--media={media}", f"--out={out}"), 0
    last = Path(f"{out}.partial/set/summary.txt").exists  # when all else is done
    for reached in (*(more_done(out, n) for n in (1, 2, 3)), last):
        code, _, _ = end_when(reached, start(*arguments), signal.SIGKILL)
        kills += code == -signal.SIGKILL
        assert not out.exists() or made.contents(out) == whole  # nothing is there until all is
    assert kills >= 2  # a busy machine may notice too late
    assert finished(start(*arguments))[0] == 0
    assert made.contents(out) == whole and not Path(f"{out}.partial").exists()


def test_stopped_it_says_so_and_goes_on(whole, media, tmp_path):
    out = tmp_path / "out"
    arguments = (f"--manifest={media}/clips.csv", f"--media={media}", f"--out={out}")
    for number in (signal.SIGTERM, signal.SIGINT):
        code, _, errors = end_when(more_done(out, 1), start(*arguments), number)
        assert code == 75 and len(errors) == 1 and "Repeat the same command" in errors[0]
    assert finished(start(*arguments))[::2] == (0, [])
    assert made.contents(out) == whole


def test_no_room_and_no_folder(media, tmp_path):
    limit = dict(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))
    arguments = (f"--manifest={media}/clips.csv", f"--media={media}")
    code, _, errors = finished(start(*arguments, f"--out={tmp_path}/out", **limit))
    assert code == 2 and len(errors) == 1 and "File too large" in errors[0] and not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    code, _, errors = finished(start(*arguments, f"--out={tmp_path}/file/out"))
    assert code == 2 and len(errors) == 1 and f"{tmp_path}/file/out" in errors[0]


@pytest.mark.parametrize("arguments, message", [
    (["--manifest=clips.csv", "--media=m"], "--out is missing"),
    (["--out=o", "--media=m"], "give either --dataset=NAME with --labels=FOLDER, or --manifest"),
    (["--out=o", "--media=m", "--dataset=gird", "--labels=m"], "did you mean 'grid'"),
    (["--out=o", "--media=m", "--manifest=c.csv", "--runner_options=--a=b"], "--runner_options goes with --runner"),
    (["--out=o", "--media=m", "--manifest=c.csv", "--quality=0"], "--quality=0 must be between 1 and 100"),
], ids=str)  # fmt: skip
def test_bad_flags_are_one_line(arguments, message):
    code, _, errors = finished(start(*arguments))
    assert code == 2 and len(errors) == 1 and message in errors[0]


def test_a_manifest_with_everything_wrong(tmp_path):
    """40 rows: 4 (10 %) missing, 3 without sound, 2 without pictures, 2 titles that are no UTF-8, 3 ids twice."""
    media, out = tmp_path / "media", tmp_path / "out"
    media.mkdir()
    rows = [b"\xef\xbb\xbfmedia,id,split,text,labels"]
    for i in range(37):
        if i >= 4:
            made.write_mp4(media / f"{i}.mp4", 0.5, audio=i not in (4, 5, 6), video=i not in (7, 8), seed=i)
        title = b"caf\xe9" if i in (9, 10) else b"caf\xc3\xa9"
        rows.append(b"%d.mp4,c%d,%s,%s %d,a|b" % (i, i, b"test" if i % 4 == 3 else b"train", title, i))
    rows += [b"20.mp4,c20,train,again,a", b"21.mp4,c20,train,again,a", b"30.mp4,c4,train,again,b"]
    made.write_manifest(tmp_path / "clips.csv", rows)
    arguments = (f"--manifest={tmp_path}/clips.csv", f"--media={media}", f"--out={out}")
    code, _, errors = finished(start(*arguments))
    assert code == 2 and len(errors) == 1 and "7 of 40 clips are lost whole" in errors[0] and not out.exists()
    code, text, errors = finished(start(*arguments, "--max_failed=0.2"))
    assert (code, errors) == (0, []) and "text not UTF-8: 2 clips" in text
    splits = read_info(out)["splits"].values()
    totals = {key: sum(s[key] for s in splits) for key in ("clips", "kept", "audio", "frames", "text")}
    assert totals == {"clips": 37, "kept": 33, "audio": 30, "frames": 31, "text": 33}
    with (out / "failures.csv").open(newline="") as file:
        failed = collections.Counter((row["modality"], row["reason"]) for row in csv.DictReader(file))
    assert failed == {
        ("clip", "missing file"): 4,
        ("clip", "duplicate id"): 3,
        ("clip", "text not UTF-8"): 2,
        ("audio", "no audio track"): 3,
        ("frames", "no video track"): 2,
    }
    check_records(out)


def check_records(out):
    """No modality is counted that is not there, and titles are what they were meant to be."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    decoder = Decoder(features_of(out))
    for split in ("train", "test"):
        source = ArrayRecordDataSource(sorted(map(str, out.glob(f"clips-{split}.array_record*"))))
        examples, index = [decoder.decode(source[i]) for i in range(len(source))], np.load(out / f"index-{split}.npz")
        for example, present in zip(examples, index["present"].tolist(), strict=True):
            number = int(example["id"][1:])
            assert present == [number not in (4, 5, 6), number not in (7, 8), True]
            assert [len(example["audio"]) > 1000, len(example["frames"]) == 2] == present[:2]
            assert example["texts"]["text"] == [f"café {number}"]
            assert example["labels"]["labels"][0].tolist() == [0, 1]


def test_without_the_extra_it_is_one_line(media, tmp_path):
    (tmp_path / "av.py").write_text("raise ImportError('not here')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    arguments = (f"--manifest={media}/clips.csv", f"--media={media}", f"--out={tmp_path}/out")
    code, _, errors = finished(start(*arguments, env=environment))
    assert code == 2 and len(errors) == 1 and "pip install -e .[media]" in errors[0]
