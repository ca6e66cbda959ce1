import contextlib
import json
import signal

import jax
import numpy as np
import pytest
import toy

from mmr_jax import tree
from mmr_jax.data.balanced import Balanced
from mmr_jax.data.pipeline import batch_at
from mmr_jax.errors import Diverged, Interrupted, UserError
from mmr_jax.objectives import Supervised
from mmr_jax.seeds import fold_seed
from mmr_jax.train import interrupt
from mmr_jax.train.checkpoint import Checkpoints, load_params, save_params
from mmr_jax.train.log import MetricLog
from mmr_jax.train.loop import Best, Job, fit
from mmr_jax.train.step import make_program

TEXT = {"text": toy.MODALITIES["text"]}


def job(directory, weight=None, validate=None, name="job", **recipe):
    model = toy.model(modalities=TEXT)
    rows = toy.batch(20, modalities=TEXT)
    if weight is not None:
        rows["weight"] = weight
    settings = {"steps": 6, "batch_size": 4, "log_every": 1, "checkpoint_every": 0, "validate_every": 2, **recipe}
    sources = {"labelled": toy.Batches(rows)}
    objective = Supervised(model, ("text",))
    return Job(name, 0, directory, objective, toy.recipe(**settings), sources, toy.parameters(model), validate=validate)


def rows(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_fit_takes_the_steps_that_its_seeds_name(tmp_path):
    made = job(tmp_path)
    outcome = fit(made, toy.mesh())
    program = make_program(made.objective, made.recipe.optim, 6, 0.0, toy.mesh())
    state, losses = program.start(made.params, {}), []
    for step in range(6):
        batch = batch_at(made.sources["labelled"], 4, fold_seed(0, "job", "labelled"), step)
        state, metrics = program.step(state, {"labelled": batch}, jax.random.key(fold_seed(0, "job")))
        losses.append(float(metrics["loss"]))
    toy.assert_same(outcome.params, jax.device_get(state.params))
    logged = rows(tmp_path)
    assert [r["step"] for r in logged] == list(range(1, 7)) and [r["loss"] for r in logged] == losses
    assert (outcome.best_step, outcome.best_score, outcome.resumed_from) == (6, None, 0)
    toy.assert_same(made.params, toy.parameters(made.objective.model))  # the job's own are not donated


def test_jobs_of_one_data_name_see_the_same_batches(tmp_path):
    seen = {}
    for name in ("a", "b"):
        made = job(tmp_path / name, name=name, steps=3)
        made.data_name = "shared"

        class Told(toy.Batches):
            def take(self, indices, name=name):
                seen.setdefault(name, []).append(list(indices))
                return super().take(indices)

        made.sources = {"labelled": Told(made.sources["labelled"].rows)}
        fit(made, toy.mesh())
    assert sorted(seen["a"]) == sorted(seen["b"])


def test_the_best_parameters_on_validation_are_kept(tmp_path):
    scores, seen = iter([0.3, 0.7, 0.7]), []

    def validate(params):
        seen.append(jax.device_get(params))
        return next(scores)

    outcome = fit(job(tmp_path, validate=validate), toy.mesh())
    assert (outcome.best_step, outcome.best_score) == (4, np.float32(0.7))  # the earliest of equals
    toy.assert_same(outcome.params, seen[1])
    assert np.abs(seen[1]["head"]["kernel"] - seen[2]["head"]["kernel"]).max() > 0


def test_without_validation_steps_the_last_parameters_are_kept(tmp_path):
    outcome = fit(job(tmp_path / "a", validate=lambda params: 1 / 0, validate_every=0), toy.mesh())
    assert (outcome.best_step, outcome.best_score) == (6, None)
    toy.assert_same(outcome.params, fit(job(tmp_path / "b"), toy.mesh()).params)


def test_the_average_is_what_is_validated_and_kept(tmp_path):
    seen = []
    outcome = fit(job(tmp_path, validate=lambda p: seen.append(jax.device_get(p)) or len(seen), ema=0.9), toy.mesh())
    toy.assert_same(outcome.params, seen[-1])
    plain = fit(job(tmp_path / "plain"), toy.mesh()).params
    assert np.abs(plain["head"]["kernel"] - outcome.params["head"]["kernel"]).max() > 0


@pytest.mark.parametrize("score", [0.7, 0.1, 1 / 3])
def test_a_restored_best_compares_as_it_did(score):
    best = Best({}, score=-np.inf)
    best.offer({"a": np.zeros(1)}, score, 2)
    restored = Best({}, float(np.float32(best.score)), 2)  # as a checkpoint keeps it
    for one in (best, restored):
        one.offer({"a": np.ones(1)}, score, 4)
        assert one.step == 2


def test_nothing_compiles_after_the_first_step_and_validation(tmp_path):
    compiled, active = [], []

    def listen(event, duration, **_):
        if active and "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    calls = []

    def validate(params):
        calls.append(float(jax.device_get(params["head"]["bias"]).sum()))
        active.append(True)  # from the first validation on, which comes after two steps
        return len(calls)

    fit(job(tmp_path, validate=validate, steps=12, checkpoint_every=4), toy.mesh())
    assert len(calls) == 6 and compiled == []
    jax.jit(lambda x: x * 3 + 1)(np.arange(7))  # the listener does hear compilations
    assert compiled


def test_a_few_bad_steps_are_skipped_and_five_in_a_row_end_the_run(tmp_path):
    weight = np.ones(20, np.float32)
    weight[:2] = np.nan
    fit(job(tmp_path / "few", weight, batch_size=1, steps=20), toy.mesh())
    logged = rows(tmp_path / "few")
    assert sum(r["skipped"] for r in logged) == 2 and all((r["loss"] is None) == r["skipped"] for r in logged)
    with pytest.raises(Diverged, match="job: .* 5 steps in a row, the last is step 5;"):
        fit(job(tmp_path / "all", np.full(20, np.nan, np.float32), steps=20), toy.mesh())
    assert [r["step"] for r in rows(tmp_path / "all")] == [1, 2, 3, 4, 5]


def test_logging_is_every_so_many_steps_and_at_the_end(tmp_path):
    fit(job(tmp_path, steps=7, log_every=3), toy.mesh())
    assert [r["step"] for r in rows(tmp_path)] == [3, 6, 7]


def test_batch_size_must_fit_the_mesh(tmp_path):
    with pytest.raises(UserError, match="batch size 4"):
        fit(job(tmp_path), toy.mesh(data=8))


@contextlib.contextmanager
def kill_at(made, step, number):
    """A signal that comes while the batch of `step` is read (read ahead: some steps before)."""
    source = made.sources["labelled"]
    calls = []

    class Killer(toy.Batches):
        def take(self, indices):
            calls.append(indices)
            if len(calls) == step:
                signal.raise_signal(number)
            return super().take(indices)

    made.sources = {"labelled": Killer(source.rows)}
    with interrupt.handled():
        yield


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_rest_equals_an_uninterrupted_run(tmp_path, number):
    whole, parts = (job(tmp_path / d, steps=30, checkpoint_every=7) for d in ("whole", "parts"))
    outcome = fit(whole, toy.mesh())
    with kill_at(parts, 10, number), pytest.raises(Interrupted, match=r"job, step \d+"):
        fit(parts, toy.mesh())
    assert not interrupt.FLAG.raised
    again = fit(job(tmp_path / "parts", steps=30, checkpoint_every=7), toy.mesh())
    assert 0 < again.resumed_from < 30
    toy.assert_same(again.params, outcome.params)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_the_mean_of_checkpoints_is_kept_and_resumes_bit_for_bit(tmp_path):
    recipe = {"steps": 30, "checkpoint_every": 7, "average_every": 4, "average_from": 9}
    whole, parts = (job(tmp_path / d, **recipe) for d in ("whole", "parts"))
    outcome = fit(whole, toy.mesh())
    with kill_at(parts, 18, signal.SIGTERM), pytest.raises(Interrupted):
        fit(parts, toy.mesh())
    again = fit(job(tmp_path / "parts", **recipe), toy.mesh())
    assert 0 < again.resumed_from < 30
    toy.assert_same(again.params, outcome.params)
    program = make_program(whole.objective, whole.recipe.optim, 30, 0.0, toy.mesh())
    state, heads = program.start(whole.params, {}), {}
    for step in range(1, 31):
        batch = batch_at(toy.Batches(whole.sources["labelled"].rows), 4, fold_seed(0, "job", "labelled"), step - 1)
        state, _ = program.step(state, {"labelled": batch}, jax.random.key(fold_seed(0, "job")))
        heads[step] = np.asarray(state.params["head"]["kernel"])
    expected = np.mean([heads[s] for s in (12, 16, 20, 24, 28)], axis=0)
    np.testing.assert_allclose(outcome.params["head"]["kernel"], expected, rtol=1e-5, atol=1e-7)


def test_balanced_draws_are_what_a_job_trains_on(tmp_path):
    """A class with one example of twenty is drawn half of the time."""
    made, seen = job(tmp_path, steps=200, batch_size=4, validate_every=0), []
    rows = {**made.sources["labelled"].rows, "label": np.r_[np.zeros(19), 1].astype(np.int32)}

    class Told(toy.Batches):
        def take(self, indices):
            batch = super().take(indices)
            seen.extend(batch["label"].tolist())
            return batch

    made.sources = {"labelled": Balanced(Told(rows))}
    seen.clear()  # the labels were read once, for the weights
    fit(made, toy.mesh())
    assert abs(np.mean(seen) - 0.5) < 0.08


def test_a_cut_off_last_line_of_the_metrics_survives(tmp_path):
    log = MetricLog(tmp_path, tensorboard=False)
    for step in (1, 2, 3, 4):
        log.write(step, {"loss": step / 3, "bad": np.nan})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    MetricLog(tmp_path, resumed_at=3, tensorboard=False).close()
    assert rows(tmp_path) == [{"step": s, "loss": s / 3, "bad": None} for s in (1, 2, 3)]
    MetricLog(tmp_path, tensorboard=False).close()
    assert rows(tmp_path) == []


def test_checkpoints_keep_the_newest_and_refuse_an_older_one(tmp_path):
    state = {"step": jax.numpy.int32(4), "params": {"a": {"kernel": jax.numpy.arange(6.0).reshape(2, 3)}}}
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.restore(state) is None
    checkpoints.save(2, jax.tree.map(lambda x: x * 0, state))
    checkpoints.save(4, state)
    with pytest.raises(Exception, match="3|later"):
        checkpoints.save(3, state)
    checkpoints.close()
    reopened = Checkpoints(tmp_path / "c")
    step, found = reopened.restore(state)
    assert step == 4
    toy.assert_same(found, state)
    reopened.close()


def test_parameters_round_trip_and_another_model_is_refused(tmp_path):
    model = toy.model(modalities=TEXT)
    params = toy.parameters(model)
    save_params(tmp_path / "p", params)
    toy.assert_same(load_params(tmp_path / "p", model.shapes), params)
    assert {type(leaf) for leaf in tree.flatten(load_params(tmp_path / "p")).values()} == {np.ndarray}
    with pytest.raises(UserError, match="another model"):
        load_params(tmp_path / "p", toy.model({"width": 8}, TEXT).shapes)
    with pytest.raises(UserError, match="is absent"):
        load_params(tmp_path / "q")
