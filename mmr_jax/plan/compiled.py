"""Ahead-of-time compilation of one step, and what the compiler says of it."""

import re
import time
from dataclasses import dataclass

from jax.errors import JaxRuntimeError

from mmr_jax.errors import UserError
from mmr_jax.plan.cycles import Cycles, count_cycles, forget_schedules
from mmr_jax.plan.hlo import Program
from mmr_jax.plan.steps import Call, bytes_per_device

_TOO_LARGE = re.compile(r"HbmOom.*?\(([\d.]+)([KMGT])\) exceeds available HBM", re.S)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_COLLECTIVES = ("all_gather", "all_reduce", "reduce_scatter")
_WITHOUT_SPARSECORES = {
    "xla_tpu_offload_gather_to_sparsecore": "false",
    "xla_tpu_enable_offloading_scatter_to_sparsecore": "DISABLED",
    **{f"xla_tpu_enable_sparse_core_collective_offload_{name}": "false" for name in _COLLECTIVES},
}


@dataclass(frozen=True)
class Compiled:
    """`seconds` by the clock and of `processor` time, of all threads. `memory`: bytes per device by kind, as the
    compiler counts them. A program that does not fit has neither `program` nor `cycles`. `note`: how it was come by."""

    seconds: float
    processor: float
    memory: dict[str, int]
    program: Program | None
    cycles: Cycles | None
    note: str = ""

    @property
    def total(self) -> int:
        return self.memory["total"]


def compile_call(call: Call, name: str) -> Compiled:
    """Compile for the devices that the arguments lie on. What the compiler refuses is a UserError."""
    forget_schedules()
    begun = time.perf_counter(), time.process_time()
    try:
        lowered = call.fn.trace(*call.args).lower()
        made = lowered.compile()
    except (JaxRuntimeError, NotImplementedError) as error:
        if found := _TOO_LARGE.search(str(error)):
            return _too_large(call, int(float(found[1]) * _UNITS[found[2]]), _since(begun))
        raise UserError(f"{name}: the compiler refuses it: {str(error).splitlines()[0]}") from None
    spent = _since(begun)
    program, note = _program(made, lowered)
    return Compiled(*spent, _memory(made), program, program and count_cycles(program), note)


def _since(begun: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


def _too_large(call: Call, total: int, seconds: tuple[float, float]) -> Compiled:
    """What the compiler says of a program that it refuses for its size: all in all, arguments included."""
    arguments = bytes_per_device(call.kinds)
    sizes = {"arguments": arguments, "temporaries": total - arguments, "total": total}
    return Compiled(*seconds, sizes, None, None, "too large: no program, no cycles")


def _memory(made) -> dict[str, int]:
    found = made.memory_analysis()
    kept = found.output_size_in_bytes - found.alias_size_in_bytes
    sizes = {
        "arguments": found.argument_size_in_bytes,
        "temporaries": found.temp_size_in_bytes,
        "outputs": kept,
        "code": found.generated_code_size_in_bytes,
    }
    return {**sizes, "total": sum(sizes.values())}


def _program(made, lowered) -> tuple[Program | None, str]:
    """The program and where it is from: libtpu cannot print one that uses SparseCores (v5p, v6e, tpu7x), so then it is
    that of another compilation."""
    try:
        return Program(made.as_text()), ""
    except JaxRuntimeError:
        pass
    try:
        again = lowered.compile(compiler_options=_WITHOUT_SPARSECORES)
        return Program(again.as_text()), "cycles and collectives are of a program that uses no SparseCores"
    except JaxRuntimeError:
        return None, "libtpu cannot print the program: no cycles, no collectives"
