"""What each stage of a study does: reads the directories of the stages it needs, writes its own.

Every function takes the study (config, data, model, mesh), the stage, and the directory to write to, and returns
facts for the stage's record.
"""

import itertools
from pathlib import Path

import jax
import numpy as np

from mmr_jax import methods
from mmr_jax.config import freeze
from mmr_jax.export import export_model
from mmr_jax.initial import start_from_weights
from mmr_jax.objectives import LinearProbe
from mmr_jax.robustness.evaluator import SubsetEvaluator
from mmr_jax.robustness.interpolate import wise_ft
from mmr_jax.robustness.results import Predictions, cell_score, save_predictions
from mmr_jax.robustness.subsets import parse_subset
from mmr_jax.seeds import fold_seed
from mmr_jax.train import hosts
from mmr_jax.train.checkpoint import load_params, save_params
from mmr_jax.train.loop import Job, Outcome, fit


def _facts(outcome: Outcome) -> dict:
    return {
        "best_step": outcome.best_step,
        "best_score": outcome.best_score,
        "resumed_from": outcome.resumed_from,
    }


def pretrain(study, stage, directory: Path) -> dict:
    """Pretraining on the unlabelled pool; encoders that it does not reach stay at their initial values.

    What only pretraining needs (decoder, temperature) is kept beside the model, for reconstructions.
    """
    objective = methods.pretraining(study.config, study.model, parse_subset(stage.pretrain))
    recipe = freeze(study.config.pretrain)
    params, extra = objective.init(jax.random.key(fold_seed(stage.seed, "init")))
    params, account = start_from_weights(study.config, params)
    sources = {"unlabelled": study.dataset.splits["unlabelled"]}
    job = Job(stage.name, stage.seed, directory, objective, recipe, sources, params, extra, profile=study.profile)
    outcome = fit(job, study.mesh)
    trained = {k: v for k, v in outcome.params.items() if k in study.model.shapes}
    rest = {k: v for k, v in outcome.params.items() if k not in trained}
    if rest:
        save_params(directory / "pretraining", rest)
    save_params(directory / "params", trained)
    return {**_facts(outcome), "alignment": alignment(study, trained), "weights": account}


def alignment(study, params: dict) -> dict[str, dict[str, float]]:
    """How well pretraining aligned each pair of modalities on the validation split, mean of both directions.

    `instance`: share of examples whose nearest neighbour in the other modality is their own partner;
    `class`: whose nearest neighbour has their class.
    """
    evaluator = SubsetEvaluator(study.model, study.modalities, study.config.study.eval_batch_size, study.mesh)
    found = evaluator.embeddings(params, study.dataset.splits["val"])
    unit = found["scores"] / np.maximum(np.linalg.norm(found["scores"], axis=-1, keepdims=True), 1e-12)
    pairs = {}
    for i, j in itertools.combinations(range(len(study.modalities)), 2):
        rows = found["valid"][i] & found["valid"][j]
        similarity, labels = unit[i][rows] @ unit[j][rows].T, found["labels"][rows]
        pairs[f"{study.modalities[i]}-{study.modalities[j]}"] = _agreement(similarity, labels)
    return pairs


def _agreement(similarity: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    nearest = [s.argmax(axis=1) for s in (similarity, similarity.T)]
    same_class = [labels[n] == labels if labels.ndim == 1 else (labels[n] * labels).any(axis=1) for n in nearest]
    return {
        "instance": float(np.mean([n == np.arange(len(n)) for n in nearest])),
        "class": float(np.mean(same_class)),
    }


class _Embeddings:
    """A source of fused embeddings [S, D] per example, for linear probes."""

    def __init__(self, found: dict):
        self._found = found

    def __len__(self) -> int:
        return len(self._found["labels"])

    def take(self, indices) -> dict:
        rows, found = np.asarray(indices), self._found
        return {
            "inputs": {"fused": found["scores"][:, rows].swapaxes(0, 1)},
            "present": {"fused": found["valid"][:, rows].T},
            "length": {},
            "label": found["labels"][rows],
            "weight": np.ones(len(rows), np.float32),
            "id": found["ids"][rows],
        }


def probe(study, stage, directory: Path) -> dict:
    """Linear probes of all subsets (they cost next to nothing, so another M_T finds its own there) on embeddings of
    the labelled set that are computed once."""
    params = load_params(study.path(stage.needs[0]) / "params", study.model.shapes)
    evaluator = SubsetEvaluator(study.model, study.eval_subsets, study.config.study.eval_batch_size, study.mesh)
    embeddings = _Embeddings(evaluator.embeddings(params, study.labelled(stage.seed)))
    objective = LinearProbe(len(study.eval_subsets), study.model.dim, study.model.num_classes)
    heads, _ = objective.init(jax.random.key(0))
    recipe = freeze(study.config.probe)
    sources = {"labelled": embeddings}
    job = Job(stage.name, stage.seed, directory, objective, recipe, sources, heads, profile=study.profile)
    outcome = fit(job, study.mesh)
    trained = outcome.params["head"]
    per_subset = {s: {k: trained[k][i] for k in ("kernel", "bias")} for i, s in enumerate(study.eval_subsets)}
    save_params(directory / "heads", per_subset)
    return _facts(outcome)


def probe_params(study, pretrained, probed, train: str) -> dict:
    """The linear probe of M_T = `train` as a whole model: pretrained encoders and its own head."""
    params = load_params(study.path(pretrained) / "params", study.model.shapes)
    return {**params, "head": load_params(study.path(probed) / "heads")[train]}


def train(study, stage, directory: Path) -> dict:
    """One trained method on one M_T. All methods of an M_T share start, labelled batches and number of steps."""
    objective = methods.objective(
        stage.method, study.config, study.model, parse_subset(stage.train), study.dataset.multilabel
    )
    pretrained, probed = stage.needs
    params = probe_params(study, pretrained, probed, stage.train)
    recipe = study.config.finetune
    if recipe.init_head == "zero":
        params["head"] = jax.tree.map(np.zeros_like, params["head"])
    sources = {"labelled": study.training(stage.seed), "unlabelled": study.distillation(stage.seed)}
    validate = _validation(study, stage.train) if recipe.select == "best" else None
    if validate:
        validate(params)  # compiled here: after the first step nothing compiles any more
    job = Job(
        stage.name,
        stage.seed,
        directory,
        objective,
        freeze(recipe),
        sources,
        params,
        validate=validate,
        data_name=f"downstream/{stage.train}",
        profile=study.profile,
    )
    outcome = fit(job, study.mesh)
    save_params(directory / "params", outcome.params)
    return _facts(outcome)


def _validation(study, subset: str):
    """Score of a model on the validation split with M_E = `subset`."""
    settings = (study.config.study.eval_batch_size, study.mesh, study.dataset.multilabel)
    evaluator = SubsetEvaluator(study.model, [subset], *settings)

    def score(params) -> float:
        return cell_score(_predictions(evaluator, params, study.dataset.splits["val"], train=subset), 0, study.metric)

    return score


def _predictions(evaluator: SubsetEvaluator, params, source, **names) -> Predictions:
    return Predictions(eval=list(evaluator.subsets), **{"method": "", **names}, **evaluator.logits(params, source))


def evaluate(study, stage, directory: Path) -> dict:
    """Scores of one method for every (M_T, M_E); of an interpolated one for every alpha."""
    settings = (study.config.study.eval_batch_size, study.mesh, study.dataset.multilabel)
    evaluator = SubsetEvaluator(study.model, study.eval_subsets, *settings)
    rows = []
    for train_subset in study.train_subsets:
        ends = study.ends(stage, train_subset)
        for alpha in study.alphas(stage.method):
            hosts.check_signals(f"{stage.name}, {train_subset}")
            params = ends[0] if alpha is None else wise_ft(ends[0], ends[1], alpha)
            for split in study.config.study.test_splits:
                names = dict(
                    method=stage.method,
                    train=train_subset,
                    seed=stage.seed,
                    pretrain=stage.pretrain,
                    alpha=alpha,
                )
                found = _predictions(evaluator, params, study.dataset.splits[split], **names)
                rows += _scores(found, split, study.metric)
                if hosts.first() and study.keeps_predictions(split, alpha):
                    save_predictions(directory / "predictions" / f"{train_subset}.npz", found)
    return {"scores": rows}


def export(study, stage, directory: Path) -> dict:
    """The model that mmr predict serves: trained on all modalities, or else on the largest training subset."""
    train = max(study.train_subsets, key=lambda s: s.count("+"))
    trained, anchor = study.ends(stage, train)
    params = wise_ft(trained, anchor, study.config.wise_ft.alpha) if stage.method in methods.INTERPOLATED else trained
    names = dict(method=stage.method, train=train)
    return hosts.from_first(lambda: export_model(study, params, directory, "model", **names))


def _scores(found: Predictions, split: str, metric: str) -> list[dict]:
    """One record per evaluation subset that has examples."""
    return [
        {
            "split": split,
            "train": found.train,
            "eval": subset,
            "alpha": found.alpha,
            "score": cell_score(found, row, metric),
            "n": int(found.valid[row].sum()),
        }
        for row, subset in enumerate(found.eval)
        if found.valid[row].any()
    ]
