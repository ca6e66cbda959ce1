"""The study: a small graph of stages, each kept when finished.

Pretrain (and a look at what it learned), probe, train per M_T, evaluate per method.

A stage is named by the digest of all that it depends on, so the same command resumes and a changed option repeats
only what it touches.
"""

import functools
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from mmr_jax import config as configs
from mmr_jax import methods, stages
from mmr_jax.checks import check, check_splits
from mmr_jax.data.balanced import Balanced
from mmr_jax.data.labels import relabel
from mmr_jax.data.source import Dataset, Source, Subset, load_dataset
from mmr_jax.data.text import encode
from mmr_jax.data.unreadable import Tally
from mmr_jax.errors import UserError, nearest
from mmr_jax.export import publish
from mmr_jax.files import read_json, write_json
from mmr_jax.graph import Stage, build
from mmr_jax.initial import check_weights
from mmr_jax.models.model import Model, build_model
from mmr_jax.robustness.subsets import all_subsets, subset_name
from mmr_jax.seeds import fold_seed
from mmr_jax.train import hosts
from mmr_jax.train.digests import content_digest
from mmr_jax.train.ledger import NAME as LEDGER
from mmr_jax.train.ledger import Ledger
from mmr_jax.train.sharding import check_batch, make_mesh

DONE = "done.json"


class Study:
    """A config and a workdir, and what the stages share: data, model, mesh."""

    def __init__(self, config: ConfigDict, workdir: str | Path, console: Console | None = None):
        check(config)
        self.config, self.workdir = config, Path(workdir)
        self.profile: tuple[int, int] | None = None  # steps of which the training stages write a trace
        self.console = console or Console(quiet=not hosts.first())
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
        made = build_model(frozen.model, frozen.modalities, len(self.dataset.class_names))
        methods.check_groups(self.config, made)
        return made

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
        path = self.path(stage) / DONE
        return read_record(path) if path.exists() else None

    # ---- data that stages share

    def labelled(self, seed: int) -> Source:
        """The labelled set, without what MASD takes from it, cut to the share of labels that the config asks for."""
        source, order = self._train_order(seed)
        rest = order[self._taken(len(source)) :]
        chosen = Subset(source, np.sort(rest[: max(1, round(self.config.finetune.label_share * len(rest)))]))
        return relabel(chosen, self.config.finetune.labels) if self.config.finetune.labels else chosen

    def training(self, seed: int) -> Source:
        """The labelled set as fine-tuning draws from it."""
        return Balanced(self.labelled(seed)) if self.config.finetune.balanced else self.labelled(seed)

    def distillation(self, seed: int) -> Source:
        """D_SD: the pretraining pool or a random part of it, or a share of the training set whose labels are then used
        nowhere."""
        if self.config.masd.source == "pretraining":
            return self._sample(self.dataset.splits["unlabelled"], seed)
        source, order = self._train_order(seed)
        return Subset(source, np.sort(order[: self._taken(len(source))]))

    def _sample(self, pool: Source, seed: int) -> Source:
        """`masd.clips` random examples of `pool`."""
        clips = self.config.masd.clips
        if not clips or clips >= len(pool):
            return pool
        if hasattr(pool, "order_at"):
            raise UserError("masd.clips does not go with weights in data.unlabelled: a sample of clips has none")
        order = np.random.default_rng(fold_seed(seed, "distillation")).permutation(len(pool))
        return Subset(pool, np.sort(order[:clips]))

    def _train_order(self, seed: int) -> tuple[Source, np.ndarray]:
        source = self.dataset.splits["labelled"]
        return source, np.random.default_rng(fold_seed(seed, "labels")).permutation(len(source))

    def _taken(self, size: int) -> int:
        return round(self.config.masd.train_share * size) if self.config.masd.source == "train" else 0

    def stages(self) -> list[Stage]:
        """All stages in an order in which each comes after those it needs."""
        return build(self)

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

    def ready(self) -> None:
        """Refuse, before anything runs or is written, what would fail later: devices, data, model."""
        mesh = self.mesh
        for name in ("pretrain.batch_size", "probe.batch_size", "finetune.batch_size", "study.eval_batch_size"):
            block, _, key = name.partition(".")
            try:
                check_batch(self.config[block][key], mesh, self.config[block].get("microbatches", 1))
            except UserError as error:
                raise UserError(f"{name}: {error}") from None
        check_weights(self.config)
        for cfg in self.config.modalities.values():
            if cfg.kind == "text":
                encode("", cfg)  # refuses a vocabulary that does not fit
        self.stages()

    def run(self, kinds: Sequence[str] = (), only: str = "") -> None:
        """Run what `select` gives and is not finished yet, in order."""
        self.ready()
        self.run_stages(self.select(kinds, only))

    def run_stages(self, todo: Sequence[Stage]) -> None:
        """Run those of some stages that are not finished, in the order given."""
        hosts.check_agreement({stage.name: stage.key for stage in todo})  # the same data, among others
        for number, stage in enumerate(todo, 1):
            hosts.check_signals(f"the start of {stage.name}")
            if hosts.from_first(lambda stage=stage: bool(self.record(stage))):
                continue
            seconds = self._run(stage)
            self.console.print(f"[{number}/{len(todo)}] {stage.name}: {seconds:.1f} s", markup=False, highlight=False)
        for stage in todo if hosts.first() else ():
            if stage.kind == "export":  # prediction follows the config, also when an earlier run finished the stage
                publish(self.workdir, self.path(stage) / "model")

    def _run(self, stage: Stage) -> float:
        """Run one stage and return its seconds, those of earlier sessions among them."""
        directory = self.path(stage)
        tally = self.dataset.tally or Tally(0.0)
        tally.begin()
        with Ledger(directory) as ledger:
            facts = stage.run(self, stage, directory)
            seconds, goodput = ledger.total()
        if tally.lost:
            facts["unreadable"] = {"read": tally.read, "lost": tally.lost}
        spent = {kind: round(s, 2) for kind, s in goodput.items()}
        device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
        facts = {"name": stage.name, "device": device, "seconds": round(seconds, 2), "goodput": spent, **facts}
        hosts.from_first(lambda: finish(directory, facts))  # the others wait until all is there
        return seconds


def load_trained(study: Study, stage: Stage) -> dict:
    """The parameters that a training stage left."""
    return stages.load_params(study.path(stage) / "params", study.model.shapes)


def finish(directory: Path, facts: dict) -> None:
    """Mark a stage as finished, in one rename; its checkpoints and its ledger are not needed any more."""
    write_json(directory / DONE, {**facts, "blake2b": content_digest(facts)})
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    (directory / LEDGER).unlink(missing_ok=True)


def read_record(path: Path) -> dict:
    """What `finish` wrote; UserError if it is damaged. Older versions kept no digest: their records are taken."""
    facts = read_json(path)
    written = facts.pop("blake2b", None) if isinstance(facts, dict) else ""
    if written is not None and content_digest(facts) != written:
        raise UserError(f"{path} is damaged: delete {path.parent} and run the same command again")
    return facts
