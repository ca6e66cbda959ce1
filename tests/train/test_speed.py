"""Traces of steps, and the share of the devices' peak in the line that a run prints."""

import io

import jax
import pytest
import toy
from rich.console import Console

from mmr_jax import progress
from mmr_jax.flops import count_flops
from mmr_jax.objectives import Supervised
from mmr_jax.train import speed
from mmr_jax.train.log import StageProgress
from mmr_jax.train.loop import Job, fit

TEXT = {"text": toy.MODALITIES["text"]}


def test_a_trace_holds_the_steps_that_were_asked_for(tmp_path, monkeypatch):
    calls = []
    start, stop = jax.profiler.start_trace, jax.profiler.stop_trace
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: (calls.append("start"), start(folder)))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: (calls.append("stop"), stop()))
    model = toy.model(modalities=TEXT)
    recipe = toy.recipe(steps=5, batch_size=4, validate_every=0, checkpoint_every=0)
    sources = {"labelled": toy.Batches(toy.batch(20, modalities=TEXT))}
    objective = Supervised(model, ("text",))
    fit(Job("job", 0, tmp_path, objective, recipe, sources, toy.parameters(model), profile=(2, 3)), toy.mesh())
    assert calls == ["start", "stop"]
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert b"_step" in trace.read_bytes()


def test_share_of_peak_is_flops_over_what_the_devices_can_do(monkeypatch):
    product = jax.jit(lambda a, b: a @ b)
    shapes = jax.ShapeDtypeStruct((64, 32), "float32"), jax.ShapeDtypeStruct((32, 16), "float32")
    assert speed.peak() is None and speed.share_of_peak(product, *shapes) is None  # of a CPU nothing is known

    class Device:
        device_kind = "TPU v5 lite"

    monkeypatch.setattr(jax, "devices", lambda: [Device()] * 4)
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    assert speed.peak() == 4 * 197e12
    assert count_flops(product, *shapes).total == 2 * 64 * 32 * 16
    assert speed.share_of_peak(product, *shapes) == pytest.approx(2 * 64 * 32 * 16 / (4 * 197e12))
    Device.device_kind = "NVIDIA H100 80GB HBM3"
    assert speed.peak() == 4 * 989e12


def test_the_line_counts_from_the_second_step(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    shown = StageProgress("job", 30, 5, 8, Console(file=out, width=200))
    shown.share = 0.25
    now[0] = 100.0  # it compiled
    shown.update(6, 1.0)
    now[0] = 120.0
    shown.update(26, 0.5)
    assert "loss 0.500, 8 examples/s, 25 % of peak, data wait 0 %" in out.getvalue()
