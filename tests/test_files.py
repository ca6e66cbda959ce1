"""Files are whole or absent."""

import json
from pathlib import Path

import pytest

from mmr_jax.errors import UserError
from mmr_jax.files import read_json, write_bytes, write_json, write_text


def test_what_is_written_is_read(tmp_path):
    write_json(tmp_path / "a.json", {"ä": [1, None]})
    assert read_json(tmp_path / "a.json") == {"ä": [1, None]}
    write_text(tmp_path / "a.json", "ö")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "ö"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_write_that_is_cut_off_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def half(self, data):
        with open(self, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, json.dumps({"new": list(range(100))}).encode())
    assert read_json(path) == {"old": 1} and [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [None, '{"cut": '])
def test_an_absent_or_damaged_file_is_named(content, tmp_path):
    if content:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="config.json cannot be read"):
        read_json(tmp_path / "config.json")
