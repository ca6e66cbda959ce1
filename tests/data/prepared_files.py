"""A small prepared folder, written here by hand: what `mmr prepare` writes is tested beside it."""

import io
import json

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from mmr_jax.data.prepare.records import Encoder, Schema
from mmr_jax.data.prepared.folder import Folder

CLASSES = {"labels": ("cat", "dog", "owl"), "sounds": ("bark", "hoot")}
RATE = 1000


def jpeg(seed, height=20, width=30):
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 2, width // 2, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(out, "JPEG", quality=95)
    return out.getvalue()


def example(i, frames=4, samples=1500, texts=("a dog", "an owl"), labels=(), sounds=()):
    rng = np.random.default_rng(i)
    sets = {"labels": labels or (i % 3,), "sounds": sounds}
    return {
        "id": f"clip{i}",
        "source": f"video{i // 2}",
        "frames": [jpeg(100 * i + f) for f in range(frames)],
        "frame_times": np.arange(frames, dtype=np.float32) / 4,
        "audio": rng.integers(-3000, 3000, samples).astype(np.int16),
        "texts": {"text": list(texts), "no_label": ["it"] if texts else []},
        "labels": {s: (np.array(v, np.int64), np.zeros(len(v)), np.full(len(v), -1.0)) for s, v in sets.items()},
        "duration": samples / RATE,
    }


def write(folder, splits, name="zoo", shards=2, digest="0"):
    """A prepared folder of `splits` {name: examples}."""
    folder.mkdir(parents=True)
    schema, infos = Schema(CLASSES, ("text", "no_label")), []
    encoder = Encoder(schema.features)
    for split, examples in splits.items():
        parts = np.array_split(np.arange(len(examples)), shards)
        for i, rows in enumerate(parts):
            file = folder / f"{name}-{split}.array_record-{i:05d}-of-{shards:05d}"
            writer = ArrayRecordWriter(str(file), "group_size:1")
            for row in rows:
                writer.write(encoder.encode(examples[row]))
            writer.close()
        template = tfds.core.ShardedFileTemplate(
            data_dir=str(folder), dataset_name=name, split=split, filetype_suffix="array_record"
        )
        lengths = [len(rows) for rows in parts]
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=1, filename_template=template))
        _write_index(folder, split, examples)
    meta = dict(data_dir=str(folder), features=schema.features, split_infos=infos, description="", check_data=False)
    tfds.folder_dataset.write_metadata(**meta)
    sets = {"labels": {"multilabel": False, "metric": "top1"}, "sounds": {"multilabel": True, "metric": "map"}}
    info = dict(schema=1, name=name, title="Zoo", modalities=["audio", "frames", "text"], label_sets=sets)
    info |= dict(settings={"rate": RATE}, texts=["text", "no_label"], notes=["Made here."], splits={}, digest=digest)
    (folder / "prepared.json").write_text(json.dumps(info))
    return folder


def damage(folder, split, row):
    """Flips one bit where it damages record `row` and no other; the shard."""
    file, _ = Folder(folder).split(split)._shard(row)
    data = file.read_bytes()
    for place in range(0, len(data), 500):
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        records = Folder(folder).split(split)
        if [i for i in range(len(records)) if not _readable(records, i)] == [row]:
            return file
    raise AssertionError("no place found")


def _readable(records, row):
    try:
        return bool(records[row])
    except ValueError:
        return False


def _write_index(folder, split, examples):
    columns = {"id": np.array([e["id"] for e in examples]), "source": np.array([e["source"] for e in examples])}
    for name in CLASSES:
        found = [e["labels"][name][0] for e in examples]
        columns[f"label-{name}"] = np.concatenate(found).astype(np.int32)
        columns[f"offset-{name}"] = np.cumsum([0, *map(len, found)])
    columns["present"] = np.array(
        [[len(e["audio"]) > 0, len(e["frames"]) > 0, bool(e["texts"]["text"])] for e in examples]
    )
    np.savez(folder / f"index-{split}.npz", duration=np.float32([e["duration"] for e in examples]), **columns)
