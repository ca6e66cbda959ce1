"""What a checkpoint's pickle may name, and what its names and calls become: records that do nothing."""

import re
from typing import NamedTuple

NAMES = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
    "torch.Size",
    "torch.device",
    "torch.storage.UntypedStorage",
    "torch.storage.TypedStorage",
    "torch.jit._pickle.restore_type_tag",
    "torch.jit._pickle.build_intlist",
    "torch.jit._pickle.build_boollist",
    "torch.jit._pickle.build_doublelist",
    "torch.jit._pickle.build_tensorlist",
    "argparse.Namespace",  # the command line that checkpoints of MAE keep beside the weights
}
# Storages and dtypes of torch, and the classes of a TorchScript archive, which exist nowhere else.
PATTERNS = (
    r"torch\.[A-Z][A-Za-z0-9]*Storage",
    r"torch\.(float|bfloat|int|uint|bool|complex)[a-z0-9_]*",
    r"__torch__\..+",
)


class Global(NamedTuple):
    """A name that the pickle would have imported, "module.name"."""

    name: str


class Persistent(NamedTuple):
    """A reference to something outside the pickle: a storage, for torch."""

    id: object


class Record:
    """A call that was not made: `name`, its `args`, and the `state` that would have been set on the result."""

    __slots__ = ("name", "args", "state")

    def __init__(self, name: str, args: tuple):
        self.name, self.args, self.state = name, args, None


def allowed(name: str) -> bool:
    """Whether a checkpoint may name this."""
    return name in NAMES or any(re.fullmatch(pattern, name) for pattern in PATTERNS)
