"""The study: a small graph of stages (pretrain, probe, train per M_T, evaluate per method), each kept when finished.

A stage is named by the digest of all that it depends on, so the same command resumes and a changed option repeats
only what it touches.
"""

import functools
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from mmr_jax import config as configs
from mmr_jax import methods, stages
from mmr_jax.checks import check, check_splits
from mmr_jax.data.source import Dataset, Source, Subset, load_dataset
from mmr_jax.errors import UserError, nearest
from mmr_jax.export import publish
from mmr_jax.models.model import Model, build_model
from mmr_jax.robustness.subsets import all_subsets, subset_name
from mmr_jax.seeds import fold_seed
from mmr_jax.train import interrupt
from mmr_jax.train.sharding import make_mesh

# Fields that a stage's name holds already, or that change nothing in its result.
_NEUTRAL = re.compile(r"^pretrain\.modalities$|\.(log_every|checkpoint_every)$")
SCHEMA = 1  # raise it when stages of older versions must not be taken for finished


@dataclass(frozen=True)
class Stage:
    """One node: `settings` is the part of the config that it depends on, `needs` the stages that it reads."""

    kind: str
    name: str
    seed: int
    pretrain: str
    run: Callable = field(compare=False)
    settings: dict = field(compare=False)
    needs: tuple["Stage", ...] = ()
    method: str = ""
    train: str = ""

    @functools.cached_property
    def key(self) -> str:
        """Digest of everything that the stage's result depends on."""
        depends = [SCHEMA, self.name, self.settings, [s.key for s in self.needs]]
        return hashlib.blake2b(json.dumps(depends, sort_keys=True).encode(), digest_size=6).hexdigest()


class Study:
    """A config and a workdir, and what the stages share: data, model, mesh."""

    def __init__(self, config: ConfigDict, workdir: str | Path, console: Console | None = None):
        check(config)
        self.config, self.workdir = config, Path(workdir)
        self.console = console or Console()
        self.modalities = sorted(config.modalities)
        self.eval_subsets = all_subsets(self.modalities)
        self.train_subsets = [subset_name(s.split("+")) for s in config.study.train_subsets] or self.eval_subsets

    @functools.cached_property
    def dataset(self) -> Dataset:
        found = load_dataset(self.config.data, self.config.modalities)
        check_splits(self.config.study.test_splits, list(found.splits))
        return found

    @functools.cached_property
    def model(self) -> Model:
        frozen = configs.freeze(self.config)
        return build_model(frozen.model, frozen.modalities, len(self.dataset.class_names))

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        return make_mesh(self.config.mesh)

    @property
    def metric(self) -> str:
        return self.dataset.metric

    def path(self, stage: Stage) -> Path:
        """The directory of a stage."""
        return self.workdir / "stages" / f"{stage.name}-{stage.key}"

    def record(self, stage: Stage) -> dict | None:
        """What a finished stage wrote down, or None."""
        path = self.path(stage) / "done.json"
        return json.loads(path.read_text()) if path.exists() else None

    # ---- data that stages share

    def labelled(self, seed: int) -> Source:
        """The labelled set, without what MASD takes from it, cut to the share of labels that the config asks for."""
        source, order = self._train_order(seed)
        rest = order[self._taken(len(source)) :]
        return Subset(source, np.sort(rest[: max(1, round(self.config.finetune.label_share * len(rest)))]))

    def distillation(self, seed: int) -> Source:
        """D_SD: the pretraining pool, or a share of the training set whose labels are then used nowhere."""
        if self.config.masd.source == "pretraining":
            return self.dataset.splits["unlabelled"]
        source, order = self._train_order(seed)
        return Subset(source, np.sort(order[: self._taken(len(source))]))

    def _train_order(self, seed: int) -> tuple[Source, np.ndarray]:
        source = self.dataset.splits["labelled"]
        return source, np.random.default_rng(fold_seed(seed, "labels")).permutation(len(source))

    def _taken(self, size: int) -> int:
        return round(self.config.masd.train_share * size) if self.config.masd.source == "train" else 0

    # ---- the graph

    def stages(self) -> list[Stage]:
        """All stages in an order in which each comes after those it needs."""
        found = []
        for seed in self.config.seeds:
            for subset in self.config.pretrain.modalities:
                pretrain = "+".join(self.modalities) if subset == "all" else subset_name(subset.split("+"))
                found += self._branch(int(seed), pretrain)
        return found + self._export(found)

    def _export(self, found: list[Stage]) -> list[Stage]:
        """The model of `study.export` as files for prediction: first seed, largest pretraining set."""
        method = self.config.study.export
        evaluated = [s for s in found if s.kind == "evaluate" and s.method == method and s.seed == found[0].seed]
        if not evaluated:
            return []
        e = max(evaluated, key=lambda s: s.pretrain.count("+"))
        settings = self._part("study.export", *(["wise_ft.alpha"] if method in methods.INTERPOLATED else []))
        name = f"seed{e.seed}/{e.pretrain}/export"
        more = dict(seed=e.seed, pretrain=e.pretrain, needs=e.needs, method=method)
        return [Stage("export", name, run=stages.export, settings=settings, **more)]

    def _branch(self, seed: int, pretrain: str) -> list[Stage]:
        make = functools.partial(Stage, seed=seed, pretrain=pretrain)
        prefix = f"seed{seed}/{pretrain}"
        first = make("pretrain", f"{prefix}/pretrain", run=stages.pretrain, settings=self._part("pretrain", "model"))
        probe = make(
            "train",
            f"{prefix}/probe",
            run=stages.probe,
            settings=self._part(
                "probe", "masd.source", "masd.train_share", "finetune.label_share", "study.train_subsets"
            ),
            needs=(first,),
        )
        trained = {}
        for method in methods.trained_for(self.config.study.methods):
            for train in self.train_subsets:
                if methods.objective(method, self.config, self.model, train.split("+"), False) is None:
                    trained[method, train] = trained["finetune", train]
                    continue
                trained[method, train] = make(
                    "train",
                    f"{prefix}/{method}/{train}",
                    run=stages.train,
                    settings=self._part(
                        "finetune", *([methods.SETTINGS[method]] if method in methods.SETTINGS else [])
                    ),
                    needs=(first, probe),
                    method=method,
                    train=train,
                )
        evaluated = [self._evaluation(make, prefix, m, first, probe, trained) for m in self.config.study.methods]
        return [first, probe, *dict.fromkeys(trained.values()), *evaluated]

    def _evaluation(self, make, prefix, method, first, probe, trained) -> Stage:
        source = methods.INTERPOLATED.get(method, method)
        needs = [] if method == methods.PROBE else [trained[source, t] for t in self.train_subsets]
        parts = ["study.test_splits", "study.save_predictions"]
        parts += ["wise_ft"] if method in methods.INTERPOLATED else []
        return make(
            "evaluate",
            f"{prefix}/evaluate/{method}",
            run=stages.evaluate,
            settings=self._part(*parts),
            needs=(first, probe, *needs),
            method=method,
        )

    def _part(self, *names: str) -> dict:
        """The named blocks and fields of the config, and always data and modalities."""
        flat = configs.flatten(configs.to_dict(self.config))
        wanted = ("data", "modalities", *names)
        return {
            k: v
            for k, v in flat.items()
            if any(k == w or k.startswith(w + ".") for w in wanted) and not _NEUTRAL.search(k)
        }

    # ---- what the evaluation of a method reads

    def alphas(self, method: str) -> Sequence[float | None]:
        """The alphas at which a method is evaluated; (None,) if it is no interpolation."""
        if method not in methods.INTERPOLATED:
            return (None,)
        return sorted({*self.config.wise_ft.alphas, self.config.wise_ft.alpha})

    def keeps_predictions(self, split: str, alpha: float | None) -> bool:
        main = split == self.config.study.test_splits[0] and alpha in (None, self.config.wise_ft.alpha)
        return main and self.config.study.save_predictions

    def ends(self, stage: Stage, train: str) -> tuple[dict, dict]:
        """(trained weights, linear probe) of M_T = `train`; of the probe itself both are the probe."""
        first, probe, *trained = stage.needs
        anchor = stages.probe_params(self, first, probe, train)
        source = trained[self.train_subsets.index(train)] if trained else None
        return (load_trained(self, source) if source else anchor), anchor

    # ---- running

    def select(self, kinds: Sequence[str] = (), only: str = "") -> list[Stage]:
        """The stages of some kinds whose name holds `only`, and all that they need."""
        chosen = [s for s in self.stages() if (not kinds or s.kind in kinds) and only in s.name]
        if not chosen:
            names = [s.name for s in self.stages()]
            raise UserError(f"no stage is called {only!r}{nearest(only, names)}")
        wanted: dict[str, Stage] = {}

        def add(stage: Stage) -> None:
            for need in stage.needs:
                add(need)
            wanted.setdefault(stage.name, stage)

        for stage in chosen:
            add(stage)
        return list(wanted.values())

    def run(self, kinds: Sequence[str] = (), only: str = "") -> None:
        """Run what is not finished yet, in order."""
        todo = self.select(kinds, only)
        for number, stage in enumerate(todo, 1):
            interrupt.check(f"the start of {stage.name}")
            if self.record(stage):
                continue
            begun = time.monotonic()
            directory = self.path(stage)
            directory.mkdir(parents=True, exist_ok=True)
            facts = stage.run(self, stage, directory)
            seconds = time.monotonic() - begun
            finish(directory, {"name": stage.name, "seconds": round(seconds, 2), **facts})
            self.console.print(f"[{number}/{len(todo)}] {stage.name}: {seconds:.1f} s", markup=False, highlight=False)
        for stage in todo:  # prediction follows the config, also when the stage was finished by an earlier run
            if stage.kind == "export":
                publish(self.workdir, self.path(stage) / "model")


def load_trained(study: Study, stage: Stage) -> dict:
    """The parameters that a training stage left."""
    return stages.load_params(study.path(stage) / "params", study.model.shapes)


def finish(directory: Path, facts: dict) -> None:
    """Mark a stage as finished, in one rename; its checkpoints are not needed any more."""
    temporary = directory / "done.json.tmp"
    temporary.write_text(json.dumps(facts, indent=1))
    temporary.replace(directory / "done.json")
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
