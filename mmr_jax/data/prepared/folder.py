"""A folder that mmr prepare wrote: its description, index and shards."""

import functools
from pathlib import Path

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource

from mmr_jax.data.prepare.records import Decoder, Example, class_names, features_of, read_info
from mmr_jax.errors import UserError, nearest
from mmr_jax.files import read_json

_ADVICE = "delete the folder and run mmr prepare again"


class Folder:
    """`info` is prepared.json, `classes` the class names of each label set."""

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()
        self.info = read_info(self.path)
        features = features_of(self.path)
        self.classes = class_names(features)
        self._decoder = Decoder(features)
        listed = read_json(self.path / "dataset_info.json")["splits"]
        self._lengths = {split["name"]: [int(n) for n in split["shardLengths"]] for split in listed}

    def split(self, name: str) -> "Split":
        """The records of a split; UserError if there is none, or a shard is missing."""
        if name not in self._lengths:
            raise UserError(f"{self.path} has no split {name!r}{nearest(name, self._lengths)}")
        return Split(self.path, self.info["name"], name, self._lengths[name], self._decoder)


class Split:
    """Examples by random access, and the columns of the index."""

    def __init__(self, path: Path, data_set: str, name: str, lengths: list[int], decoder: Decoder):
        self.name, self._decoder, self._ends, self._lengths = name, decoder, np.cumsum(lengths), lengths
        shards = [f"{data_set}-{name}.array_record-{i:05d}-of-{len(lengths):05d}" for i in range(len(lengths))]
        self.files = [str(path / shard) for shard in shards]
        for file in self.files:
            if not Path(file).is_file():
                raise UserError(f"{file} is missing; {_ADVICE}")
        self._data = _opened(self.files) if len(self) else []
        self._index_file = path / f"index-{name}.npz"

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def place(self, row: int) -> str:
        """Where record `row` lies, for messages: file, record in it, and the clip's id."""
        shard = int(np.searchsorted(self._ends, row, side="right"))
        inside = row - int(self._ends[shard] - self._lengths[shard])
        return f"{self.files[shard]}: record {inside} ({self.index['id'][row]})"

    def __getitem__(self, row: int) -> Example:
        """The example of record `row`; ValueError if its bytes are damaged (ArrayRecord keeps a hash of them)."""
        try:
            data = self._data[row]
        except Exception as error:
            raise ValueError(_short(error)) from error
        return self._decoder.decode(data)

    @functools.cached_property
    def index(self) -> dict[str, np.ndarray]:
        """The columns of the index: id, source, present, duration, and label-SET with offset-SET of each label set."""
        try:
            with np.load(self._index_file) as file:
                return dict(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{self._index_file} cannot be read ({error}); {_ADVICE}") from None


def _opened(files: list[str]) -> ArrayRecordDataSource:
    """All shards at once; if that fails, UserError names the one at fault."""
    try:
        source = ArrayRecordDataSource(files)
        len(source)
        return source
    except Exception as error:  # array_record raises what it likes
        for file in files[:-1] if len(files) > 1 else []:
            _opened([file])
        raise UserError(f"{files[-1]} is damaged: {_short(error)}; {_ADVICE}") from None


def _short(error: Exception) -> str:
    """The first part of what array_record says, which goes on about chunks."""
    return (str(error).split("; ")[0].splitlines() or [type(error).__name__])[0]
