"""Configs: every field of a study with its default, loading from a file, overrides, and the difference."""

import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict, FrozenConfigDict

from mmr_jax.data.source import default_config as data_defaults
from mmr_jax.errors import UserError, nearest
from mmr_jax.files import write_json

# Fields that change where and how a study runs, but no number of it: in the digest of no stage.
NEUTRAL = re.compile(
    r"^mesh\.|^model\.remat$|^pretrain\.contrast$|^study\.eval_batch_size$|^data\.(root|cache_dir|download|cache|folder)$|^data\.(sizes\.|dataset$|max_unreadable$)"
    r"|\.(log_every|checkpoint_every|keep_last|keep_every)$|^(pretrain|probe)\.validate_every$"
)

# Augmentation of frames as they are cut, in the compiled step: models/crop.py.
_CROPPING = dict(flip=0.0, zoom=1.0)


def spectrogram(**changes) -> dict:
    """A modality of kind spectrogram; defaults are McKinzie et al.'s audio (8 s at 16 kHz, 128 mels, 16 x 16)."""
    defaults = dict(kind="spectrogram", sample_rate=16000, samples=128000, frames=800, mels=128, patch_size=(16, 16))
    front_end = dict(window_ms=25.0, hop_ms=10.0, window="hamming", mean=-5.0, std=4.0)
    # padding "masked": tokens past the clip do not exist; "input": they are seen as frames of value `fill` (CAV-MAE).
    # `fill` is in normalised units and also what SpecAugment's bands hold; CAV-MAE's is -mean / std.
    front_end |= dict(padding="masked", fill=0.0)
    augment = dict(time_mask=0, mel_mask=0, roll=0, noise=0.0, uniform_noise=0.0)
    return _changed({**defaults, **front_end, "augment": augment}, changes, "spectrogram")


def image(**changes) -> dict:
    """A modality of kind image, uint8; `mean` and `std` are numbers or one number per channel.

    `frames` n > 0: an example holds n frames of which training draws one; evaluation averages the probabilities.
    `stored` and `augment.flip`, `augment.zoom` as for `video`; `augment.shift`, `rotate` and `scale` come after them.
    """
    defaults = dict(kind="image", height=224, width=224, channels=3, patch_size=(16, 16), mean=0.5, std=0.25, frames=0)
    augment = dict(shift=0.0, rotate=0.0, scale=0.0, **_CROPPING)
    return _changed({**defaults, "stored": 0, "augment": augment}, changes, "image")


def video(**changes) -> dict:
    """A modality of kind video: frames uint8, cut in tubelets of patch_size (frames, rows, columns).

    `stored` S > 0: the host sends frames of S x S, of which the compiled step cuts height x width, in training
    anywhere, in evaluation from the middle. `augment.zoom` z > 1: in training the frame is first enlarged by U[1, z].
    `augment.flip`: the probability that a clip is mirrored left to right.
    """
    defaults = dict(kind="video", frames=8, height=224, width=224, channels=3, patch_size=(2, 16, 16))
    return _changed({**defaults, "mean": 0.5, "std": 0.25, "stored": 0, "augment": dict(_CROPPING)}, changes, "video")


def text(**changes) -> dict:
    """A modality of kind text, `length` token ids. `tokenizer`:

    byte (needs vocab_size 259); word (hashes words into vocab_size ids); bpe (`vocab` is a file that data.bpe.train_bpe
    wrote, vocab_size its size); clip (`vocab` is CLIP's bpe_simple_vocab_16e6.txt.gz; length 77, vocab_size 49408).
    """
    published = dict(length=77, vocab_size=49408) if changes.get("tokenizer") == "clip" else {}
    defaults = dict(kind="text", length=64, vocab_size=259, tokenizer="byte", vocab="") | published
    return _changed(defaults, changes, "text")


def features(**changes) -> dict:
    """A modality of kind features: float32 [length, dim] per example."""
    return _changed(dict(kind="features", length=16, dim=128), changes, "features")


def _changed(defaults: dict, changes: Mapping, what: str) -> dict:
    for key in changes:
        if key not in defaults:
            raise UserError(f"{what} has no field {key!r}{nearest(key, defaults)}")
    return {**defaults, **changes}


def optim(**changes) -> ConfigDict:
    """An optimiser block; see train/optim.py."""
    chain = dict(name="adamw", lr=1e-3, weight_decay=0.05, b1=0.9, b2=0.98, eps=1e-8, clip=1.0, groups=())
    schedule = dict(schedule="cosine", warmup_steps=0, decay_at=(), decay_factor=0.1)
    return ConfigDict(_changed({**chain, **schedule}, changes, "optim"))


def _recipe(steps: int, batch_size: int, lr: float, **more) -> ConfigDict:
    """A block that train/loop.py runs. The learning rate and all else of the optimiser are in `optim`."""
    # of the checkpoints of an unfinished stage the last `keep_last` stay, and those at multiples of `keep_every`
    cadence = dict(log_every=10, checkpoint_every=200, keep_last=2, keep_every=0, validate_every=0)
    # what is kept: an exponential average (ema > 0), or the mean of the weights at every `average_every`-th step
    # from `average_from` on (the mean of epoch checkpoints), or neither
    averages = dict(ema=0.0, average_every=0, average_from=0)
    return ConfigDict(dict(steps=steps, batch_size=batch_size, optim=optim(lr=lr), **averages, **cadence, **more))


def base(data: str, modalities: Mapping[str, Mapping]) -> ConfigDict:
    """Every field of a study with its default, for a data set and its modalities (made with the functions above)."""
    config = ConfigDict(dict(name="study", seeds=(0,), modalities=modalities, data=data_defaults(data)))
    config.model = dict(
        size="",  # Ti, S, B or L; or "" and the four numbers
        width=64,
        depth=4,
        heads=4,
        mlp_dim=256,
        adapter_depth=-1,  # blocks that each modality owns; -1: all, separate encoders
        fusion="mean",  # mean (Eq. 7) or joint (one stream over the tokens of the subset)
        stream_norms="own",  # in shared blocks: a pair of norms per stream, or shared by all
        embedding="projected",  # what Eq. 7 averages: projected (where pretraining aligned them) or backbone
        normalize="l2",  # of that embedding: l2 (length sqrt(D)), layer (a LayerNorm that trains) or none
        projection=dict(kind="linear", dim=64),  # none, linear or mlp
        activation="gelu",
        norm_eps=1e-6,
        causal=False,
        class_token=False,
        pool="mean",  # mean, cls or last (the last valid token)
        positions="learned",  # or sincos: fixed in pretraining, trained afterwards
        modality_token=False,  # a learned vector per modality, added to all its tokens
        pre_norm=False,  # a LayerNorm before the first block (CLIP)
        patch_bias=True,
        scan_layers=True,
        dtype="float32",  # compute dtype; parameters and losses are float32
        remat="none",  # what the backward pass computes again to save memory: none, dots or full (docs/scale.md)
        attention="xla",  # or kernel (TPU; compiled for one, but not yet run on one), or auto: the kernel where it fits
    )
    config.model.overrides = ConfigDict()  # modality -> any of the fields above, for separate encoders
    config.pretrain = _recipe(600, 128, 1e-3, temperature=0.07, learn_temperature=False)
    config.pretrain.microbatches = 1  # parts in which a batch is computed, one after the other, to save memory
    config.pretrain.modalities = ("all",)  # an axis of the study: subsets to pretrain on, "all" or "a+b"
    config.pretrain.direction = "both"  # forward: of a pair the alphabetically first queries, or backward
    config.pretrain.loss = "info_nce"  # or sigmoid, whose logits are cos / temperature + logit_bias
    config.pretrain.logit_bias = -10.0  # learn_temperature trains it too
    config.pretrain.contrast = "plain"  # the whole [B, B] logits at once; or chunked, or ring: never the whole
    config.pretrain.objective = "contrastive"  # or masked, to which the fields below belong
    config.pretrain.reconstruction_weight = 1.0  # a weight of 0 leaves its part out of the program
    config.pretrain.contrastive_weight = 0.0
    config.pretrain.norm_targets = True  # patches are normalised one by one before they are predicted
    config.pretrain.mask_together = False  # over the concatenated tokens (vanilla AV-MAE); else each modality alone
    # mode of a spectrogram: uniform, time, frequency or time_frequency; of the others: uniform
    config.pretrain.masking = {m: dict(ratio=0.75, mode="uniform") for m in modalities}
    config.pretrain.decoder = dict(width=32, depth=2, heads=4, mlp_dim=128)
    config.pretrain.init = ""  # a folder written by mmr convert, from which weights are taken where they fit
    config.pretrain.init_from = {m: m for m in modalities}  # whose weights there each modality takes; "": nobody's
    config.probe = _recipe(400, 256, 1e-2)
    config.probe.optim.weight_decay = 1e-4
    config.probe.optim.clip = 0.0  # a common norm would couple the heads, which are trained side by side
    config.finetune = _recipe(150, 64, 3e-4, select="best")  # best on validation (M_E = M_T), or last
    config.finetune.validate_every = 50
    config.finetune.microbatches = 1
    config.finetune.init_head = "probe"  # probe or zero
    config.finetune.freeze = ()  # regexes on parameter paths that stay as pretrained
    config.finetune.label_share = 1.0  # share of the labelled set that is used
    config.finetune.labels = ""  # a file of enhanced labels that replace those of the labelled set
    config.finetune.balanced = False  # draw examples with replacement, rare classes more often
    config.finetune.mixup = 0.0  # probability that an example is mixed with another of its batch
    config.finetune.mixup_alpha = 10.0  # of the Beta distribution of the share
    config.finetune.label_smoothing = 0.0
    # D_SD: `clips` of the pretraining pool (0: all of it), or `train_share` of the labelled set, without its labels
    config.masd = dict(weight=1.0, temperature=1.0, source="pretraining", clips=0, train_share=0.2)
    config.modality_dropout = dict(rate=0.5)
    config.wise_ft = dict(alphas=(0.0, 0.25, 0.5, 0.75, 1.0), alpha=0.75)
    config.study = dict(
        # any of methods.METHODS
        methods=("linear_probe", "finetune", "modality_dropout", "masd", "wise_ft", "masd_wise_ft"),
        train_subsets=(),  # M_T to train on; () is all non-empty subsets
        eval_batch_size=256,
        test_splits=("test",),  # the first makes the matrix, the others extra tables
        save_predictions=True,  # per-example scores of the methods in the main table
        retrieval=1000,  # test examples among which pretrained embeddings are searched; 0: none
        reconstructions=4,  # test examples whose reconstructions are drawn after masked pretraining; 0: none
        export="masd_wise_ft",  # the method whose model (trained on all modalities) mmr predict serves; "": none
    )
    config.sweep = ()  # points of a study of studies: (axis, label, ((field, value), ...)), see sweep.py
    config.mesh = dict(data=-1, fsdp=1, tensor=1)
    return config


def load(path: str | Path, overrides: Mapping[str, object] | None = None) -> ConfigDict:
    """The config of `path` (a file, or "file.py:argument"), with `overrides` such as {"finetune.steps": 10}, locked."""
    file, _, argument = str(path).partition(":")
    if not Path(file).is_file():
        raise UserError(f"config {file!r} does not exist; the configs are in configs/")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(syntax_error(error)) from None
    config = module.get_config(argument) if argument else module.get_config()
    config.lock()
    for key, value in (overrides or {}).items():
        set_field(config, key, value)
    return config


def syntax_error(error: SyntaxError) -> str:
    """One line for a config file that is no Python."""
    return f"{error.filename}, line {error.lineno}: {error.msg}"


def from_dict(plain: Mapping) -> ConfigDict:
    """The config of `to_dict`, locked; lists become tuples again."""

    def tuples(value):
        if isinstance(value, dict):
            return {k: tuples(v) for k, v in value.items()}
        return tuple(tuples(v) for v in value) if isinstance(value, list) else value

    return ConfigDict(tuples(plain)).lock()


def set_field(config: ConfigDict, key: str, value: object) -> None:
    """config.a.b = value for key "a.b"; an unknown field is a UserError that names the nearest one."""
    node, parts = config, key.split(".")
    for i, part in enumerate(parts):
        if not isinstance(node, ConfigDict) or part not in node:
            known = flatten(config)
            raise UserError(f"config has no field {'.'.join(parts[: i + 1])!r}{nearest(key, known)}")
        if i < len(parts) - 1:
            node = node[part]
    try:
        node[parts[-1]] = tuple(value) if isinstance(value, list) else value
    except (TypeError, ValueError) as error:
        raise UserError(f"config field {key!r}: {error}") from None


def flatten(config: Mapping, prefix: str = "") -> dict[str, object]:
    """{"a.b": value} of a config; tuples become lists, as in JSON."""
    out = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            out.update(flatten(value, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return out


def difference(new: Mapping, old: Mapping) -> dict[str, tuple]:
    """{field: (value in old, value in new)} where two configs differ; None where one lacks the field."""
    a, b = flatten(old), flatten(new)
    return {k: (a.get(k), b.get(k)) for k in sorted({*a, *b}) if a.get(k) != b.get(k)}


def to_dict(config: Mapping) -> dict:
    """Plain nested dict of JSON values."""
    plain = config.to_dict() if hasattr(config, "to_dict") else config
    return json.loads(json.dumps(plain))


def write(workdir: Path, config: ConfigDict, changes: Mapping) -> None:
    """Keep the resolved config and its difference from the file beside the results."""
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / "config.json", to_dict(config))
    write_json(workdir / "config_diff.json", changes)


def freeze(config: ConfigDict) -> FrozenConfigDict:
    """A hashable copy: what compiled programs are cached by."""
    return FrozenConfigDict(config)
