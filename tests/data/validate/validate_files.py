"""Small prepared folders, clean ones and ones with everything wrong that mmr validate-data looks for."""

import io
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from mmr_jax.data.prepare.records import MODALITIES

DATA = Path(__file__).resolve().parents[1]
sys.path += [str(DATA), str(DATA / "prepare")]  # pytest adds a folder only once a test of it is collected

import prepare_files  # noqa: E402, F401
import prepared_files as files  # noqa: E402

FRAMES = 4
NUMBERS = {"train": range(12), "val": range(40, 44), "test": range(20, 28)}


def clean():
    """{split: examples} without anything suspicious."""
    return {name: [files.example(i, FRAMES, sounds=(i % 2,)) for i in rows] for name, rows in NUMBERS.items()}


def write(folder, splits):
    files.write(folder, splits)
    info = json.loads((folder / "prepared.json").read_text())
    info["settings"] |= {"frames": FRAMES}
    (folder / "prepared.json").write_text(json.dumps(info))
    for split, examples in splits.items():
        present = [[len(e["audio"]) > 0, len(e["frames"]) > 0, any(map(len, e["texts"].values()))] for e in examples]
        change_index(folder, split, present=np.array(present).reshape(-1, len(MODALITIES)))
    return folder


def change_index(folder, split, **columns):
    path = folder / f"index-{split}.npz"
    with np.load(path) as file:
        found = dict(file)
    np.savez(path, **(found | columns))


def flat(level, stripe=0):
    """One grey; with `stripe` the first 6 of 30 columns are that many levels brighter."""
    pixels, out = np.full((20, 30, 3), level, np.uint8), io.BytesIO()
    pixels[:, :6] += np.uint8(stripe)
    Image.fromarray(pixels).save(out, "PNG")  # exact, where a JPEG would not be
    return out.getvalue()


def suspicious():
    """{split: examples} and {kind: names} of what is wrong with them."""
    splits = clean()
    train, test = splits["train"], splits["test"]
    train[0]["audio"][:] = 7
    train[1]["audio"] = np.tile(np.int16([9, -9]), 750)  # -71.2 dBFS
    train[2]["audio"][:16] = [32767, -32768] * 8  # of 1500
    train[3]["frames"] = [train[3]["frames"][0]] * FRAMES
    train[4]["frames"] = [flat(100, stripe=i) for i in range(FRAMES)]
    train[5]["frames"][2] = flat(2)
    train[6]["texts"]["no_label"] = ["it", " \t"]
    train[7]["frames"][1] = train[7]["frames"][1][:150]
    train[8]["frames"].pop()
    train[8]["frame_times"] = train[8]["frame_times"][:-1]
    for key in ("audio", "frames"):
        train[10][key] = train[9][key]
        test[3][key] = test[2][key] = train[9][key]
    test[4]["id"] = test[5]["id"]
    test[6]["source"] = "video5"
    for examples in splits.values():
        for e in examples:
            e["labels"]["sounds"] = files.example(0, sounds=(0,))["labels"]["sounds"]
    # Not suspicious: too little is clipped, a slow change, a picture, nothing at all but text, no text at all.
    train[11]["audio"][:15] = 32767
    test[0]["frames"] = [flat(100 + 3 * i) for i in range(FRAMES)]
    test[1]["frames"], test[1]["frame_times"] = test[1]["frames"][:1], np.zeros(1, np.float32)
    test[7] |= {"audio": np.zeros(0, np.int16), "frames": [], "frame_times": np.zeros(0, np.float32)}
    splits["val"][0]["texts"] = {"text": [], "no_label": []}
    return splits, {
        "silent audio": ["clip0", "clip1"],
        "clipped audio": ["clip2"],
        "frozen frames": ["clip3", "clip4"],
        "black frames": ["clip5"],
        "empty text": ["clip6"],
        "undecodable frames": ["clip7"],
        "other number of frames": ["clip8"],
        "duplicate content": ["clip10", "clip23"],
        "duplicate content across splits": ["clip22", "clip23"],
        "duplicate ids": ["clip25"],
        "source in several splits": ["video5"],
        "labels never used": ["hoot"],
    }
