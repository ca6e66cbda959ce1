"""The stages of a study: which there are, what each depends on, and the digest that names it."""

import functools
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mmr_jax import config as configs
from mmr_jax import methods, stages
from mmr_jax.data.source import later_fields
from mmr_jax.errors import UserError
from mmr_jax.initial import weights_digest
from mmr_jax.inspection.reconstruct import reconstruct
from mmr_jax.inspection.retrieve import retrieve
from mmr_jax.robustness.subsets import subset_name
from mmr_jax.robustness.views import largest_set

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


def build(study) -> list[Stage]:
    """All stages of a study in an order in which each comes after those it needs."""
    found = []
    for seed in study.config.seeds:
        for subset in study.config.pretrain.modalities:
            pretrain = "+".join(study.modalities) if subset == "all" else subset_name(subset.split("+"))
            found += _branch(study, int(seed), pretrain)
    return found + _export(study, found)


def _export(study, found: list[Stage]) -> list[Stage]:
    """The model of `study.export` as files for prediction: first seed, largest pretraining set."""
    method = study.config.study.export
    evaluated = [s for s in found if s.kind == "evaluate" and s.method == method and s.seed == found[0].seed]
    if not evaluated:
        return []
    largest = largest_set(s.pretrain for s in evaluated)
    e = next(s for s in evaluated if s.pretrain == largest)
    settings = _part(study, "study.export", *(["wise_ft.alpha"] if method in methods.INTERPOLATED else []))
    settings["train_subsets"] = study.train_subsets
    name = f"seed{e.seed}/{e.pretrain}/export"
    more = dict(seed=e.seed, pretrain=e.pretrain, needs=e.needs, method=method)
    return [Stage("export", name, run=stages.export, settings=settings, **more)]


def _branch(study, seed: int, pretrain: str) -> list[Stage]:
    make = functools.partial(Stage, seed=seed, pretrain=pretrain)
    prefix = f"seed{seed}/{pretrain}"
    depends = {**_part(study, "pretrain", "model", kind="pretrain"), **weights_digest(study.config)}
    first = make("pretrain", f"{prefix}/pretrain", run=stages.pretrain, settings=depends)
    probe = make(
        "train",
        f"{prefix}/probe",
        run=stages.probe,
        settings=_part(
            study,
            "probe",
            "masd.source",
            "masd.train_share",
            "finetune.label_share",
            "finetune.labels",
            kind="train",
        ),
        needs=(first,),
    )
    trained = {}
    for method in methods.trained_for(study.config.study.methods):
        for train in study.train_subsets:
            if methods.objective(method, study.config, study.model, train.split("+"), False) is None:
                trained[method, train] = trained["finetune", train]
                continue
            trained[method, train] = make(
                "train",
                f"{prefix}/{method}/{train}",
                run=stages.train,
                settings=_part(study, "finetune", *methods.METHODS[method].blocks, kind="train"),
                needs=(first, probe),
                method=method,
                train=train,
            )
    evaluated = [_evaluation(study, make, prefix, m, first, probe, trained) for m in study.config.study.methods]
    inspected = _inspection(study, make, prefix, first)
    return [first, *inspected, probe, *dict.fromkeys(trained.values()), *evaluated]


def _inspection(study, make, prefix, first) -> list[Stage]:
    """What is looked at after pretraining: retrieval across modalities, and on the first seed reconstructions."""
    asked, recipe = study.config.study, study.config.pretrain
    split = {"split": asked.test_splits[0]}
    decodes = recipe.objective == "masked" and recipe.reconstruction_weight > 0
    kinds = {
        "retrieve": (retrieve, "study.retrieval", asked.retrieval > 0 and len(study.modalities) > 1),
        "reconstruct": (
            reconstruct,
            "study.reconstructions",
            asked.reconstructions > 0 and decodes and first.seed == int(study.config.seeds[0]),
        ),
    }
    return [
        make(kind, f"{prefix}/{kind}", run=run, settings={**_part(study, field), **split}, needs=(first,))
        for kind, (run, field, wanted) in kinds.items()
        if wanted
    ]


def _evaluation(study, make, prefix, method, first, probe, trained) -> Stage:
    source = methods.INTERPOLATED.get(method, method)
    needs = [] if method == methods.PROBE else [trained[source, t] for t in study.train_subsets]
    parts = ["study.test_splits", "study.save_predictions"]
    parts += methods.METHODS[method].blocks
    return make(
        "evaluate",
        f"{prefix}/evaluate/{method}",
        run=stages.evaluate,
        settings={**_part(study, *parts), "train_subsets": study.train_subsets},
        needs=(first, probe, *needs),
        method=method,
    )


def _part(study, *names: str, kind: str = "") -> dict:
    """The named blocks and fields of the config, and always modalities and data (of which stages of some kinds need
    only a part), with what the files hold."""
    flat = configs.flatten(configs.to_dict(study.config))
    for name, value in flat.items():  # of a file what is in it, wherever it is
        if value and (name == "finetune.labels" or re.fullmatch(r"modalities\..+\.vocab", name)):
            flat[name] = _content(name, value)
    wanted = ("data", "modalities", *names)
    flat = {k: v for k, v in flat.items() if any(k == w or k.startswith(w + ".") for w in wanted)}
    for later in later_fields(study.config.data.name).get(kind, ()):
        flat.pop(f"data.{later}", None)
    flat.pop("pretrain.modalities", None)  # the stage's name says which of them it is
    kept = {k: v for k, v in flat.items() if not configs.NEUTRAL.search(k)}
    return {**kept, "data.fingerprint": study.dataset.fingerprint}


def _content(field: str, path: str) -> str:
    """Digest of a file; of a vocabulary that is not there the path, as shapes alone need none."""
    if field != "finetune.labels" and not Path(path).is_file():
        return path
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=6).hexdigest()
    except OSError as error:
        raise UserError(f"{field}: {error}") from None
