"""Reading the text of a compiled program: its operations, and how often each of them runs."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_OPERATION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\(")
_CALLS = {
    "call": r"to_apply=%?([\w.\-]+)",
    "conditional": r"(?:true_computation|false_computation)=%?([\w.\-]+)",
    "fusion": r"calls=%?([\w.\-]+)",
    "async-start": r"calls=%?([\w.\-]+)",
}


class Operation(NamedTuple):
    """One line of a program: `type` is that of its result, `times` how often it runs in one call of the program.

    `inside`: it is a part of a fusion or of an asynchronous operation, whose cost stands at the whole.
    """

    name: str
    type: str
    opcode: str
    line: str
    times: int
    inside: bool


class Program:
    """The operations of a program from its text, those of loops with their trip counts.

    `devices`: over how many the program is split. `unbounded`: loops whose trip count is not known, and which count as
    one pass.
    """

    def __init__(self, text: str):
        self._computations, self._entry = _computations(text)
        partitions = re.search(r"num_partitions=(\d+)", text.partition("\n")[0])
        self.devices = int(partitions[1]) if partitions else 1
        self.unbounded: list[str] = []
        self.operations = list(self._walk(self._entry, 1, False))

    def _walk(self, computation: str, times: int, inside: bool) -> Iterator[Operation]:
        for line in self._computations.get(computation, ()):
            found = _OPERATION.match(line)
            if not found:
                continue
            operation = Operation(*found.groups(), line, times, inside)
            yield operation
            yield from self._called(operation)

    def _called(self, operation: Operation) -> Iterator[Operation]:
        name, _, opcode, line, times, inside = operation
        if opcode == "while":
            condition, body = re.search(r"condition=%?([\w.\-]+), body=%?([\w.\-]+)", line).groups()
            trips = _trips(line, self._computations[condition])
            if trips is None:
                self.unbounded.append(name)
            yield from self._walk(body, times * (1 if trips is None else trips), inside)
        elif opcode in _CALLS:
            for called in re.findall(_CALLS[opcode], line) + _branches(line):
                yield from self._walk(called, times, inside or opcode in ("fusion", "async-start"))


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Lines of each computation by its name, and the name of the entry."""
    found, current, entry = {}, None, ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = found.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None:
            current.append(line)
    return found, entry


def _branches(line: str) -> list[str]:
    found = re.search(r"branch_computations=\{([^}]*)\}", line)
    return re.findall(r"[\w.\-]+", found[1]) if found else []


def _trips(loop: str, condition: list[str]) -> int | None:
    """How often a loop runs: as the compiler says, or by the one number that its condition compares with."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop):
        return int(known[1])
    bounds = re.findall(r"s32\[\]\S* constant\((\d+)\)", "\n".join(condition))
    return int(bounds[0]) if len(bounds) == 1 else None
