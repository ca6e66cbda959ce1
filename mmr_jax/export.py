"""A trained model as files that predict without this package's modules: a jax.export program, parameters, a card.

model.bin    the serialised program for cpu, cuda and tpu, with a symbolic batch size
params.npz   float32 arrays by flat path
model.json   what goes in and what comes out, and which model it is
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as exporter

from mmr_jax import tree
from mmr_jax.files import write_json
from mmr_jax.models.model import Model
from mmr_jax.models.tokenizers import input_spec
from mmr_jax.prediction import FORMAT, POINTER
from mmr_jax.robustness.evaluator import subset_logits

PLATFORMS = ("cpu", "cuda", "tpu")


def probability_fn(model: Model, multilabel: bool) -> Callable:
    """(params by flat path, inputs {m}, length {m: int32 [B]}, present {m: bool [B]}) -> float32 [B, C].

    An absent modality is masked, whatever its input holds. Sigmoid for multi-label models, else softmax.
    """

    def probabilities(params, inputs, length, present):
        batch = {"inputs": inputs, "length": length, "present": present}
        everything = jnp.ones((1, len(model.names)), bool)
        logits, _ = subset_logits(model, tree.unflatten(params), batch, everything, multilabel)
        return jax.nn.sigmoid(logits[0]) if multilabel else jax.nn.softmax(logits[0])

    return probabilities


def export_model(study, params: Mapping, directory: Path, name: str, *, method: str, train: str) -> dict:
    """Write `directory/name` (all of it or nothing; an older one is replaced) and return facts for the record.

    `params` are the parameters (nested dict) of `study.model`, trained by `method` on M_T = `train`.
    """
    target = Path(directory) / name
    program = _serialize(study)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".export-") as temporary:
        draft = Path(temporary) / name
        draft.mkdir()
        (draft / "model.bin").write_bytes(program)
        np.savez(draft / "params.npz", **{k: np.asarray(v) for k, v in tree.flatten(params).items()})
        (draft / "model.json").write_text(json.dumps(_card(study, method, train), indent=1))
        for file in _vocabularies(study.config):
            shutil.copyfile(file, draft / Path(file).name)
        shutil.rmtree(target, ignore_errors=True)
        draft.replace(target)
    size = sum(file.stat().st_size for file in target.iterdir())
    return {"method": method, "train": train, "bytes": size}


def publish(workdir: Path, directory: Path) -> None:
    """Make `directory` (inside `workdir`) the export that predictions from `workdir` use, in one rename."""
    write_json(Path(workdir) / POINTER, {"directory": str(Path(directory).relative_to(workdir))})


def _serialize(study) -> bytes:
    program = jax.jit(probability_fn(study.model, study.dataset.multilabel))
    return bytes(exporter.export(program, platforms=PLATFORMS)(*_arguments(study)).serialize())


def _arguments(study) -> tuple:
    """Shapes of the program's arguments; the batch size is a symbol."""
    (batch,) = exporter.symbolic_shape("batch")
    specs = {m: input_spec(cfg) for m, cfg in study.config.modalities.items()}
    struct = jax.ShapeDtypeStruct
    return (
        tree.flatten(study.model.shapes),
        {m: struct((batch, *shape), dtype) for m, (shape, dtype, _) in specs.items()},
        {m: struct((batch,), jnp.int32) for m in specs},
        {m: struct((batch,), jnp.bool_) for m in specs},
    )


def _vocabularies(config) -> list[str]:
    """Files that the text modalities' tokenizers read; predictions read copies of them."""
    return [cfg.vocab for cfg in config.modalities.values() if cfg.kind == "text" and cfg.vocab]


def _card(study, method: str, train: str) -> dict:
    return {
        "format": FORMAT,
        "study": study.config.name,
        "method": method,
        "train_modalities": train,
        "metric": study.metric,
        "multilabel": study.dataset.multilabel,
        "classes": list(study.dataset.class_names),
        "modalities": {m: _modality(cfg) for m, cfg in sorted(study.config.modalities.items())},
        "jax": jax.__version__,
    }


def _modality(cfg) -> dict:
    """What a caller must know of one modality to prepare its input."""
    shape, dtype, _ = input_spec(cfg)
    out = {"kind": cfg.kind, "shape": list(shape), "dtype": str(dtype)}
    if cfg.kind == "spectrogram":
        out |= {"sample_rate": cfg.sample_rate, "window": round(cfg.sample_rate * cfg.window_ms / 1000)}
    if cfg.kind == "text":
        out |= {"tokenizer": cfg.tokenizer, "vocab_size": cfg.vocab_size, "vocab": cfg.vocab and Path(cfg.vocab).name}
    return out
