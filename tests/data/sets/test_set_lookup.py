import importlib
from pathlib import Path

import pytest

from mmr_jax.data import sets
from mmr_jax.data.sets.files import video_cut
from mmr_jax.errors import UserError


def test_find_media(tree):
    names = ["a/x.wav", "b/x.mp4", "x.jpg", "c/x.unheard", "x.json", "x.mp4.part", ".x.mp4", "d/y.z.ogg", "nosuffix"]
    _, media = tree({f"media/{name}": "" for name in names})
    (media / "d" / "loop").symlink_to(media)
    assert sets.find_media(media) == {"x": ["b/x.mp4", "a/x.wav", "x.jpg", "c/x.unheard"], "y.z": ["d/y.z.ogg"]}


def test_linked_folders_are_followed(tree, tmp_path):
    _, media = tree({"elsewhere/x.mp4": ""})
    (media / "linked").symlink_to(tmp_path / "elsewhere")
    assert sets.find_media(media) == {"x": ["linked/x.mp4"]}


def test_no_media_folder(tmp_path):
    with pytest.raises(UserError, match="media folder .* does not exist"):
        sets.find_media(tmp_path / "absent")


@pytest.mark.parametrize("name", ["v_30000_40000", "v_30_40", "v_000030_000040", "v_30000", "v_30", "v_000030"])
def test_a_name_with_times_is_the_cut_already(name):
    assert video_cut({name: [f"{name}.webm"], "v": ["v.mp4"]}, "v", 30.0, 40.0, "m") == (f"{name}.webm", 0.0, None)


def test_a_whole_video_is_cut_and_a_missing_one_named():
    assert video_cut({"v": ["v.mp4"]}, "v", 239.8, 249.8, "m") == ("v.mp4", 239.8, 249.8)
    assert video_cut({"v_239800": ["v_239800.mp4"]}, "v", 239.8, 249.8, "m")[0] == "v_239800.mp4"
    assert video_cut({"v_10000": ["other.mp4"]}, "v", 30.0, 40.0, "m.mp4") == ("m.mp4", 0.0, None)


def test_load():
    assert all(hasattr(importlib.import_module(module), "listing") for module in sets.SETS.values())
    with pytest.raises(UserError, match="did you mean 'audioset'"):
        sets.load("audio_set", Path("."), Path("."))


@pytest.mark.parametrize("name", sorted(sets.SETS))
def test_a_folder_without_label_files_names_those_looked_for(tree, name):
    with pytest.raises(UserError, match="labels holds no label file of .*; looked for .*[.]") as error:
        sets.load(name, *tree({}))
    assert "\n" not in str(error.value)


def test_label_files_cannot_name_media_elsewhere(tree):
    for video in ("../../x", "/x"):
        line = f'{video}, 0, 10, "/m/1"\n'
        indices = "index,mid,display_name\n0,/m/1,Speech\n"
        found = tree({"labels/eval_segments.csv": line, "labels/class_labels_indices.csv": indices})
        with pytest.raises(UserError, match="line 1: media .* must be a path below the media folder"):
            sets.load("audioset", *found)
