import numpy as np
import pytest

from mmr_jax.errors import UserError
from mmr_jax.robustness import Predictions, Result, all_subsets, load, save_predictions
from mmr_jax.robustness.results import read_matrix_csv, read_predictions, to_results, write_matrix_csv

SUBSETS = all_subsets(["audio", "video"])


def predictions(train="audio", seed=0, multi=False, n=12, **kw):
    rng = np.random.default_rng([seed, len(train)])
    labels = (np.arange(n)[:, None] % 4 == np.arange(4)).astype(np.int32)
    labels = labels if multi else labels.argmax(1)
    scores = rng.normal(size=(3, n, 4)).astype(np.float32)
    valid = rng.uniform(size=(3, n)) < 0.8
    ids = np.array([f"clip{i}" for i in range(n)])
    return Predictions("finetune", train, SUBSETS, scores, valid, labels, ids, seed=seed, **kw)


def write_csv(path, *lines, header="train,eval,score"):
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def full(*, drop=(), swap=lambda name: name):
    return [f"{swap(t)},{swap(e)},0.5" for t in SUBSETS for e in SUBSETS if (t, e) not in drop]


def test_csv_round_trip_keeps_everything(tmp_path):
    rng = np.random.default_rng(0)
    cells = {t: {e: float(rng.uniform()) for e in SUBSETS} for t in SUBSETS}
    counts = {t: {e: 7 for e in SUBSETS} for t in SUBSETS}
    results = [
        Result('odd, "name"\n', cells, seed=3, pretrain="audio+video", alpha=0.1, counts=counts),
        Result("plain", cells),
    ]
    write_matrix_csv(tmp_path / "m.csv", results)
    assert read_matrix_csv(tmp_path / "m.csv")[1] == results[1]
    assert read_matrix_csv(tmp_path / "m.csv")[0].scores == cells
    assert read_matrix_csv(tmp_path / "m.csv")[0].counts == counts
    assert read_matrix_csv(tmp_path / "m.csv")[0].alpha == 0.1


def test_a_users_file_needs_three_columns_in_any_subset_order(tmp_path):
    def swap(name):
        return "video+audio" if name == "audio+video" else name

    path = write_csv(tmp_path / "m.csv", *full(swap=swap))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # a spreadsheet's byte-order mark
    (result,) = read_matrix_csv(path)
    assert result.method == "model" and result.scores["audio+video"]["audio+video"] == 0.5
    assert load(path) == ([result], None)


@pytest.mark.parametrize(
    "lines, words",
    [
        (full(drop=[("audio", "video")]), r"scores\['audio'\]\['video'\] is missing"),
        ([*full(), "audio,video,0.5"], r"line 11: scores\['audio'\]\['video'\] comes twice"),
        (["audio,video,high"], "line 2: score is 'high'"),
        (["audio,video,nan"], "line 2: score is 'nan'"),
        (["audio,vid,0.5"], "line 2: .*unknown modality 'vid'.*'video'"),
        (["audio,,0.5"], "line 2: '' is no modality subset"),
        (["audio,video"], "line 2: 2 fields, 3 expected"),
        ([], "only a header"),
    ],
)
def test_bad_csv_lines_are_named(tmp_path, lines, words):
    path = write_csv(tmp_path / "m.csv", *lines)
    with pytest.raises(UserError, match=words) as error:
        read_matrix_csv(path, modalities=["audio", "video"])
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "header, words",
    [
        ("train,score", "'eval' is missing"),
        ("train,eval,score,sed", "'sed' is unknown; did you mean 'seed'"),
        ("train,eval,score,score", "'score' comes twice"),
        ("", "'train' is missing"),
    ],
)
def test_bad_headers(tmp_path, header, words):
    with pytest.raises(UserError, match=words):
        read_matrix_csv(write_csv(tmp_path / "m.csv", header=header))


def test_fewer_training_sets_only_when_said(tmp_path):
    path = write_csv(tmp_path / "m.csv", *(f"audio,{e},0.5" for e in SUBSETS))
    with pytest.raises(UserError, match=r"scores\['video'\]\['audio'\] is missing"):
        read_matrix_csv(path)
    assert list(read_matrix_csv(path, train_subsets=["audio"])[0].scores) == ["audio"]


def test_a_narrower_pretraining_set_needs_only_its_cells(tmp_path):
    def lines(pretrain, subsets):
        return [f"{pretrain},{t},{e},0.5" for t in subsets for e in subsets]

    wide, narrow = all_subsets(["a", "b", "c"]), all_subsets(["a", "b"])
    header = "pretrain,train,eval,score"
    path = write_csv(tmp_path / "m.csv", *lines("a+b+c", wide), *lines("a+b", narrow), header=header)
    assert [len(r.scores) for r in read_matrix_csv(path)] == [7, 3]
    path = write_csv(tmp_path / "m.csv", *lines("a+b+c", wide), *lines("a+b", narrow[:2]), header=header)
    with pytest.raises(UserError, match=r"\['a\+b'\] is missing"):
        read_matrix_csv(path)


def test_predictions_round_trip(tmp_path):
    made = predictions(alpha=0.25, pretrain="audio+video")
    save_predictions(tmp_path / "deep" / "one.npz", made)
    save_predictions(tmp_path / "two.npz", predictions(train="video"))
    found = {p.train: p for p in read_predictions(tmp_path)}
    one = found["audio"]
    for name in ("scores", "valid", "labels", "ids"):
        assert np.array_equal(getattr(one, name), getattr(made, name))
    assert (one.method, one.eval, one.alpha, one.pretrain) == ("finetune", SUBSETS, 0.25, "audio+video")
    assert found["video"].alpha is None


@pytest.mark.parametrize("multi", [False, True])
def test_scores_of_predictions_count_valid_examples_only(multi):
    p = predictions(multi=multi)
    (result,) = to_results([p], "map" if multi else "top1")
    for row, name in enumerate(SUBSETS):
        kept = p.valid[row]
        assert result.counts["audio"][name] == kept.sum()
        if not multi:
            expected = (p.scores[row].argmax(1) == p.labels)[kept].mean()
            assert result.scores["audio"][name] == pytest.approx(expected)
        else:
            per_class = []
            for c in range(4):
                order = np.argsort(-p.scores[row][kept][:, c])
                y = p.labels[kept][order, c]
                precision = np.cumsum(y) / np.arange(1, len(y) + 1)
                per_class.append((precision * y).sum() / y.sum())
            assert result.scores["audio"][name] == pytest.approx(np.mean(per_class))


def test_load_a_folder_picks_the_metric(tmp_path):
    for train in SUBSETS:
        save_predictions(tmp_path / f"{train}.npz", predictions(train, multi=True))
    results, found = load(tmp_path)
    assert results == to_results(found, "map") and len(found) == 3


def test_bad_folders(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "none")
    with pytest.raises(UserError, match="no predictions"):
        load(tmp_path)
    save_predictions(tmp_path / "a.npz", predictions())
    with pytest.raises(UserError, match=r"scores\['video'\]\['audio'\] is missing"):
        load(tmp_path)
    save_predictions(tmp_path / "b.npz", predictions("video", n=11))
    with pytest.raises(UserError, match="b.npz: its ids differ"):
        load(tmp_path)
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:500])
    with pytest.raises(UserError, match="b.npz: no readable"):
        load(tmp_path)
    np.savez(tmp_path / "b.npz", ids=np.arange(3))
    with pytest.raises(UserError, match="b.npz: array 'scores' is missing"):
        load(tmp_path)
    np.savez(tmp_path / "b.npz", ids=np.array([object()]))
    with pytest.raises(UserError, match="b.npz: no readable"):
        load(tmp_path)


def test_bad_predictions():
    with pytest.raises(UserError, match="come twice"):
        to_results([predictions(), predictions()], "top1")
    with pytest.raises(UserError, match="metric 'top2'.*top1"):
        to_results([predictions()], "top2")
    p = predictions()
    p.valid[1] = False
    with pytest.raises(UserError, match=r"scores\['audio'\]\['video'\] has no valid example"):
        to_results([p], "top1")
    with pytest.raises(UserError, match="shapes do not fit"):
        Predictions("m", "a", ["a"], np.zeros((1, 3, 2)), np.ones((1, 2), bool), np.zeros(3), np.arange(3))
