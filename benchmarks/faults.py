"""The fault suite in full: every trial has an expected end, and none may end in a silent wrong value.

    python benchmarks/faults.py [--only=flip,kill] [--table=docs/reliability.md]

A run of 300 steps of MASD (the toy model of the tests, with validation and an average of weights) is killed,
interrupted and damaged, then finished by the same command and compared bit for bit with one that was left alone.
`--table` puts the result between the marks of that page.
"""

import argparse
import collections
import contextlib
import functools
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
STEPS, EVERY, FLIPS, KILLS = 300, 10, 30, 30
# A shell that makes the worker's directory read-only for itself and what it starts; root may do that.
_REMOUNT = 'mount --bind "$3" "$3" && mount -o remount,bind,ro "$3" && exec "$0" "$@"'
READ_ONLY = ("unshare", "-m", "sh", "-c", _REMOUNT)
MARKS = ("<!-- measured -->", "<!-- end -->")


def environment(devices: int = 1) -> dict[str, str]:
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


# ---- the run under test, in a process of its own


def make_job(directory: Path, width: int = 16):
    import toy

    from mmr_jax.objectives import Masd
    from mmr_jax.train.loop import Job

    modalities = {m: toy.MODALITIES[m] for m in ("image", "text")}
    model = toy.model({"adapter_depth": 1, "width": width}, modalities)
    recipe = dict(steps=STEPS, batch_size=8, ema=0.9, checkpoint_every=EVERY, validate_every=5, log_every=1)
    sources = {
        s: toy.Batches(toy.batch(40, i, modalities=modalities)) for i, s in enumerate(("labelled", "unlabelled"))
    }

    def validate(params):
        return -abs(float(params["head"]["bias"].sum()))

    parts = (Masd(model, ("text",)), toy.recipe(**recipe), sources, toy.parameters(model))
    return Job("job", 0, directory, *parts, validate=validate)


def worker(directory: Path, width: int, devices: int, limit: int) -> None:
    """Run the job to its end; ends as the commands do (2, 75)."""
    import toy

    from mmr_jax.errors import Interrupted, UserError
    from mmr_jax.train import interrupt
    from mmr_jax.train.checkpoint import save_params
    from mmr_jax.train.loop import fit
    from mmr_jax.workdir_lock import locked

    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with interrupt.handled(ends_process=True), locked(directory):
            outcome = fit(make_job(directory, width), toy.mesh(data=devices))
            save_params(directory / "params", outcome.params)
            (directory / "done.json").write_text(json.dumps({"step": outcome.best_step, "score": outcome.best_score}))
    except (UserError, OSError) as error:
        print(f"mmr: error: {error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as error:
        print(f"mmr: {error}", file=sys.stderr)
        sys.exit(75)


def start(directory: Path, width: int = 16, devices: int = 1, limit: int = 0, before: tuple = ()) -> subprocess.Popen:
    worker = ("--worker", str(directory), str(width), str(devices), str(limit))
    return launched([*before, sys.executable, __file__, *worker], devices)


def launched(command: list[str], devices: int = 1) -> subprocess.Popen:
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, env=environment(devices), cwd=ROOT, **pipes)


def ended(process: subprocess.Popen) -> tuple[int, str]:
    out, err = process.communicate(timeout=500)
    return process.returncode, out + err


def rows(directory: Path) -> int:
    path = directory / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def until(process: subprocess.Popen, condition) -> None:
    while process.poll() is None and not condition():
        time.sleep(0.005)


def newest(directory: Path) -> int:
    return max(saved_steps(directory), default=0)


def saved_steps(directory: Path) -> list[int]:
    from mmr_jax.train.checkpoint import Checkpoints

    return Checkpoints(directory / "checkpoints").steps()


def same(directory: Path, whole: Path) -> bool:
    """Whether two finished runs agree in parameters, best step, score and every logged number, bit for bit."""
    import toy

    from mmr_jax.train.checkpoint import load_params

    toy.assert_same(load_params(directory / "params"), load_params(whole / "params"))
    return all((directory / f).read_bytes() == (whole / f).read_bytes() for f in ("metrics.jsonl", "done.json"))


# ---- trials: each yields (fault, what happened); "WRONG" in it fails the suite


def flips(folder: Path, whole: Path):
    """One bit anywhere in the newest of two checkpoints, then a restore."""
    import jax
    import numpy as np

    from mmr_jax.errors import UserError
    from mmr_jax.train.checkpoint import Checkpoints, examine

    source = whole / "checkpoints"
    truth = {step: examine(source / str(step))[0] for step in saved_steps(whole)}
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), truth[STEPS])
    draw = random.Random(5)
    for trial in range(FLIPS):
        copy = shutil.copytree(source, folder / f"flip{trial}")
        files = sorted(f for f in (copy / str(STEPS)).rglob("*") if f.is_file() and f.stat().st_size)
        weights = [f.stat().st_size for f in files] if trial % 2 else None  # by size, and every file alike
        data = bytearray((file := draw.choices(files, weights)[0]).read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        file.write_bytes(bytes(data))
        said = io.StringIO()
        with contextlib.redirect_stdout(said), Checkpoints(copy) as checkpoints:
            try:
                step, state = checkpoints.restore(target)
            except UserError as error:
                yield "one flipped bit", f"stops with the reason: {error}"
                continue
        good = all(
            np.asarray(a).tobytes() == np.asarray(b).tobytes()
            for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(truth[step]), strict=True)
        )
        told = "set aside, the step before taken" if "is damaged" in said.getvalue() else "harmless: restored as saved"
        yield "one flipped bit", told if good else f"WRONG: {file} step {step}"
        shutil.rmtree(copy)


def kills(folder: Path, whole: Path):
    """SIGKILL at random moments of one run that is started again each time; every third one inside a save."""
    draw, runs = random.Random(6), [folder / "killed0"]
    trial = 0
    while trial < KILLS:
        directory = runs[-1]
        before, inside = newest(directory), trial % 3 == 0
        process = start(directory)
        until(process, functools.partial(progressed, directory, before, before + draw.randrange(4 * EVERY), draw))
        stale = marks(directory)
        if inside:
            until(process, functools.partial(saving, directory, stale))
        time.sleep(draw.uniform(0, 0.5))
        where = "inside a save" if saving(directory, stale) else "elsewhere"
        if not alive(directory, before):
            where = "before training"
        process.kill()
        code, said = ended(process)
        after = newest(directory)
        lost = rows(directory) - after if where != "before training" else 0
        if code == 0:  # it was done before the signal came
            runs.append(folder / f"killed{len(runs)}")
            continue
        trial += 1
        if code != -signal.SIGKILL or after < before or lost > 2 * EVERY:
            yield f"SIGKILL {where}", wrong(f"ended with {code}; step {before}, then {after}; {lost} lost", said)
        else:
            yield f"SIGKILL {where}", "the run goes on from " + ("nothing" if not after else "an intact checkpoint")
    for directory in runs:
        yield "a run after these kills", finished(directory, whole)


def alive(directory: Path, before: int) -> bool:
    """The session that holds the ledger, which began at step `before`, has made a step."""
    file, log = directory / "ledger.json", directory / "metrics.jsonl"
    if not (file.exists() and log.exists()):
        return False
    return log.stat().st_mtime >= json.loads(file.read_text())[-1]["clock"] and rows(directory) > before


def marks(directory: Path) -> set[tuple[str, int]]:
    """The saves that are marked as under way, with the time of the mark; a kill leaves its own."""
    found = set()
    for mark in (directory / "checkpoints").glob("*.saving"):
        with contextlib.suppress(FileNotFoundError):
            found.add((mark.name, mark.stat().st_mtime_ns))
    return found


def saving(directory: Path, stale: set) -> bool:
    """A save is under way that was not before."""
    return bool(marks(directory) - stale)


def progressed(directory: Path, before: int, steps: int, draw) -> bool:
    """The session that began at step `before` has come to `steps`; or now and then at any time."""
    return alive(directory, before) and rows(directory) >= steps or draw.random() < 0.0001


def finished(directory: Path, whole: Path, **options) -> str:
    """Run to the end and compare."""
    code, said = ended(start(directory, **options))
    return "equal bit for bit" if code == 0 and same(directory, whole) else wrong(f"exit code {code}", said)


def wrong(what: str, said: str = "") -> str:
    return f"WRONG: {what} {said[-300:]}"


def terminations(folder: Path, whole: Path):
    """SIGTERM in every phase of one run."""
    directory, ledger = folder / "terminated", folder / "terminated/ledger.json"
    phases = {
        "start-up, before any of our code": lambda: True,
        "compilation": lambda: ledger.exists() and time.time() - ledger.stat().st_mtime > 0.6,
        "training": lambda: rows(directory) > newest(directory) + 3,
        "a save": lambda: any((directory / "checkpoints").glob("*.saving")),
    }
    for phase, condition in phases.items():
        process = start(directory)
        begun = time.time()
        until(process, lambda c=condition, b=begun: c() and time.time() > b + 0.1)
        sent = time.monotonic()
        process.terminate()
        code, said = ended(process)
        took = time.monotonic() - sent
        line = said.strip().splitlines()[-1] if said.strip() else ""
        lost = rows(directory) - newest(directory) if "which is saved" in line else 0
        good = code == 75 or (phase.startswith("start-up") and code == -signal.SIGTERM)
        end = f"exit code {code}, " + ("the step is saved" if "which is saved" in line else "nothing was to save")
        yield f"SIGTERM in {phase}", f"{end} ({took:.1f} s)" if good and not lost else wrong(f"{code} {lost}", said)
    yield "the run after these SIGTERMs", finished(directory, whole)


def half(folder: Path, name: str) -> Path:
    """A run that was killed after its checkpoint at 100."""
    directory = folder / name
    if not (folder / "half").exists():
        process = start(folder / "half")
        until(process, lambda: newest(folder / "half") >= 100)
        process.kill()
        ended(process)
    return shutil.copytree(folder / "half", directory)


def largest(step: Path) -> Path:
    return max((f for f in step.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def damages(folder: Path, whole: Path):
    """Other damage to the newest checkpoint, then the same command."""
    acts = {
        "truncated file": lambda step: os.truncate(largest(step), 100),
        "missing file": lambda step: largest(step).unlink(),
        "empty newest step": lambda step: [shutil.rmtree(step), step.mkdir()],
        "stray directory": lambda step: (step.parent / "999").mkdir(),
    }
    for name, act in acts.items():
        directory = half(folder, name.replace(" ", "-"))
        act(directory / "checkpoints" / str(max(saved_steps(directory))))
        code, said = ended(start(directory))
        if code or not same(directory, whole):
            yield name, f"WRONG: {said[-300:]}"
            continue
        told = "set aside, " if "set aside" in said else ""
        resumed = said.partition("resumes from step ")[2].split()[0]
        yield name, f"{told}goes on from an intact step; equal bit for bit" if int(resumed) else "WRONG: from nothing"


def refusals(folder: Path, whole: Path):
    """What must stop with its reason in one line, and go on when the cause is gone."""
    directory = half(folder, "refused")
    causes = {"changed model": {"width": 32}, "full disk (file size limit)": {"limit": 20000}}
    for name, options in causes.items():
        code, said = ended(start(directory, **options))
        yield name, _refusal(code, said)
    first = start(directory)
    until(first, lambda: rows(directory) > 120)
    first.send_signal(signal.SIGSTOP)  # it is alive, and stays where it is
    yield "two runs on one workdir", _refusal(*ended(start(directory)))
    first.send_signal(signal.SIGCONT)
    ended(first)
    yield "the run after all of these", "equal bit for bit" if same(directory, whole) else wrong("differs")
    directory = half(folder, "readonly")
    yield "read-only workdir", _refusal(*ended(start(directory, before=READ_ONLY)))
    yield "the run after it", finished(directory, whole)


def _refusal(code: int, said: str) -> str:
    line = said.strip().splitlines()[-1]
    reasons = ("does not fit this run", "File too large", "is in use by process", "Read-only file system")
    known = [k for k in reasons if k in line]
    good = code == 2 and line.startswith("mmr: error") and known
    return f'exit code 2, one line: "... {known[0]} ..."' if good else wrong(f"exit code {code}", said)


def devices(folder: Path, whole: Path):
    """Go on with another number of devices; the largest difference of a parameter to the run on one."""
    import numpy as np

    from mmr_jax import tree
    from mmr_jax.train.checkpoint import load_params

    truth = tree.flatten(load_params(whole / "params"))
    for count in (2, 8):
        directory = half(folder, f"devices{count}")
        code, said = ended(start(directory, devices=count))
        if code:
            yield f"resumed on {count} devices", f"WRONG: {said[-300:]}"
            continue
        found = tree.flatten(load_params(directory / "params"))
        worst = max(np.abs(found[k] - v).max() / max(np.abs(v).max(), 1e-30) for k, v in truth.items())
        a, b = (
            [json.loads(line)["loss"] for line in (d / "metrics.jsonl").read_text().splitlines()]
            for d in (directory, whole)
        )
        drift = max(abs(x - y) / abs(y) for x, y in zip(a[100:120], b[100:120], strict=True))
        yield (
            f"resumed on {count} devices",
            f"losses of the next 20 steps to {drift:.0e}, parameters after 200 more to {worst:.0e}"
            if drift < 1e-5
            else f"WRONG: {drift} {worst}",
        )


def study(workdir: Path, *changes: str) -> list[str]:
    command = [sys.executable, "-m", "mmr_jax", "run", "--config=tests/toy.py:two", f"--workdir={workdir}"]
    return [*command, "--config.pretrain.steps=60", "--config.pretrain.checkpoint_every=10", *changes]


def studies(folder: Path, whole: Path):
    """A whole study by its command: a signal in each kind of stage, and a loss that is not finite."""
    code, said = ended(launched(study(folder / "undisturbed")))
    assert code == 0, said
    workdir = folder / "disturbed"
    for kind in ("pretrain", "probe", "finetune", "evaluate", "export"):
        process = launched(study(workdir))
        until(process, lambda kind=kind: under_way(workdir, kind))
        process.terminate()
        code, said = ended(process)
        line = said.strip().splitlines()[-1]
        yield f"SIGTERM in a study, {kind}", f"exit code {code}" if code == 75 else wrong(f"{code}", line)
    code, said = ended(launched(study(workdir)))
    good = code == 0 and scores(workdir) == scores(folder / "undisturbed")
    yield "the study after these SIGTERMs", "all scores equal bit for bit" if good else wrong(f"{code}", said)
    code, said = ended(launched(study(folder / "nan", "--config.pretrain.optim.lr=1e38")))
    line = said.strip().splitlines()[-1]
    good = code == 3 and "not finite in 5 steps in a row" in line
    yield "loss that is not finite", "exit code 3, one line that names the step" if good else wrong(f"{code}", line)


def under_way(workdir: Path, kind: str) -> bool:
    """A stage of this kind has begun and not ended."""
    begun = [*workdir.glob(f"stages/*/*/{kind}-*/ledger.json"), *workdir.glob(f"stages/*/*/{kind}/*/ledger.json")]
    return any(not ledger.with_name("done.json").exists() for ledger in begun)


def scores(workdir: Path) -> list:
    """The scores of all evaluations."""
    files = sorted((workdir / "stages").rglob("done.json"))
    return [json.loads(f.read_text())["scores"] for f in files if "/evaluate/" in str(f)]


SUITES = {
    "flip": flips,
    "kill": kills,
    "term": terminations,
    "damage": damages,
    "refuse": refusals,
    "devices": devices,
    "study": studies,
}


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        return worker(Path(sys.argv[2]), *map(int, sys.argv[3:6]))
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default=",".join(SUITES))
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    os.environ.update(environment())
    counts: collections.Counter = collections.Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        code, said = ended(start(folder / "whole"))
        assert code == 0, said
        for name in options.only.split(","):
            for fault, end in SUITES[name](folder, folder / "whole"):
                print(f"{fault}: {end}", flush=True)
                counts[fault, end] += 1
    lines = ["| fault | trials | end |", "|---|---|---|"]
    lines += [f"| {fault} | {n} | {end} |" for (fault, end), n in counts.items()]
    print("\n".join(lines))
    if options.table:
        page = options.table.read_text()
        (before, *_), (_, mark, after) = page.partition(MARKS[0]), page.partition(MARKS[1])
        options.table.write_text(f"{before}{MARKS[0]}\n" + "\n".join(lines) + f"\n{mark}{after}")
    sys.exit(any("WRONG" in end for _, end in counts))


if __name__ == "__main__":
    main()
