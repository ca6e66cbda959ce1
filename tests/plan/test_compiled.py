"""What becomes of a compiler's refusals, on stand-ins for the compiler."""

import types

import jax
import jax.numpy as jnp
import pytest
from jax.errors import JaxRuntimeError
from jax.sharding import NamedSharding, PartitionSpec

from mmr_jax.errors import UserError
from mmr_jax.plan.compiled import compile_call
from mmr_jax.plan.steps import Call
from mmr_jax.train.sharding import make_mesh

TOO_LARGE = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (29.50G) exceeds available HBM (15.75G). HLO module: jit__step.\nSee a page."
)
TEXT = "HloModule step\nENTRY %main (a: f32[8]) -> f32[8] {\n  ROOT %add.1 = f32[8]{0} add(%a, %a)\n}\n"


def call(compile, tree=()):
    lowered = types.SimpleNamespace(compile=compile)
    traced = types.SimpleNamespace(lower=lambda: lowered)
    return Call(types.SimpleNamespace(trace=lambda: traced), (), {"batch": tree})


def refuse(text):
    def compile(**options):
        raise JaxRuntimeError(text)

    return compile


def test_too_large_says_how_large():
    """The compiler counts arguments among what it calls temporaries; these lie on eight devices."""
    split = NamedSharding(make_mesh({"data": -1, "fsdp": 1, "tensor": 1}), PartitionSpec("data"))
    rows = jax.ShapeDtypeStruct((8 * 2**20,), jnp.float32, sharding=split)
    found = compile_call(call(refuse(TOO_LARGE), rows), "x")
    assert found.program is None and found.total == 29.5 * 2**30
    assert found.memory["temporaries"] == found.total - 4 * 2**20


def test_another_refusal_is_one_line():
    with pytest.raises(UserError, match="^x: the compiler refuses it: INTERNAL: no$"):
        compile_call(call(refuse("INTERNAL: no\nand a page of details")), "x")


def test_sizes_are_the_compilers():
    sizes = ("argument", "output", "alias", "temp", "generated_code")
    memory = types.SimpleNamespace(**{f"{s}_size_in_bytes": 2**i for i, s in enumerate(sizes)})
    made = types.SimpleNamespace(as_text=lambda: TEXT, memory_analysis=lambda: memory)
    found = compile_call(call(lambda: made), "x")
    assert [op.opcode for op in found.program.operations] == ["add"]
    assert found.memory == {"arguments": 1, "temporaries": 8, "outputs": 2 - 4, "code": 16, "total": 1 + 8 + 2 - 4 + 16}


def test_a_program_that_cannot_be_printed_is_one_line():
    """As newer libtpu than jax asks for refuse to, where programs use SparseCores."""
    made = types.SimpleNamespace(as_text=refuse("INTERNAL: RET_CHECK failure"))
    with pytest.raises(UserError, match="libtpu cannot print it.*the version that jax"):
        compile_call(call(lambda: made), "x")
