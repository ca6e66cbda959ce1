"""Ahead-of-time compilation of one step, and what the compiler says of it."""

import re
import time
from dataclasses import dataclass

import jax
from jax.errors import JaxRuntimeError

from mmr_jax.errors import UserError
from mmr_jax.plan.cycles import Cycles, count_cycles, forget_schedules
from mmr_jax.plan.hlo import Program
from mmr_jax.plan.steps import Call, bytes_per_device

_TOO_LARGE = re.compile(r"HbmOom.*?\(([\d.]+)([KMGT])\) exceeds available HBM", re.S)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Compiled:
    """`seconds` by the clock and of `processor` time, of all threads. `memory`: bytes per device by kind, as the
    compiler counts them. A program that does not fit has neither `program` nor `cycles`."""

    seconds: float
    processor: float
    memory: dict[str, int]
    program: Program | None
    cycles: Cycles | None

    @property
    def total(self) -> int:
        return self.memory["total"]


def compile_call(call: Call, name: str) -> Compiled:
    """Compile for the devices that the arguments lie on. What the compiler refuses is a UserError."""
    forget_schedules()
    begun = time.perf_counter(), time.process_time()
    try:
        made = call.fn.trace(*call.args).lower().compile()
    except (JaxRuntimeError, NotImplementedError) as error:
        if found := _TOO_LARGE.search(str(error)):
            return _too_large(call, int(float(found[1]) * _UNITS[found[2]]), _since(begun))
        raise UserError(f"{name}: the compiler refuses it: {str(error).splitlines()[0]}") from None
    spent = _since(begun)
    try:
        program = Program(made.as_text())
    except JaxRuntimeError:
        raise UserError(
            f"{name}: libtpu cannot print it; take the version that jax {jax.__version__} asks for"
        ) from None
    return Compiled(*spent, _memory(made), program, count_cycles(program))


def _since(begun: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


def _too_large(call: Call, total: int, seconds: tuple[float, float]) -> Compiled:
    """What the compiler says of a program that it refuses for its size: all in all, arguments included."""
    arguments = bytes_per_device(call.kinds)
    sizes = {"arguments": arguments, "temporaries": total - arguments, "total": total}
    return Compiled(*seconds, sizes, None, None)


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
