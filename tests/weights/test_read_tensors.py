"""Files of tensors are read by content, without running anything; what is damaged or hostile is one line."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
from published import BF16, ORDERED, Call, Name, Reference, TorchFile, opcodes, state_dict
from safetensors.numpy import save_file

from mmr_jax.errors import UserError
from mmr_jax.weights import pickled, read
from mmr_jax.weights.read import read_tensors

A = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7
VALUES = {"a": A, "half": A.astype(np.float16), "brain": A.astype(BF16), "scalar": np.array(-2.5, np.float32)}
VALUES |= {"long": np.array([[1, -(2**40)]]), "flag": np.array([True, False]), "none": np.zeros((0, 3), np.float32)}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


def refusal(path):
    with pytest.raises(UserError) as caught:
        read_tensors(path)
    message = str(caught.value)
    assert "\n" not in message and path.name in message
    return message


def test_safetensors_and_npz_whatever_they_are_called(tmp_path):
    save_file(VALUES, tmp_path / "weights.bin")
    assert_equal(read_tensors(tmp_path / "weights.bin"), VALUES)
    plain = {name: array for name, array in VALUES.items() if name != "brain"}
    plain["fortran"] = np.asfortranarray(A)
    with (tmp_path / "weights.pt").open("wb") as file:
        np.savez_compressed(file, **plain)
    found = read_tensors(tmp_path / "weights.pt")
    assert_equal(found, plain)


def test_torch_file_with_all_types(tmp_path):
    file = TorchFile()
    path = file.write(tmp_path / "w.pth", state_dict(file, VALUES))
    assert_equal(read_tensors(path), VALUES)


def test_views_share_a_storage_and_strides_are_honoured(tmp_path):
    file = TorchFile("w")
    flat = A.reshape(-1)
    storage = file.storage(flat)
    payload = {
        "transposed": file.tensor(A, 0, (4, 6), (1, 4), storage),
        "second": file.tensor(A, 12, (3, 4), (4, 1), storage),
        "every_other": file.tensor(A, 1, (5,), (2,), storage),
        "parameter": Call(Name("torch._utils", "_rebuild_parameter"), (file.tensor(A), True, Call(ORDERED, ()))),
    }
    found = read_tensors(file.write(tmp_path / "w.pt", payload))
    expected = {"transposed": A.reshape(6, 4).T, "second": A[1], "every_other": flat[1:11:2], "parameter": A}
    assert_equal(found, {name: np.ascontiguousarray(array) for name, array in expected.items()})


def test_newer_rebuild_with_an_untyped_storage(tmp_path):
    file = TorchFile()
    values = np.array([1, 2, 65535], np.uint16)
    file.entries["0"] = values.tobytes()
    storage = Reference(("storage", Name("torch.storage", "UntypedStorage"), "0", "cpu", 6))
    args = (storage, 0, (3,), (1,), False, Call(ORDERED, ()), Name("torch", "uint16"))
    path = file.write(tmp_path / "w.pt", {"u": Call(Name("torch._utils", "_rebuild_tensor_v3"), args)})
    assert_equal(read_tensors(path), {"u": values})


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state_dict"])
def test_nested_payloads_are_unwrapped_and_what_is_beside_is_left(wrapper, tmp_path):
    file = TorchFile()
    metadata = {"_metadata": {"": {"version": 1}}}
    inner = Call(ORDERED, (), metadata)
    options = Call(Name("argparse", "Namespace"), (), {"lr": 0.1, "names": ["x"], "flag": None}, new=True)
    beside = {"epoch": 3, "args": options, "optimizer": {"state": {0: {"exp_avg": file.tensor(A)}}}, "empty": inner}
    path = file.write(tmp_path / "w.pt", {**beside, wrapper: state_dict(file, {"a": A, "b.c": A[0]})})
    assert_equal(read_tensors(path), {"a": A, "b.c": A[0]})


def test_pickles_written_by_pickle_itself_are_read(tmp_path):
    """The same values under protocols 2 to 5: every opcode that plain containers need."""
    payload = {"list": [1, 2.5, None, True, "text", b"bytes", 2**70, -3], "tuple": ((), (1,), (1, 2), (1, 2, 3, 4))}
    payload |= {"dict": {1: {"a": []}}, "set": {1}, "frozen": frozenset((2,)), "shared": [payload["list"]] * 2}
    for protocol in (0, 1, 2, 3, 4, 5):
        shown = {**payload, "set": [1], "frozen": [2]}
        if protocol < 4:  # before 4 sets are calls of names that a checkpoint has no use for
            shown = {k: v for k, v in shown.items() if k not in ("set", "frozen")}
        if protocol < 3:
            shown["list"] = [x for x in shown["list"] if not isinstance(x, bytes)]
            shown["shared"] = [shown["list"]] * 2
        given = {k: payload[k] if k in ("set", "frozen") else v for k, v in shown.items()}
        assert pickled.read(pickle.dumps(given, protocol), "x") == shown


def script(file, tensors):
    """Nested modules as torch.jit.save writes them, below classes that exist only in the archive."""
    visual = {"training": True, "conv1": module("Conv", {"weight": file.tensor(tensors["visual.conv1.weight"])})}
    ints = Call(Name("torch.jit._pickle", "build_intlist"), ([1, 2],))
    state = {"training": False, "visual": module("VisualTransformer", visual), "sizes": ints, "name": "clip"}
    return module("Multimodal", {**state, "logit_scale": file.tensor(tensors["logit_scale"])})


def module(name, state):
    return Call(Name(f"__torch__.model.___torch_mangle_7.{name}", name), (), state, new=True)


def test_torchscript_archive(tmp_path):
    tensors = {"visual.conv1.weight": A.astype(np.float16), "logit_scale": np.array(2.3, np.float32)}
    file = TorchFile("ViT-B-16")
    extra = [("constants.pkl", b"\x80\x02)."), ("code/__torch__/model.py", b"import os\nos.abort()\n")]
    path = file.write(tmp_path / "clip.pt", script(file, tensors), extra=extra)
    assert_equal(read_tensors(path), tensors)


class Evil:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def hostile(name, sentinel):
    """(pickle, what must be named): files that write `sentinel` if they are loaded like any pickle."""
    command = f"touch {sentinel}"
    plain = {"system": b"cos\nsystem\n", "posix": b"cposix\nsystem\n"}.get(name)
    text = opcodes(command)
    if plain:
        return b"\x80\x02" + plain + b"(" + text + b"tR."
    if name == "eval":
        return pickle.dumps({"model": [Evil(eval, f"open({str(sentinel)!r}, 'w')")]}, 2)
    if name == "stack_global":
        return pickle.dumps(Evil(io.open, str(sentinel), "w"), 4)
    if name == "nested":
        inner = b"cbuiltins\ngetattr\n" + b"(" + b"cbuiltins\n__import__\n(" + opcodes("os") + b"tR" + opcodes("system")
        return b"\x80\x02" + inner + b"tR(" + text + b"tR."
    if name == "setstate":  # an allowed object that is given __setstate__ by BUILD, and then a state
        state = b"}(" + opcodes("__setstate__") + b"cos\nsystem\n" + b"ub" + text + b"b."
        return b"\x80\x02cargparse\nNamespace\n)\x81" + state
    if name == "inst":
        return b"(" + text + b"ios\nsystem\n."
    if name == "load":
        return b"\x80\x02ctorch.storage\n_load_from_bytes\n(" + text + b"tR."
    return b"\x80\x02ctorch\nload\n(" + text + b"tR."


NAMED = {"system": "os.system", "posix": "posix.system", "eval": "__builtin__.eval", "stack_global": "io.open"}
NAMED |= {"nested": "builtins.getattr", "setstate": "os.system", "inst": "os.system", "torch_load": "torch.load"}
NAMED |= {"load": "torch.storage._load_from_bytes"}


@pytest.mark.parametrize("name", NAMED)
def test_code_is_refused_by_name_and_does_not_run(name, tmp_path):
    sentinel = tmp_path / "sentinel"
    data = hostile(name, sentinel)
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("archive/data.pkl", data)
    message = refusal(tmp_path / "evil.pt")
    assert f"{NAMED[name]} in " in message and "would run code on loading" in message
    assert not sentinel.exists()


def test_the_hostile_pickles_are_not_harmless(tmp_path):
    """The test above means something: pickle itself runs the first of them."""
    sentinel = tmp_path / "sentinel"
    pickle.loads(hostile("system", sentinel))
    assert sentinel.exists()


def test_npz_of_objects_is_refused(tmp_path):
    sentinel = tmp_path / "sentinel"
    evil = np.array([Evil(eval, f"open({str(sentinel)!r}, 'w')")], dtype=object)
    np.savez(tmp_path / "w.npz", a=A, evil=evil)
    assert "'evil.npy' holds Python objects" in refusal(tmp_path / "w.npz")
    assert not sentinel.exists()


@pytest.mark.parametrize("view, message", [
    ((-1, (2,), (1,)), "impossible layout"),
    ((0, (2,), (-1,)), "impossible layout"),
    ((0, (2, 2), (1,)), "impossible layout"),
    ((0, (-2,), (1,)), "impossible layout"),
    ((0, (25,), (1,)), "reaches outside its storage"),
    ((20, (5,), (1,)), "reaches outside its storage"),
    ((0, (3, 2), (12, 1)), "reaches outside its storage"),
    ((0, (10**12,), (0,)), "reaches outside its storage"),
    ((2**62, (2**62, 2**62), (2**62, 1)), "reaches outside its storage"),
], ids=str)  # fmt: skip
def test_views_outside_their_storage_are_refused(view, message, tmp_path):
    file = TorchFile()
    path = file.write(tmp_path / "w.pt", {"bad": file.tensor(A, *view, file.storage(A))})
    assert message in refusal(path) and "'bad'" in refusal(path)


def test_storages_that_are_absent_or_short_are_refused(tmp_path):
    file = TorchFile()
    path = file.write(tmp_path / "short.pt", {"bad": file.tensor(A, storage=file.storage(A, count=25))})
    assert "needs 100 bytes of storage 0, which has 96" in refusal(path)
    file = TorchFile()
    payload = {"bad": file.tensor(A)}
    file.entries.clear()
    assert "data/0 is absent" in refusal(file.write(tmp_path / "absent.pt", payload))


def test_bombs_are_refused(tmp_path, monkeypatch):
    file = TorchFile()
    zeros = {"a": file.tensor(np.zeros(1 << 18, np.float32))}
    path = file.write(tmp_path / "bomb.pt", zeros, zipfile.ZIP_DEFLATED)
    assert_equal(read_tensors(path), {"a": np.zeros(1 << 18, np.float32)})
    monkeypatch.setattr(read, "SMALL", 1 << 19)
    assert "would unpack from" in refusal(path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**13,)})
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue() + b"\0" * 16)
    assert "promises an array of shape (10000000000000,)" in refusal(tmp_path / "w.npz")
    raw = bytearray((tmp_path / "w.npz").read_bytes())
    place = raw.rindex(b"PK\x01\x02") + 24
    raw[place : place + 4] = struct.pack("<I", 2**32 - 2)  # the size that the directory promises
    (tmp_path / "w.npz").write_bytes(raw)
    assert "would unpack" in refusal(tmp_path / "w.npz")


@pytest.mark.parametrize("data", [
    b"\x80\x02}(" * 3 + b".", b"\x80\x02.", b"\x80\x02t.", b"\x80\x02R.", b"\x80\x02h\x05.", b"\x80\x02}", b"\xff\xfe",
    b"\x80\x02X\xff\xff\xff\x7fab.", b"\x80\x02}((ttNu.", b"\x80\x02K\x01)b.", b"\x80\x02]K\x01Q.", b"",
    b"\x80\x02\x82\x01.", b"\x80\x02ctorch\nSize\n)R.", b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
], ids=repr)  # fmt: skip
def test_damaged_pickles_are_one_line(data, tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("archive/data.pkl", data)
    refusal(tmp_path / "w.pt")


def test_self_reference_ends(tmp_path):
    """A dict that holds itself under "model", and a module that is its own child."""
    for data in (b"\x80\x02}q\x00X\x05\0\0\0modelh\x00s.", b"\x80\x02c__torch__\nM\n)\x81q\x00}X\x01\0\0\0ah\x00sb."):
        with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
            archive.writestr("archive/data.pkl", data)
        assert "no tensors" in refusal(tmp_path / "w.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt"])
def test_truncated_files_are_one_line(suffix, tmp_path):
    path = tmp_path / f"w{suffix}"
    file = TorchFile()
    {
        ".safetensors": lambda: save_file(VALUES, path),
        ".npz": lambda: np.savez(path, a=A, b=A),
        ".pt": lambda: file.write(path, state_dict(file, VALUES)),
    }[suffix]()
    whole = path.read_bytes()
    for share in (0.0, 0.02, 0.5, 0.98):
        path.write_bytes(whole[: int(len(whole) * share)])
        refusal(path)


def test_a_flipped_bit_in_an_archive_is_noticed(tmp_path):
    file = TorchFile()
    path = file.write(tmp_path / "w.pt", state_dict(file, {"a": A}))
    raw = bytearray(path.read_bytes())
    raw[raw.index(A.tobytes()) + 5] ^= 1
    path.write_bytes(raw)
    assert "damaged" in refusal(path)


def test_other_files_are_one_line(tmp_path):
    cases = {"page.pt": (b"<!DOCTYPE html>" * 9, "neither safetensors"), "empty.pt": (b"", "is empty")}
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    cases |= {
        "old.pth": (magic + b"\x80\x02M\xe9\x03.", "before 1.6"),
        "bare.pkl": (pickle.dumps({"a": 1}), "bare pickle"),
    }
    for name, (raw, message) in cases.items():
        (tmp_path / name).write_bytes(raw)
        assert message in refusal(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "docs.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    assert "neither npz nor written by torch" in refusal(tmp_path / "docs.zip")
    assert "does not exist" in refusal(tmp_path / "absent.pt")


def test_no_tensors_is_one_line(tmp_path):
    file = TorchFile()
    assert "no tensors by name" in refusal(file.write(tmp_path / "w.pt", {"epoch": 3, "args": {"lr": 1}}))


@pytest.mark.parametrize("length", [0x80, 0x180, 0x100])
def test_a_safetensors_header_may_be_as_long_as_a_pickle_begins(tmp_path, length):
    """The file begins with the header's length; its lowest byte may be that of a pickle."""
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(length)
    (tmp_path / "x.safetensors").write_bytes(length.to_bytes(8, "little") + header + np.float32(7).tobytes())
    np.testing.assert_array_equal(read_tensors(tmp_path / "x.safetensors")["a"], [7])
