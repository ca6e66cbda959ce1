"""The names of the files of a prepared data set, and of the columns of its index: for what writes and what reads it."""

INFO = "prepared.json"
LAYOUT = 1  # its field "schema": of all files of a prepared data set


def shard_name(data_set: str, split: str, index: int, count: int) -> str:
    """The file of shard `index` of the `count` of a split, as TFDS names it."""
    return f"{data_set}-{split}.array_record-{index:05d}-of-{count:05d}"


def index_name(split: str) -> str:
    """The file of a split's index."""
    return f"index-{split}.npz"


def label_columns(label_set: str) -> tuple[str, str]:
    """The index's columns of a label set: classes of all clips, and where those of each begin, then the end."""
    return f"label-{label_set}", f"offset-{label_set}"
