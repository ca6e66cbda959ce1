import json

import pytest
import toy

from mmr_jax import config as configs
from mmr_jax.checks import check
from mmr_jax.errors import UserError


def changed(key, value):
    config = toy.get_config()
    configs.set_field(config, key, value)
    return config


@pytest.mark.parametrize("key, message", [
    ("finetune.optim.lrr", r"no field 'finetune.optim.lrr'; did you mean 'finetune.optim.lr'"),
    ("finetun.steps", r"no field 'finetun'; did you mean 'finetune.steps'"),
    ("finetune.steps.x", r"no field 'finetune.steps.x'; did you mean 'finetune.steps'"),
    ("data.unlabeled", r"no field 'data.unlabeled'; did you mean 'data.unlabelled'"),
    ("modalities.audio.mel", r"did you mean 'modalities.audio.mels'"),
])  # fmt: skip
def test_an_unknown_field_names_the_nearest(key, message):
    with pytest.raises(UserError, match=message):
        configs.load("tests/toy.py", {key: 1})


def test_load_applies_overrides_and_locks():
    config = configs.load("tests/toy.py", {"finetune.optim.lr": 0.5, "seeds": [1, 2], "modalities.audio.mels": 32})
    assert (config.finetune.optim.lr, config.seeds, config.modalities.audio.mels) == (0.5, (1, 2), 32)
    with pytest.raises(AttributeError):
        config.new = 1
    assert configs.load("tests/toy.py:joint").model.fusion == "joint"


def test_a_value_of_another_type_is_refused():
    with pytest.raises(UserError, match="config field 'finetune.steps'"):
        configs.load("tests/toy.py", {"finetune.steps": "many"})


def test_an_absent_file_is_refused():
    with pytest.raises(UserError, match="config 'configs/absent.py' does not exist"):
        configs.load("configs/absent.py")


@pytest.mark.parametrize("key, value, message", [
    ("study.methods", ("finetune", "mased"), "unknown method 'mased'; did you mean 'masd'"),
    ("study.train_subsets", ("audio+vidoe",), "study.train_subsets: .*unknown modality 'vidoe'"),
    ("study.train_subsets", ("audio+audio",), "twice"),
    ("study.train_subsets", ("audio+",), "no modality subset"),
    ("pretrain.modalities", ("all", "txt"), "pretrain.modalities: .*did you mean 'text'"),
    ("model.fusion", "means", "model.fusion is 'means'; did you mean 'mean'"),
    ("model.embedding", "project", "did you mean 'projected'"),
    ("finetune.select", "bst", "did you mean 'best'"),
    ("finetune.init_head", "probes", "did you mean 'probe'"),
    ("masd.source", "pretrain", "did you mean 'pretraining'"),
    ("seeds", (0, 0), "seeds names 0 twice"),
    ("seeds", (), "seeds is empty"),
    ("study.test_splits", (), "study.test_splits is empty"),
    ("study.methods", ("masd", "masd_wise_ft", "masd"), "'masd' twice"),
    ("study.train_subsets", ("audio+text", "text+audio"), "'audio.text' twice"),
    ("pretrain.modalities", ("all", "audio+image+text"), "twice"),
    ("pretrain.modalities", ("audio",), "single modality"),
    ("finetune.label_share", 0.0, "a number above 0 and at most 1 is needed"),
    ("masd.train_share", 1.0, "a number above 0 and below 1 is needed"),
    ("wise_ft.alpha", 1.5, "at least 0 and at most 1"),
    ("wise_ft.alphas", (0.5, -0.5), "wise_ft.alphas is -0.5"),
    ("wise_ft.alphas", ("half",), "wise_ft.alphas is 'half'"),
    ("pretrain.temperature", 0.0, "pretrain.temperature is 0.0; a number above 0 is needed"),
    ("masd.temperature", -1.0, "masd.temperature is -1.0"),
    ("finetune.ema", 1.0, "finetune.ema is 1.0; a number at least 0 and below 1"),
    ("probe.optim.lr", -1e-3, "probe.optim.lr is -0.001"),
    ("finetune.optim.warmup_steps", -1, "finetune.optim.warmup_steps is -1"),
    ("study.eval_batch_size", 0, "study.eval_batch_size is 0; a whole number of at least 1"),
    ("model.heads", 0, "model.heads is 0"),
    ("model.depth", 0, "model.depth is 0"),
    ("model.projection.dim", 0, "model.projection.dim is 0"),
    ("model.overrides", {"text": {"heads": 0}}, "model.overrides.text.heads is 0"),
    ("pretrain.decoder.heads", 0, "pretrain.decoder.heads is 0"),
    ("modalities.audio.mels", 0, "modalities.audio.mels is 0"),
    ("modalities.image.patch_size", (4, 0), "modalities.image.patch_size is 0"),
    ("modalities.text.vocab_size", 258, "vocab_size is 258; the tokenizer 'byte' needs at least 259"),
    ("seeds", ("one",), "seeds is 'one'"),
    ("finetune.validate_every", 0, "finetune.select='best' needs finetune.validate_every above 0"),
    ("pretrain.optim.groups", (("(", 1.0),), "pretrain.optim.groups: '\\(' is no regular expression"),
    ("pretrain.optim.groups", (("head", "ten"),), "pairs .regex, factor. are expected"),
    ("finetune.steps", 0, "finetune.steps is 0"),
    ("pretrain.log_every", 0, "pretrain.log_every is 0"),
    ("finetune.freeze", ("(",), "no regular expression"),
    ("probe.optim.name", "adan", "probe.optim.name: unknown optimiser 'adan'; did you mean 'adam"),
    ("finetune.optim.schedule", "cosin", "finetune.optim.schedule: .*did you mean 'cosine'"),
])  # fmt: skip
def test_check_refuses_what_no_stage_could_use(key, value, message):
    check(toy.get_config())
    with pytest.raises(UserError, match=message):
        check(changed(key, value))


def test_validation_may_be_off_where_the_last_step_is_kept():
    config = changed("finetune.validate_every", 0)
    config.finetune.select = "last"
    check(config)


def test_pretraining_may_take_no_step_and_then_one_modality():
    config = changed("pretrain.steps", 0)
    config.pretrain.modalities = ("audio",)
    check(config)


def test_hashed_words_need_room_for_one_word():
    config = changed("modalities.text.tokenizer", "word")
    config.modalities.text.vocab_size = 4
    check(config)
    config.modalities.text.vocab_size = 3
    with pytest.raises(UserError, match="'word' needs at least 4"):
        check(config)


def test_a_class_token_that_sees_only_itself_is_refused():
    for tower in ({}, {"text": {"causal": True}}):
        config = changed("model.class_token", True)
        config.model.pool = "cls"
        check(config)
        config.model.overrides, config.model.causal = tower, not tower
        with pytest.raises(UserError, match="pool='cls' with causal=True"):
            check(config)


def test_a_size_does_not_pass_over_numbers_in_silence():
    def sized(**numbers):
        config = configs.base("synthetic", toy.MODALITIES)
        config.model.update({"size": "S", **numbers})
        return config

    check(sized())
    check(sized(depth=12))
    with pytest.raises(UserError, match="model.size='S' means depth=12, but model.depth is 6"):
        check(sized(depth=6))
    config = sized()
    config.model.overrides = {"text": {"size": "Ti", "width": 256}}
    with pytest.raises(UserError, match="model.overrides.text.size='Ti' means width=192"):
        check(config)


def test_modality_names_are_plain():
    config = configs.base("synthetic", {"au/dio": toy.MODALITIES["audio"]})
    with pytest.raises(UserError, match="'au/dio'.*letters, digits"):
        check(config)


def test_unknown_fields_of_a_modality_are_refused():
    for make in (configs.spectrogram, configs.image, configs.video, configs.text, configs.features):
        with pytest.raises(UserError, match="has no field 'lenght'"):
            make(lenght=3)


def test_a_written_config_reads_back_the_same():
    config = toy.get_config("joint")
    config.finetune.optim.groups = (("head", 10.0), ("tokenizers", 0.1))
    plain = configs.to_dict(config)
    again = configs.from_dict(json.loads(json.dumps(plain)))
    assert configs.to_dict(again) == plain and configs.difference(again, config) == {}
    assert again.finetune.optim.groups == config.finetune.optim.groups
    assert configs.freeze(again) == configs.freeze(config.lock())


def test_difference_names_old_and_new():
    found = configs.difference(changed("masd.weight", 2.0), toy.get_config())
    assert found == {"masd.weight": (1.0, 2.0)}
