"""The arithmetic of benchmarks/tpu_cycles.py on a small program text; libtpu is not needed."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import tpu_cycles  # noqa: E402

HLO = """HloModule step
%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %fusion.2 = f32[8]{0} fusion(%p), kind=kLoop, backend_config={"estimated_cycles":"10"}
  %attention_attention.1 = bf16[2,8,128]{2,1,0} custom-call(%fusion.2), custom_call_target="tpu_custom_call", "body":"Q"
}

%condition (p: (s32[], f32[8])) -> pred[] {
  %constant.9 = s32[]{:T(128)} constant(11), backend_config={}
  ROOT %lt = pred[] compare(%i, %constant.9), direction=LT
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %while.1 = (s32[], f32[8]) while(%t), condition=%condition, body=%body, metadata={op_name="x"}
  %while.2 = (s32[], f32[8]) while(%t), condition=%condition, body=%body, x={"known_trip_count":{"n":"2"}}
  %attention_attention.2 = bf16[2,8,128]{2,1,0} custom-call(%a), custom_call_target="tpu_custom_call", "body":"Q"
  ROOT %fusion.3 = f32[8]{0} fusion(%while.1), kind=kLoop, backend_config={"estimated_cycles":"7"}
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
    monkeypatch.setenv("TPU_SCHEDULES", str(tmp_path))
    schedule(tmp_path, "attention_attention.1", 100, 6)
    found = tpu_cycles.cycles(HLO)
    assert found["fusion", "fusion.2"] == 13 * 10 and found["fusion", "fusion.3"] == 7
    assert found["attention_attention", "attention_attention.1"] == 13 * 100 * 6
    assert found["attention_attention", "attention_attention.2"] == 600  # equal to the first, so scheduled once
    assert sum(found.values()) == 13 * (10 + 600) + 7 + 600


def test_a_kernel_without_a_schedule_is_not_left_out_in_silence(tmp_path, monkeypatch):
    monkeypatch.setenv("TPU_SCHEDULES", str(tmp_path))
    with pytest.raises(SystemExit, match="attention_attention.1"):
        tpu_cycles.cycles(HLO)
