"""The arithmetic of estimated cycles on a small program text; libtpu is not needed."""

from mmr_jax.plan.cycles import SCHEDULES, count_cycles, environment, forget_schedules
from mmr_jax.plan.hlo import Program

HLO = """HloModule step
%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %fusion.2 = f32[8]{0} fusion(%p), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"10"}
  %attention_attention.1 = bf16[2,8,128]{2,1,0} custom-call(%fusion.2), custom_call_target="tpu_custom_call", "body":"Q"
}

%fused (p: f32[8]) -> f32[8] {
  ROOT %sort.1 = f32[8]{0} sort(%p), backend_config={"estimated_cycles":"3"}
}

%condition (p: (s32[], f32[8])) -> pred[] {
  %constant.9 = s32[]{:T(128)} constant(11), backend_config={}
  ROOT %lt = pred[] compare(%i, %constant.9), direction=LT
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %while.1 = (s32[], f32[8]) while(%t), condition=%condition, body=%body, metadata={op_name="x"}
  %while.2 = (s32[], f32[8]) while(%t), condition=%condition, body=%body, x={"known_trip_count":{"n":"2"}}
  %attention_attention.2 = bf16[2,8,128]{2,1,0} custom-call(%a), custom_call_target="tpu_custom_call", "body":"Q"
  %gather.1 = f32[8]{0} gather(%a, %a), offset_dims={}
  %custom-call.1 = f32[8]{0} custom-call(), custom_call_target="AllocateBuffer"
  ROOT %fusion.3 = f32[8]{0} fusion(%while.1), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"7"}
}
"""


def schedule(folder, name, bundles, bound):
    """The two files that the compiler writes for a kernel."""
    (folder / f"12-{name}-00-schedule-analysis_final_bundles.txt").write_text(
        f"Schedule analysis:\n\ttotal scheduled bundles:    {bundles}\n"
    )
    (folder / f"12-{name}-01-final_bundles.txt").write_text(
        f"0x1 : {{ %p1 = scmp.ge.s32.totalorder %s3_s9, {bound} /* loop exit test */ }}\n"
    )


def test_loops_and_kernels_count_as_often_as_they_run(tmp_path, monkeypatch):
    monkeypatch.setenv(SCHEDULES, str(tmp_path))
    schedule(tmp_path, "attention_attention.1", 100, 6)
    found = count_cycles(Program(HLO))
    cycles = found.by_operation
    assert cycles["fusion", "fusion.2"] == 13 * 10 and cycles["fusion", "fusion.3"] == 7
    assert cycles["attention_attention", "attention_attention.1"] == 13 * 100 * 6
    assert cycles["attention_attention", "attention_attention.2"] == 600  # equal to the first, so scheduled once
    assert found.total == 13 * (10 + 600) + 7 + 600
    assert found.unknown == {"gather": 1}


def test_a_kernel_without_a_schedule_is_not_left_out_in_silence(monkeypatch):
    monkeypatch.delenv(SCHEDULES, raising=False)
    found = count_cycles(Program(HLO))
    assert found.total == 13 * 10 + 7
    assert found.unknown == {"gather": 1, "attention_attention": 13 + 1}


def test_schedules_of_another_program_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setenv(SCHEDULES, str(tmp_path))
    schedule(tmp_path, "attention_attention.1", 100, 6)
    forget_schedules()
    assert count_cycles(Program(HLO)).unknown["attention_attention"] == 14 and list(tmp_path.iterdir()) == []


def test_flags_that_are_there_stay(monkeypatch):
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--own")
    assert environment()["LIBTPU_INIT_ARGS"] == "--own" and environment()["JAX_PLATFORMS"] == "cpu"
    found = environment("folder")
    assert found["LIBTPU_INIT_ARGS"].startswith("--own --xla_jf_dump_to=folder ") and found[SCHEDULES] == "folder"
