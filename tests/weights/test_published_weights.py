"""Published checkpoints come into our paths and go back bit for bit; every tensor is accounted for."""

import json

import numpy as np
import pytest
from published import augreg, cavmae, clip, filled, hollow, mae, reference_tensors, with_bias

from mmr_jax import tree
from mmr_jax.errors import UserError
from mmr_jax.weights import from_published, load_converted, mae_as_cavmae, mae_to_cavmae, save_converted, to_published
from mmr_jax.weights.convert import KINDS, Converted
from mmr_jax.weights.exact import check
from mmr_jax.weights.mapping import Options, Tensors

REFERENCES = {
    "cavmae": ("cavmae_pretrain", dict(heads=4, decoder_heads=4)),
    "cavmae_ft": ("cavmae_finetune", dict(heads=4)),
    "clip": ("clip", {}),
    "mae": ("mae", dict(heads=4, decoder_heads=3)),
}
SMALL = dict(width=64, depth=2, side=2)
DEEP = dict(wide=32, deep=2)
CLASSLESS = {name: shape for name, shape in mae(**SMALL, full=False).items() if name != "cls_token"}
SYNTHETIC = {
    "cavmae": ("cavmae", cavmae(**SMALL, **DEEP, times=3)),
    "cavmae_ft": ("cavmae_ft", cavmae(**SMALL, classes=5, times=3)),
    "audio alone": ("cavmae_ft", cavmae(**SMALL, classes=5, times=3, letters="a")),
    "pictures alone": ("cavmae_ft", cavmae(**SMALL, classes=5, letters="v")),
    "clip": ("clip", clip(**SMALL, text=64, vocabulary=9, length=5, dim=6)),
    "CustomTextCLIP": ("clip", clip(**SMALL, text=128, vocabulary=9, length=5, dim=6, below="text.")),
    "mae_full": ("mae", mae(**SMALL, **DEEP)),
    "mae": ("mae", mae(**SMALL, full=False)),
    "timm": ("vit", mae(**SMALL, full=False) | with_bias("head", 7, 64)),
    "timm without class token": ("vit", {**CLASSLESS, "pos_embed": (1, 4, 64)}),
    "augreg": ("vit", augreg(width=64, heads=4, depth=2, side=2, classes=7)),
}  # fmt: skip


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert found[name].tobytes() == tensor.tobytes(), name


@pytest.mark.parametrize("kind", REFERENCES)
def test_round_trip_of_the_reference(kind, reference, tmp_path):
    name, options = REFERENCES[kind]
    tensors = reference_tensors(reference, name)
    converted = from_published(kind, tensors, **options)
    assert_same_bits(to_published(converted), tensors)
    with np.load(reference / f"{name}.npz") as file:
        config = json.loads(str(file["config"]))
    model = converted.info["model"]
    assert model["norm_eps"] == config["layer_norm_eps"]
    assert model["width"] == config.get("embed_dim" if kind != "clip" else "vision_width")
    assert model["depth"] == config.get("total_depth", config.get("depth", config.get("vision_layers", 12)))


@pytest.mark.parametrize("name", SYNTHETIC)
def test_round_trip_of_every_name_set(name, tmp_path):
    """Through the folder too, with all tensors in place: used and aside make up the file."""
    kind, names = SYNTHETIC[name]
    tensors = filled(names)
    converted = from_published(kind, tensors)
    save_converted(converted, tmp_path / "weights")
    loaded = load_converted(tmp_path / "weights")
    assert loaded.info == json.loads(json.dumps(converted.info))
    assert_same_bits(to_published(loaded), tensors)
    used = [n for names in converted.info["account"]["used"].values() for n in names]
    assert sorted(used + converted.info["account"]["aside"]) == sorted(tensors)
    assert all(leaf.dtype == np.float32 for leaf in tree.flatten(converted.params).values())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_dtypes_and_prefixes_come_back(dtype, prefix):
    """OpenAI's file is partly fp16 and holds three integers; CAV-MAE's names begin with `module.`."""
    import ml_dtypes

    small = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[dtype]
    tensors = filled(SYNTHETIC["clip"][1])
    tensors = {n: t.astype(small) if "ln_" not in n else t for n, t in tensors.items()}
    numbers = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
    tensors |= {n: np.array(value) for n, value in numbers.items()}
    tensors = {prefix + n: t for n, t in tensors.items()}
    converted = from_published("clip", tensors)
    assert sorted(converted.aside) == sorted(numbers)
    assert_same_bits(to_published(converted), tensors)
    count = sum(int(np.prod(shape)) for shape in SYNTHETIC["clip"][1].values())
    assert converted.info["parameters"] == count


FULL = {
    "cavmae": (cavmae(), 647, 191_036_160),
    "cavmae_ft": (cavmae(classes=527), 478, 164_907_023),
    "clip": (clip(), 302, 149_620_737),
    "mae": (mae(), 254, 111_907_840),
}
AUDIO = (cavmae(classes=527, letters="a"), 252, 86_129_423)
FIXED = ("pos_embed_a", "pos_embed_v", "decoder_pos_embed_a", "decoder_pos_embed_v")


@pytest.mark.parametrize("kind, full", [*FULL.items(), ("cavmae_ft", AUDIO)], ids=[*FULL, "audio alone"])
def test_published_sizes(kind, full):
    """The tables hold exactly the published numbers of tensors and parameters, at full size."""
    names, tensors, parameters = full
    hollow_ = Tensors(hollow(names), "x")
    table = KINDS[kind].table(KINDS[kind].sizes(hollow_, Options()))
    check(table, hollow_)
    expected = table.published()
    assert (len(expected), sum(int(np.prod(s)) for s in expected.values())) == (tensors, parameters)
    if kind == "cavmae":
        dead = sum(int(np.prod(s)) for s in table.aside.values())
        encoder = sum(int(np.prod(s)) for n, s in expected.items() if not n.startswith(("decoder_", "mask_token")))
        trained = parameters - sum(int(np.prod(expected[n])) for n in FIXED)
        assert (len(table.aside), dead, encoder, trained) == (240, 167_936, 164_500_224, 190_129_920)


def test_where_the_numbers_go():
    """Patches, positions and predictions of CAV-MAE against indices written out: mel-major there, time-major here."""
    tensors = filled(cavmae(64, wide=32, depth=2, deep=1, times=3, side=2))
    converted = from_published("cavmae", tensors)
    flat, rng = tree.flatten(converted.params), np.random.default_rng(1)
    kernel = flat["encoder/tokenizers/audio/embed/kernel"]
    predict = flat["decoder/outputs/audio/predict/kernel"]
    picture = flat["encoder/tokenizers/image/embed/kernel"]
    for time, mel, channel in rng.integers(0, (16, 16, 3), (20, 3)):
        np.testing.assert_array_equal(kernel[time * 16 + mel], tensors["patch_embed_a.proj.weight"][:, 0, mel, time])
        np.testing.assert_array_equal(predict[:, time * 16 + mel], tensors["decoder_pred_a.weight"][mel * 16 + time])
        row, column = time, mel
        expected = tensors["patch_embed_v.proj.weight"][:, channel, row, column]
        np.testing.assert_array_equal(picture[(row * 16 + column) * 3 + channel], expected)
    for t in range(3):
        for f in range(8):
            ours = flat["encoder/tokenizers/audio/position"][t * 8 + f]
            np.testing.assert_array_equal(ours, tensors["pos_embed_a"][0, f * 3 + t])
            ours = flat["decoder/outputs/audio/position"][t * 8 + f]
            np.testing.assert_array_equal(ours, tensors["decoder_pos_embed_a"][0, f * 3 + t])
    norms = flat["encoder/shared/layers/norms/audio/mlp/scale"]
    np.testing.assert_array_equal(norms[0], tensors["blocks_u.0.norm2_a.weight"])
    qkv = flat["encoder/owned/image/layers/attention/qkv/kernel"]
    np.testing.assert_array_equal(qkv[1], tensors["blocks_v.1.attn.qkv.weight"].T)
    assert converted.info["modalities"]["audio"] == {
        "kind": "spectrogram", "patch_size": [16, 16], "grid": [3, 8], "frames": 48, "mels": 128
    }  # fmt: skip


def test_augreg_attention():
    """x @ kernel per head in the published layout is a third of ours."""
    tensors = filled(SYNTHETIC["augreg"][1])
    flat = tree.flatten(from_published("vit", tensors).params)
    at = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1"
    x = np.random.default_rng(0).normal(size=64).astype(np.float32)
    ours = x @ flat["encoder/owned/image/layers/attention/qkv/kernel"][1]
    for third, name in enumerate(("query", "key", "value")):
        expected = np.einsum("d,dhk->hk", x, tensors[f"{at}/{name}/kernel"])
        np.testing.assert_allclose(ours.reshape(3, 4, 16)[third], expected, rtol=1e-4, atol=1e-5)
    expected = np.einsum("hk,hkd->d", x.reshape(4, 16), tensors[f"{at}/out/kernel"])
    np.testing.assert_allclose(
        x @ flat["encoder/owned/image/layers/attention/out/kernel"][1], expected, rtol=1e-4, atol=1e-5
    )


def changed(name, **changes):
    """A synthetic checkpoint with tensors added, replaced or (None) removed."""
    tensors = {**filled(SYNTHETIC[name][1]), **changes}
    return SYNTHETIC[name][0], {n: t for n, t in tensors.items() if t is not None}


V = np.ones(64, np.float32)


@pytest.mark.parametrize("kind, tensors, message", [
    (*changed("cavmae", **{"blocks_a.0.norm3.weight": V}), "unknown tensor 'blocks_a.0.norm3.weight'; did you mean"),
    (*changed("cavmae", **{"norm_a.wieght": V, "norm_a.weight": None}), "unknown tensor 'norm_a.wieght'; did you mean"),
    (*changed("cavmae", **{"blocks_v.1.mlp.fc2.bias": None}), "tensor 'blocks_v.1.mlp.fc2.bias' is missing"),
    (*changed("cavmae", **{"blocks_v.1.norm1_a.bias": None}), "tensor 'blocks_v.1.norm1_a.bias' is missing"),
    (*changed("cavmae", **{"pos_embed_a": None}), "tensor 'pos_embed_a' is missing"),
    (*changed("cavmae", **{"norm.weight": V[None]}), "norm.weight has shape (1, 64), expected 1 axes"),
    (*changed("cavmae", **{"norm_v.bias": V[:5]}), "norm_v.bias has shape (5,), expected (64,)"),
    (*changed("cavmae", **{"norm_v.bias": V.astype(int)}), "norm_v.bias is int64; parameters must be floating point"),
    (*changed("cavmae", **{"norm_v.bias": V.astype(float) / 3}), "float64 with values that float32 cannot hold"),
    (*changed("cavmae", **{"pos_embed_v": np.ones((1, 5, 64), np.float32)}), "pos_embed_v holds 5 places"),
    (*changed("timm", **{"fc_norm.weight": V}), "fc_norm in place of the final norm"),
    ("cavmae", changed("cavmae_ft")[1], "is no cavmae checkpoint; it looks like cavmae_ft"),
    ("cavmae_ft", changed("clip")[1], "is no cavmae_ft checkpoint; it looks like clip"),
    ("mae", changed("timm")[1], "is no mae checkpoint; it looks like vit"),
    ("clip", {"vision_model.x": V}, "is no clip checkpoint; its names are such as 'vision_model.x'"),
    ("clip", {"visual.layer1.0.conv1.weight": V}, "image tower is a ResNet"),
    ("clap", {"x": V}, "unknown kind of checkpoint 'clap'; did you mean 'clip'?"),
], ids=str)  # fmt: skip
def test_what_does_not_fit_is_one_line(kind, tensors, message):
    with pytest.raises(UserError) as caught:
        from_published(kind, tensors, source="w.pt")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("options, message", [
    (dict(heads=5), "heads=5 does not divide the width 64"),
    (dict(decoder_heads=5), "decoder_heads=5 does not divide the width 32"),
    (dict(mels=100), "do not tile a spectrogram of 100 mels"),
    (dict(activation="gelu"), "only for clip"),
], ids=str)  # fmt: skip
def test_options_that_do_not_fit_are_one_line(options, message):
    with pytest.raises(UserError, match=message):
        from_published("cavmae", filled(SYNTHETIC["cavmae"][1]), **options)


def test_heads_are_asked_for_where_64_does_not_divide():
    with pytest.raises(UserError, match="width 48 is no multiple of 64"):
        from_published("cavmae", filled(cavmae(48, wide=32, depth=1, deep=1, times=3, side=2)))


def test_trained_parameters_that_do_not_fit_are_named():
    converted = from_published("mae", filled(SYNTHETIC["mae"][1]))
    flat = tree.flatten(converted.params)
    for changes, message in (
        ({"encoder/norms/image/bias": np.ones(3)}, "gives norm.bias of shape"),
        ({"encoder/owned/image/layers/mlp/up/bias": np.ones((3, 256))}, "does not fit"),
        ({"head/bias": V}, "'head/bias' has no place in a mae checkpoint"),
    ):
        with pytest.raises(UserError, match=message):
            to_published(Converted(tree.unflatten(flat | changes), {}, converted.info))
    with pytest.raises(UserError, match="parameter 'encoder/norms/image/bias' is missing"):
        del flat["encoder/norms/image/bias"]
        to_published(Converted(tree.unflatten(flat), {}, converted.info))


def test_mae_to_cavmae_by_hand():
    tensors = filled(mae(64, wide=32, depth=3, deep=2, side=2))
    found = mae_to_cavmae(tensors)
    expected = {f"norm{s}.{w}": tensors[f"norm.{w}"] for s in ("", "_a", "_v") for w in ("weight", "bias")}
    for name, tensor in tensors.items():
        if name.startswith(("blocks.0.", "blocks.1.")):
            rest = name.removeprefix("blocks.")
            expected |= {f"blocks_a.{rest}": tensor, f"blocks_v.{rest}": tensor}
        if name.startswith("blocks.2."):
            expected[name.replace("blocks.2.", "blocks_u.0.")] = tensor
            if ".norm" in name:
                part, weight = name.split(".")[2:]
                expected |= {f"blocks_u.0.{part}_{s}.{weight}": tensor for s in "av"}
        if name.startswith(("decoder_blocks", "decoder_embed", "decoder_norm")) or name == "mask_token":
            expected[name] = tensor
    kernel = tensors["patch_embed.proj.weight"]
    expected |= {"patch_embed_v.proj.weight": kernel, "patch_embed_a.proj.weight": kernel.sum(1)[:, None]}
    expected |= {f"patch_embed_{s}.proj.bias": tensors["patch_embed.proj.bias"] for s in "av"}
    expected |= {"pos_embed_v": tensors["pos_embed"][:, 1:], "decoder_pos_embed_v": tensors["decoder_pos_embed"][:, 1:]}
    expected |= {"decoder_pred_a.weight": tensors["decoder_pred.weight"][:256]}
    expected |= {"decoder_pred_a.bias": tensors["decoder_pred.bias"][:256]}
    expected |= {f"decoder_pred_v.{w}": tensors[f"decoder_pred.{w}"] for w in ("weight", "bias")}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


@pytest.mark.parametrize("full", [True, False])
def test_mae_as_cavmae_gives_all_but_what_it_cannot(full):
    tensors = filled(mae(64, wide=32, depth=3, deep=2, side=2, full=full))
    converted = mae_as_cavmae(tensors)
    names = set(cavmae(64, wide=32, depth=2, deep=2, side=2))
    if not full:
        names = {n for n in names if not n.startswith("decoder_") and n != "mask_token"}
    assert set(to_published(converted)) | set(converted.info["account"]["absent"]) == names
    absent = {n for n in converted.info["account"]["absent"] if not n.startswith(("blocks_", "decoder_blocks"))}
    decoder = {"decoder_modality_a", "decoder_modality_v", "decoder_pos_embed_a"} if full else set()
    assert absent == {"modality_a", "modality_v", "pos_embed_a"} | decoder
    assert "grid" not in converted.info["modalities"]["audio"]
    with pytest.raises(UserError, match="'blocks.0.attn.proj.bias' is missing"):
        mae_as_cavmae({n: t for n, t in tensors.items() if n != "blocks.0.attn.proj.bias"})


def test_damaged_folders_are_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no converted weights"):
        load_converted(tmp_path)
    converted = from_published("mae", filled(SYNTHETIC["mae"][1]))
    folder = tmp_path / "w"
    save_converted(converted, folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w"]
    with pytest.raises(UserError, match="exists already"):
        save_converted(converted, folder)
    card = json.loads((folder / "weights.json").read_text())
    (folder / "weights.json").write_text(json.dumps({**card, "format": 9}))
    with pytest.raises(UserError, match="is of format 9"):
        load_converted(folder)
    (folder / "weights.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        load_converted(folder)
    del card["account"]["used"]["encoder/norms/image/bias"]
    (folder / "weights.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="not those that weights.json lists"):
        load_converted(folder)
    (folder / "params.safetensors").unlink()
    with pytest.raises(UserError, match="params.safetensors does not exist"):
        load_converted(folder)
