import pytest

from mmr_jax.errors import UserError
from mmr_jax.robustness.subsets import all_subsets, modalities_of, parse_subset, subset_masks, subset_name


def test_all_subsets_by_size_then_name():
    expected = ["audio", "text", "video", "audio+text", "audio+video", "text+video", "audio+text+video"]
    assert all_subsets(["video", "audio", "text"]) == expected
    for n in range(1, 9):
        assert len(set(all_subsets(list("abcdefgh"[:n])))) == 2**n - 1


def test_names_are_sorted_and_parsed_in_any_order():
    assert subset_name(["video", "audio"]) == "audio+video"
    assert parse_subset("video+audio", ["video", "audio"]) == ("audio", "video")
    assert modalities_of(["b+a", "", "c"]) == ["a", "b", "c"]


def test_masks_keep_the_callers_order_of_modalities():
    masks = subset_masks(["video", "audio", "text"], ["audio", "audio+video", "text"])
    assert masks.tolist() == [[False, True, False], [True, True, False], [False, False, True]]
    assert masks.dtype == bool


@pytest.mark.parametrize("bad", [[], [""], ["a", "a"], ["a+b"], [" a"]])
def test_bad_modalities(bad):
    with pytest.raises(UserError):
        all_subsets(bad)


@pytest.mark.parametrize("bad", ["", "a++b", "a+a", "+"])
def test_bad_subsets(bad):
    with pytest.raises(UserError):
        parse_subset(bad)


def test_unknown_modality_is_named_with_the_nearest():
    with pytest.raises(UserError, match="'vidoe'.*did you mean 'video'"):
        parse_subset("audio+vidoe", ["audio", "video"])
