"""What the devices of a compiled program send each other: how often, and how many bytes."""

import math
import re
from dataclasses import dataclass

from mmr_jax.plan.hlo import Operation, Program

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)(?:e\d+m\d+\w*)?\[([\d,]*)\]")


@dataclass(frozen=True)
class Collective:
    """All operations of one kind over groups of `group` devices in one call of the program: `count` of them, whose
    arrays hold `bytes` on a device (the whole one, of a gather or a scatter)."""

    kind: str
    group: int
    count: int
    bytes: int

    @property
    def sent(self) -> float:
        """Bytes that each device sends, of the usual algorithms, which use every link alike."""
        share = (self.group - 1) / self.group
        shares = {"all-reduce": 2 * share, "collective-permute": 1.0}
        return self.bytes * shares.get(self.kind, share)


def find_collectives(program: Program) -> list[Collective]:
    """The collectives of a program, the largest kind first; those among groups of one device are none."""
    sums: dict[tuple[str, int], list[int]] = {}
    for op in program.operations:
        kind = op.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        group = 2 if kind == "collective-permute" else _group(op.line, program.devices)
        if group > 1:
            entry = sums.setdefault((kind, group), [0, 0])
            entry[0] += op.times
            entry[1] += op.times * _bytes(op, kind, group)
    found = [Collective(*key, *entry) for key, entry in sums.items()]
    return sorted(found, key=lambda c: -c.sent)


def _bytes(op: Operation, kind: str, group: int) -> int:
    """Of the result; where an operation has begun only, of the half of its result that is not its operand."""
    arrays = [_size(*found) for found in _ARRAY.findall(op.type)]
    if op.opcode == "all-gather-start":
        arrays = arrays[len(arrays) // 2 :]
    if op.opcode == "collective-permute-start":
        arrays = arrays[:1]
    return sum(arrays) * (group if kind == "reduce-scatter" else 1)


def _size(dtype: str, shape: str) -> int:
    bits = 8 if dtype == "pred" else int(re.search(r"\d+", dtype)[0])
    return math.prod(int(n) for n in shape.split(",") if n) * bits // 8


def _group(line: str, devices: int) -> int:
    """How many devices one operation joins. Written {{0,1},{2,3}}, or [groups,devices]<=[..], or as axes of a mesh,
    mesh['a'=2,'b'=4] {'b'}; an empty list means all."""
    if tiled := re.search(r"replica_groups=\[(\d+),(\d+)\]", line):
        return int(tiled[2])
    if axes := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", line):
        sizes = dict(re.findall(r"'([^']*)'=(\d+)", axes[1]))
        named = re.findall(r"'([^']*)'(?::\(\d+\)(\d+))?", axes[2])  # an axis, or :(before)size of a part of one
        return math.prod(int(part or sizes[name]) for name, part in named)
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
    return len(listed[1].split(",")) if listed else devices
