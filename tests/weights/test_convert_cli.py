"""mmr convert there and back; what is wrong is one line, exit code 2 and nothing written."""

import numpy as np
import pytest
import toy
from published import TorchFile, cavmae, clip, filled, mae, state_dict
from safetensors.numpy import load_file

from mmr_jax.weights import load_converted


def convert(*arguments):
    """(exit code, stdout, lines of stderr)."""
    process = toy.run("-m", "mmr_jax", "convert", *arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, [line for line in err.splitlines() if line.strip()]


def test_there_and_back(tmp_path):
    """A torch file as CAV-MAE's are published, to a folder, to safetensors: every tensor bit for bit."""
    names = cavmae(64, wide=32, depth=2, deep=1, times=3, side=2)
    tensors = {f"module.{name}": tensor for name, tensor in filled(names).items()}
    file, folder, back = TorchFile(), tmp_path / "w", tmp_path / "back.safetensors"
    path = file.write(tmp_path / "audio_model.pth", state_dict(file, tensors))
    code, out, err = convert("--from=cavmae", f"--input={path}", f"--output={folder}")
    assert (code, err) == (0, [])
    parameters = sum(tensor.size for tensor in tensors.values())
    assert f"{parameters:,} parameters as published" in out and "kept aside" in out
    assert "attention heads: model 1, decoder 16; activation: gelu" in out
    code, out, err = convert("--to=published", f"--input={folder}", f"--output={back}")
    assert (code, err) == (0, []) and f"{len(tensors)} tensors" in out
    found = load_file(back)
    assert found.keys() == tensors.keys()
    assert all(found[name].tobytes() == tensor.tobytes() for name, tensor in tensors.items())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["audio_model.pth", "back.safetensors", "w"]


def test_mae_as_the_start_of_cavmae(tmp_path):
    path, folder = tmp_path / "mae.npz", tmp_path / "w"
    np.savez(path, **filled(mae(64, wide=32, depth=3, deep=1, side=2)))
    code, out, err = convert("--from=mae", "--as=cavmae", f"--input={path}", f"--output={folder}", "--decoder_heads=4")
    assert (code, err) == (0, []) and "keep their own initialisation" in out
    info = load_converted(folder).info
    assert (info["from"], info["model"]["adapter_depth"], info["decoder"]["heads"]) == ("cavmae", 2, 4)


@pytest.mark.parametrize("arguments, message", [
    ([], "give either --from="),
    (["--from=clip", "--to=published"], "give either --from="),
    (["--from=clap"], "clap"),
    (["--from=clip"], "--input is missing"),
    (["--from=clip", "--input=IN"], "--output is missing"),
    (["--from=clip", "--input=IN/absent.pt", "--output=OUT"], "absent.pt does not exist"),
    (["--from=clip", "--input=IN/w.npz", "--output=IN"], "exists already"),
    (["--from=mae", "--input=IN/w.npz", "--output=OUT"], "is no mae checkpoint; it looks like clip"),
    (["--from=clip", "--as=cavmae", "--input=IN/w.npz", "--output=OUT"], "goes with --from=mae only"),
    (["--from=clip", "--heads=5", "--input=IN/w.npz", "--output=OUT"], "heads=5 does not divide"),
    (["--from=clip", "--input=IN/broken.npz", "--output=OUT"], "'visual.proj' is missing"),
    (["--to=published", "--input=IN", "--output=OUT"], "holds no converted weights"),
], ids=str)  # fmt: skip
def test_what_is_wrong_is_one_line_and_writes_nothing(arguments, message, tmp_path):
    tensors = filled(clip(64, text=64, depth=1, side=2, vocabulary=9, length=5, dim=6))
    np.savez(tmp_path / "w.npz", **tensors)
    np.savez(tmp_path / "broken.npz", **{n: t for n, t in tensors.items() if n != "visual.proj"})
    places = {"OUT": str(tmp_path / "out"), "IN": str(tmp_path)}
    for short, long in places.items():
        arguments = [a.replace(f"={short}", f"={long}") for a in arguments]
    code, _, err = convert(*arguments)
    assert code == 2 and len(err) == 1 and err[0].startswith("mmr: error: ") and message in err[0], err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.npz", "w.npz"]
