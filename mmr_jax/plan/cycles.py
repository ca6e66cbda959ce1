"""Cycles of a compiled TPU program, from ahead-of-time compilation: no TPU is needed, but libtpu is.

Two sources, both the compiler's and neither a measurement. XLA writes `estimated_cycles` at most operations of the
compiled program; those in a loop are multiplied by its trip count. Kernels carry no such number: for them it is the
length of their final instruction schedule (one bundle of instructions per cycle) times the iterations of their loop,
which leaves out waiting for memory.
"""

import glob
import os
import re
from collections import Counter
from dataclasses import dataclass, field

from mmr_jax.plan.hlo import Operation, Program

SCHEDULES = "TPU_SCHEDULES"  # the environment variable that names the folder of the kernels' schedules
_DUMP = "--xla_jf_dump_to={} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=.*final_bundles.*"
# What is worth naming when it has no estimate: the others are collectives, or small.
_WORK = {"custom-call", "fusion", "gather", "scatter", "sort", "convolution", "dot", "reduce-window"}
_FREE_CALLS = ('"AllocateBuffer"', '"AssumeGatherIndicesInBound"', '"ConcatBitcast"')


@dataclass
class Cycles:
    """`by_operation`: {(kind, operation): cycles}; the kind is the operation's name without its number. `unknown`:
    {kind: how often it runs} of what has no estimate and is not in the sum, kernels without a schedule among them."""

    by_operation: Counter = field(default_factory=Counter)
    unknown: Counter = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return sum(self.by_operation.values())


def environment(schedules: str = "") -> dict[str, str]:
    """Environment variables for a process that compiles for a TPU, and writes kernels' schedules to that folder.

    To be set before jax is imported: with libtpu installed and no TPU there, jax hangs unless told to use the CPU.
    Flags that are in LIBTPU_INIT_ARGS already stay.
    """
    own = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    if schedules:
        flags = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {_DUMP.format(schedules)}".strip()
        own |= {"LIBTPU_INIT_ARGS": flags, SCHEDULES: schedules}
    return {**os.environ, **own}


def count_cycles(program: Program) -> Cycles:
    """The cycles of one call of a program on one device."""
    found, kernels = Cycles(), _kernels(program)
    for op in program.operations:
        kind, estimate = op.name.split(".")[0], re.search(r'"estimated_cycles":"(\d+)"', op.line)
        each = kernels.get(op.name) if _is_kernel(op) else estimate and int(estimate[1])
        if op.inside:
            continue
        if each is not None:
            found.by_operation[kind, op.name] += op.times * each
        elif op.opcode in _WORK and not any(target in op.line for target in _FREE_CALLS):
            found.unknown[kind] += op.times
    return found


def _is_kernel(op: Operation) -> bool:
    return 'custom_call_target="tpu_custom_call"' in op.line


def _kernels(program: Program) -> dict[str, int]:
    """Cycles of each kernel by its operation's name. Of equal kernels the compiler schedules one, which counts for
    all."""
    called = {op.name: op.line for op in program.operations if _is_kernel(op)}
    bodies = {name: re.search(r'"body":"([^"]*)"', line)[1] for name, line in called.items()}
    known = {bodies[name]: cycles for name, cycles in _schedules().items() if name in bodies}
    return {name: known[body] for name, body in bodies.items() if body in known}


def forget_schedules() -> None:
    """Before another program is compiled, whose kernels may have the same names."""
    for path in glob.glob(os.path.join(os.environ[SCHEDULES], "*")) if SCHEDULES in os.environ else ():
        os.remove(path)


def _schedules() -> dict[str, int]:
    """Bundles times iterations of each operation for which the compiler wrote a schedule down."""
    found = {}
    folder = os.environ.get(SCHEDULES)
    for path in glob.glob(os.path.join(folder, "*schedule-analysis_final_bundles.txt")) if folder else ():
        with open(path) as file:
            bundles = re.search(r"total scheduled bundles:\s+(\d+)", file.read(500))
        listing = glob.glob(re.sub(r"-\d+-schedule-analysis_final_bundles", "-[0-9]*-final_bundles", path))[0]
        with open(listing) as file:
            tests = re.findall(r"scmp.ge.s32.totalorder \S+, (\d+) /\* loop exit test \*/", file.read())
        if bundles:
            found[os.path.basename(path).split("-")[1]] = int(bundles[1]) * max(map(int, tests), default=1)
    return found
