"""The stage that lets masked pretraining fill in what is hidden of a few test examples, and draws it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from mmr_jax import methods
from mmr_jax.data.source import Source, labels_of, take
from mmr_jax.inspection.pictures import draw_example
from mmr_jax.objectives.masked import Masked, normalized, reconstruction_error
from mmr_jax.robustness.subsets import parse_subset
from mmr_jax.seeds import fold_seed
from mmr_jax.train import hosts
from mmr_jax.train.checkpoint import load_params


@dataclass(frozen=True)
class Filled:
    """What a masked model makes of one modality of a batch.

    patches float32 [B, T, dim] or ids int [B, T]: the input. predicted: the same shape, in the input's units (ids: the
    most likely). hidden, exists bool [B, T]. errors: see `hidden_errors`.
    """

    patches: np.ndarray
    predicted: np.ndarray
    hidden: np.ndarray
    exists: np.ndarray
    errors: dict[str, float]

    @property
    def output(self) -> np.ndarray:
        """The input with the prediction pasted where it was hidden."""
        hidden = self.hidden if self.patches.ndim == 2 else self.hidden[..., None]
        return np.where(hidden, self.predicted, self.patches)


def fill(objective: Masked, params: Mapping, batch: Mapping, key: jax.Array) -> dict[str, Filled]:
    """Mask a batch with the objective's own masking, without augmentation, and predict: {m: Filled}.

    `params` are those of the model and of the decoder.
    """
    whole = replace(objective, microbatches=1)  # a few examples need not divide into parts

    @jax.jit
    def made(params, batch, key):
        prepared = whole.prepare(params, batch, key, augment=False)
        _, _, made = whole.forward(params, *prepared)
        return prepared[0], made.predicted, made.places

    patches, predicted, places = jax.device_get(made(params, batch, key))
    filled = {}
    for m in objective.modalities:
        first = places[m].exists.shape[1] - patches[m].shape[1]  # a class token is no patch
        exists, visible = places[m].exists[:, first:], places[m].visible[:, first:]
        hidden = exists & ~visible
        errors = hidden_errors(predicted[m], patches[m], hidden, objective.norm_targets)
        filled[m] = Filled(patches[m], _in_units(objective, predicted[m], patches[m]), hidden, exists, errors)
    return filled


def _in_units(objective: Masked, predicted: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """Predictions as patches or ids. Of normalised targets the true mean and deviation are put back (as MAE does)."""
    if np.issubdtype(patches.dtype, np.integer):
        return predicted.argmax(axis=-1)
    if not objective.norm_targets:
        return predicted
    _, mean, deviation = jax.device_get(normalized(patches))
    return predicted * deviation + mean


def hidden_errors(
    predicted: np.ndarray, patches: np.ndarray, hidden: np.ndarray, norm_targets: bool
) -> dict[str, float]:
    """{"hidden": number of hidden patches, "error": their mean, "blind": that of a blind guess, "ratio"}.

    Of patches the error is the mean squared one, in the space of the targets, and the blind guess each patch's own
    mean (normalised: zero). Of ids it is the cross-entropy, the guess uniform, and "right" the share of hits.
    """
    count = int(hidden.sum())
    if not count:
        return {"hidden": 0}
    more = {}
    if np.issubdtype(patches.dtype, np.integer):
        target, blind = patches, np.full(patches.shape, np.log(predicted.shape[-1]))
        more = {"right": float((predicted.argmax(axis=-1) == patches)[hidden].mean())}
    else:
        target = np.asarray(normalized(patches)[0]) if norm_targets else patches
        blind = target.var(axis=-1)
    found = np.asarray(reconstruction_error(predicted, target))
    error, blind = float(found[hidden].mean()), float(blind[hidden].mean())
    return {"hidden": count, "error": error, "blind": blind, **({"ratio": error / blind} if blind else {}), **more}


def choose(source: Source, count: int) -> np.ndarray:
    """Indices of the first examples with labels that none before had; then the first of the others."""
    labels, _ = labels_of(source)
    _, fresh = np.unique(labels, axis=0, return_index=True)
    rest = np.setdiff1d(np.arange(len(labels)), fresh)
    return np.sort(np.concatenate([np.sort(fresh), rest])[:count])


def reconstruct(study, stage, directory: Path) -> dict:
    """Reconstructions of a few test examples, a picture each; the first of several hosts makes them."""
    return hosts.from_first(lambda: _reconstruct(study, stage, directory))


def _reconstruct(study, stage, directory: Path) -> dict:
    objective = methods.pretraining(study.config, study.model, parse_subset(stage.pretrain))
    pretrained = study.path(stage.needs[0])
    params = load_params(pretrained / "params", study.model.shapes) | load_params(pretrained / "pretraining")
    split = study.config.study.test_splits[0]
    source = study.dataset.splits[split]
    batch = take(source, choose(source, study.config.study.reconstructions))
    filled = fill(objective, params, batch, jax.random.key(fold_seed(stage.seed, "reconstruct")))
    tokenizers = study.model.bind(study.model.shapes).encoder.tokenizers
    folder = directory / "pictures"
    folder.mkdir(exist_ok=True)
    examples = []
    for i, label in enumerate(batch["label"]):
        title = f"example {batch['id'][i]}: {_named(label, study.dataset.class_names)}"
        shown = {m: (tokenizers[m], f.patches[i], f.output[i], f.hidden[i], f.exists[i]) for m, f in filled.items()}
        (folder / f"{i + 1}.png").write_bytes(draw_example(title, shown, study.dataset.words))
        examples.append({"picture": f"{i + 1}.png", "title": title})
    errors = {m: f.errors for m, f in filled.items()}
    return {"split": split, "normalized": objective.norm_targets, "examples": examples, "errors": errors}


def _named(label: np.ndarray, names: Sequence[str]) -> str:
    """The class of an example, or all its labels."""
    if np.ndim(label):
        return ", ".join(names[c] for c in np.flatnonzero(label)) or "no label"
    return names[int(label)]
