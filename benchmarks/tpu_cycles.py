"""What a program would cost on a TPU, from ahead-of-time compilation: no TPU is needed, but libtpu is.

Two sources, both the compiler's and neither a measurement. XLA writes `estimated_cycles` at each operation of the
compiled program; those in a loop are multiplied by its trip count. Kernels carry no such number: for them it is the
length of their final instruction schedule (one bundle of instructions per cycle) times the iterations of their loop,
which leaves out waiting for memory.
"""

import glob
import os
import re
from collections import Counter

FLOP_PER_CYCLE = {"v5e": 4 * 128 * 128 * 2}  # four matrix units; 197 TFLOP/s at 1.5 GHz
TOPOLOGY = {"v5e": "v5e:2x2"}


def environment(dump: str) -> dict[str, str]:
    """Environment variables for a process that compiles for a TPU and writes the schedules to the folder `dump`.

    To be set before jax is imported: with libtpu installed and no TPU there, jax hangs unless told to use the CPU.
    Flags that are in LIBTPU_INIT_ARGS already stay.
    """
    flags = f"--xla_jf_dump_to={dump} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=.*final_bundles.*"
    own = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    flags = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {flags}".strip()
    return {**os.environ, **own, "LIBTPU_INIT_ARGS": flags, "TPU_SCHEDULES": dump}


def topology_devices(name: str):
    """The devices of a topology that is not there."""
    from jax.experimental import topologies

    return topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY[name]).devices


def cycles(hlo: str) -> Counter:
    """{(kind, operation): cycles} of a compiled program's text; kind is the operation's name without its number."""
    computations, entry = _computations(hlo)
    found, kernels = Counter(), _kernels(hlo)

    def walk(name: str, times: int) -> None:
        for line in computations[name]:
            label = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = ", line)
            estimate = re.search(r'"estimated_cycles":"(\d+)"', line)
            if label and label[1] in kernels:
                found[label[1].split(".")[0], label[1]] += times * kernels[label[1]]
            elif label and estimate:
                found[label[1].split(".")[0], label[1]] += times * int(estimate[1])
            if loop := re.search(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)", line):
                walk(loop[2], times * _trips(line, computations[loop[1]]))

    walk(entry, 1)
    return found


def _computations(hlo: str) -> tuple[dict[str, list[str]], str]:
    """Lines of each computation by its name, and the name of the entry."""
    found, current, entry = {}, None, None
    for line in hlo.splitlines():
        head = re.match(r"^(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head:
            current = found.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None:
            current.append(line)
    return found, entry


def _trips(loop: str, condition: list[str]) -> int:
    """How often a loop runs: as the compiler says, or by the one number that its condition compares with."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop):
        return int(known[1])
    (bound,) = re.findall(r"s32\[\]\S* constant\((\d+)\)", "\n".join(condition))
    return int(bound)


def _kernels(hlo: str) -> dict[str, int]:
    """Cycles of each kernel by its operation's name. Of equal kernels the compiler schedules one, which counts for
    all; a kernel without a schedule ends the program, for its cost is unknown."""
    called = [line for line in hlo.splitlines() if 'custom_call_target="tpu_custom_call"' in line]
    bodies = {re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = ", c)[1]: re.search(r'"body":"([^"]*)"', c)[1] for c in called}
    known = {bodies[name]: cycles for name, cycles in _schedules().items() if name in bodies}
    if missing := sorted(name for name, body in bodies.items() if body not in known):
        raise SystemExit(f"no schedule was written for the kernels {missing}: their cost is unknown")
    return {name: known[body] for name, body in bodies.items()}


def _schedules() -> dict[str, int]:
    """Bundles times iterations of each operation for which the compiler wrote a schedule down."""
    found = {}
    for path in glob.glob(os.path.join(os.environ["TPU_SCHEDULES"], "*schedule-analysis_final_bundles.txt")):
        with open(path) as file:
            bundles = re.search(r"total scheduled bundles:\s+(\d+)", file.read(500))
        listing = glob.glob(re.sub(r"-\d+-schedule-analysis_final_bundles", "-[0-9]*-final_bundles", path))[0]
        with open(listing) as file:
            tests = re.findall(r"scmp.ge.s32.totalorder \S+, (\d+) /\* loop exit test \*/", file.read())
        if bundles:
            found[os.path.basename(path).split("-")[1]] = int(bundles[1]) * max(map(int, tests), default=1)
    return found
