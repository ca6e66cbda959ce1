import numpy as np
import pytest
from test_balanced import Labelled
from test_source import Numbers

from mmr_jax.data.labels import Relabelled, enhance, read_labels, relabel, write_labels
from mmr_jax.data.source import Cached, Subset, labels_of
from mmr_jax.errors import UserError

# 0 is above 1 and 2, 1 above 3, 3 above 4; 5 has two parents; 6 is related to nothing
PAIRS = [(0, 1), (0, 2), (1, 3), (3, 4), (2, 5), (3, 5)]


def ancestors(c):
    above = {p for p, child in PAIRS if child == c}
    return above.union(*(ancestors(p) for p in above))


def by_loops(labels, scores, statistic):
    """PSLA's two passes (children, then all parents), each from the original labels, merged."""
    out = labels.copy()
    for i, row in enumerate(labels):
        for c in np.flatnonzero(row):
            for other in ancestors(c) | {child for p, child in PAIRS if p == c}:
                having = [scores[j, other] for j in range(len(labels)) if labels[j, other]]
                if having and scores[i, other] > statistic(having):
                    out[i, other] = 1
    return out


@pytest.mark.parametrize("quantile", [None, 0.05, 0.25, 0.5])
def test_enhancement_equals_loops_over_examples(quantile):
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 7)) < 0.2).astype(np.float32)
    labels[:, 2] = 0  # a class that nobody has
    scores = rng.random((60, 7))
    statistic = np.mean if quantile is None else lambda s: np.percentile(s, 100 * quantile)
    found = enhance(labels, scores, PAIRS, quantile)
    np.testing.assert_array_equal(found, by_loops(labels, scores, statistic))
    assert found.dtype == np.float32 and found.sum() > labels.sum() and not found[:, 2].any()
    assert (found[:, 6] == labels[:, 6]).all()


def test_enhancement_refuses_what_does_not_fit():
    labels = np.ones((2, 3))
    with pytest.raises(UserError, match=r"scores are \(2, 4\) and labels \(2, 3\)"):
        enhance(labels, np.ones((2, 4)), [])
    with pytest.raises(UserError, match=r"pair \(0, 3\): classes are 0 to 2"):
        enhance(labels, labels, [(0, 3)])


def test_a_file_replaces_labels_by_id(tmp_path):
    old = np.eye(4, dtype=np.float32)[np.arange(10) % 4]
    new, ids = np.random.default_rng(0).random((12, 4)).astype(np.float32), np.random.default_rng(1).permutation(12)
    path = tmp_path / "labels.npz"
    write_labels(path, 100 + ids, new)
    assert [p.name for p in tmp_path.iterdir()] == ["labels.npz"]
    found_ids, found = read_labels(path)
    assert found_ids.dtype == np.int32 and found.dtype == np.float32
    np.testing.assert_array_equal(found, new)
    expected = {100 + i: row for i, row in zip(ids, new, strict=True)}
    for plain in (Labelled(old), Cached(Labelled(old))):
        source = relabel(Subset(plain, [8, 1, 5]), path)
        assert len(source) == 3
        batch = source.take([2, 0])
        assert batch["id"].tolist() == [105, 108] and batch["inputs"]["a"][:, 0].tolist() == [5, 8]
        np.testing.assert_array_equal(batch["label"], [expected[105], expected[108]])
        np.testing.assert_array_equal(source[1]["label"], expected[101])
        label, source_ids = labels_of(source)
        assert source_ids.tolist() == [108, 101, 105]
        np.testing.assert_array_equal(label, [expected[i] for i in source_ids])


def test_labels_that_do_not_fit_are_refused():
    source = Numbers(5, multilabel=True)
    with pytest.raises(UserError, match=r"no label for id 1 \(3 of 5 examples have none\)"):
        Relabelled(source, np.array([3, 0]), np.ones((2, 3)))
    with pytest.raises(UserError, match="id 3 is there twice"):
        Relabelled(source, np.array([3, 0, 3]), np.ones((3, 3)))
    with pytest.raises(UserError, match="4 classes, but the data set has 3"):
        Relabelled(source, np.arange(5), np.ones((5, 4)))
    with pytest.raises(UserError, match="one label per example"):
        Relabelled(Numbers(5), np.arange(5), np.ones((5, 3)))


def test_files_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(UserError, match="finetune.labels: there is no file"):
        read_labels(path)
    with pytest.raises(UserError, match=r"expected \[N, C\] for N ids"):
        write_labels(path, [1, 2], np.ones((3, 4)))
    path.write_text("no archive")
    with pytest.raises(UserError, match="is no npz file"):
        read_labels(path)
    np.savez(path, id=np.arange(3))
    with pytest.raises(UserError, match="is no npz file with id"):
        read_labels(path)
    np.savez(path, id=np.arange(3), label=np.ones((2, 4)))
    with pytest.raises(UserError, match=r"has id \(3,\) and label \(2, 4\)"):
        read_labels(path)
