"""How often the operations of a program run, on small program texts."""

from mmr_jax.plan.hlo import Program

LOOPS = """HloModule step
%inner (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %add.1 = f32[8]{0} add(%p, %p)
}

%outer (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %while.1 = (s32[], f32[8]{0:T(128)}) while(%p), condition=%bound, body=%inner, x={"known_trip_count":{"n":"3"}}
  %add.2 = f32[8]{0} add(%p, %p)
}

%bound (p: (s32[], f32[8])) -> pred[] {
  %constant.9 = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[] compare(%i, %constant.9), direction=LT
}

%open (p: (s32[], f32[8])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %j), direction=LT
}

%fused (a: f32[8]) -> f32[8] {
  ROOT %add.3 = f32[8]{0} add(%a, %a)
}

%on (a: f32[8]) -> f32[8] {
  ROOT %add.4 = f32[8]{0} add(%a, %a)
}

%off (a: f32[8]) -> f32[8] {
  ROOT %add.5 = f32[8]{0} add(%a, %a)
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %while.2 = (s32[], f32[8]) while(%t), condition=%bound, body=%outer
  %while.3 = (s32[], f32[8]) while(%t), condition=%open, body=%inner
  %fusion.1 = (f32[8]{0}, /*index=1*/f32[8]{0}) fusion(%a), kind=kLoop, calls=%fused
  %conditional.1 = f32[8]{0} conditional(%p, %a, %a), branch_computations={%on, %off}
  ROOT %call.1 = f32[8]{0} call(%a), to_apply=%fused
}
"""


def test_nested_loops_multiply():
    times = {}
    for op in Program(LOOPS).operations:
        times[op.name] = times.get(op.name, 0) + op.times
    assert times["add.1"] == 5 * 3 + 1  # the loop without a known bound counts as one pass
    assert times["add.2"] == 5 and times["add.4"] == times["add.5"] == 1
    assert times["while.1"] == 5


def test_loops_without_a_bound_are_named():
    assert Program(LOOPS).unbounded == ["while.3"]


def test_parts_of_fusions_are_marked():
    found = [(op.inside, op.opcode) for op in Program(LOOPS).operations if op.name == "add.3"]
    assert found == [(True, "add"), (False, "add")]
    assert next(op.type for op in Program(LOOPS).operations if op.name == "fusion.1").startswith("(f32[8]")
