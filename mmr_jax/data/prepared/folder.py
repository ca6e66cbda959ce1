"""A folder that mmr prepare wrote: its description, indices and shards."""

import functools
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from mmr_jax.data.prepare.layout import shard_name
from mmr_jax.data.prepare.records import Decoder, Example, class_names, features_of, read_info
from mmr_jax.data.prepared.index import Index
from mmr_jax.errors import UserError, nearest
from mmr_jax.files import read_json

_OPEN = 128  # shards that a split keeps open: a large set has more than a process may


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
        self._splits: dict[str, Split] = {}

    @property
    def splits(self) -> list["Split"]:
        """The records of all splits."""
        return [self.split(name) for name in self._lengths]

    def split(self, name: str) -> "Split":
        """The records of a split; UserError if there is none, or a shard is missing."""
        if name not in self._lengths:
            raise UserError(f"{self.path} has no split {name!r}{nearest(name, self._lengths)}")
        if name not in self._splits:
            lengths = self._lengths[name]
            files = [self.path / shard_name(self.info["name"], name, i, len(lengths)) for i in range(len(lengths))]
            index = Index(self.path, name, sum(lengths), self.classes)
            self._splits[name] = Split(name, files, lengths, index, self._decoder)
        return self._splits[name]


class Split:
    """Examples by random access, and the `index`. Can be read by several threads, and sent to another process."""

    def __init__(self, name: str, files: list[Path], lengths: list[int], index: Index, decoder: Decoder):
        self.name, self.files, self.index, self._decoder = name, files, index, decoder
        self._ends, self._starts = np.cumsum(lengths), np.cumsum([0, *lengths[:-1]])
        for file in files:
            if not file.is_file():
                raise UserError(f"{file} is missing; delete the folder and run mmr prepare again")
        self._reader = functools.lru_cache(maxsize=_OPEN)(_open)

    def __reduce__(self):
        lengths = (self._ends - self._starts).tolist()
        return Split, (self.name, self.files, lengths, self.index, self._decoder)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def _shard(self, row: int) -> tuple[Path, int]:
        """(file, record in it) of record `row`."""
        shard = int(np.searchsorted(self._ends, row, side="right"))
        return self.files[shard], row - int(self._starts[shard])

    def place(self, row: int) -> str:
        """Where record `row` lies, for messages: file, record in it, and the clip's id."""
        file, record = self._shard(row)
        return f"{file}: record {record} ({self.index['id'][row]})"

    def __getitem__(self, row: int) -> Example:
        """The example of record `row`; ValueError if its bytes are damaged (ArrayRecord keeps a hash of them)."""
        file, record = self._shard(row)
        try:
            data = self._reader(file).read([record])[0]
        except Exception as error:  # array_record raises what it likes
            reason = (str(error).split("; ")[0].splitlines() or [type(error).__name__])[0]
            if "open()" in reason or isinstance(error, OSError):  # the system's fault, not the data's
                raise UserError(f"{file} cannot be opened: {reason}") from None
            raise ValueError(reason) from error
        return self._decoder.decode(data)


def _open(file: Path) -> ArrayRecordReader:
    return ArrayRecordReader(str(file), options="readahead_buffer_size:0")
