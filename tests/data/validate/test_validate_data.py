"""mmr validate-data finds what is wrong and nothing else, and its statistics are those of plain numpy."""

import io
import json
import re

import numpy as np
import pytest
import toy
import validate_files as made
from PIL import Image
from validate_files import files

from mmr_jax.data.prepare.workers import Pool, cores
from mmr_jax.data.prepared.folder import Folder
from mmr_jax.data.validate import run
from mmr_jax.errors import UserError

MELS = 8


def validate(folder, **options):
    return run.validate(folder, mels=MELS, window="hann", **options)


class Lasting(Pool):
    def __exit__(self, *_):
        pass


@pytest.fixture(scope="module", autouse=True)
def pool():
    """One for all tests but that of the command: its processes take longer to start than to read what is here."""
    with pytest.MonkeyPatch.context() as patch:
        lasting = Lasting(cores())
        patch.setattr(run, "Pool", lambda processes: lasting)
        yield
        lasting.close()


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """(folder, report) of data without anything wrong."""
    folder = made.write(tmp_path_factory.mktemp("clean") / "zoo", made.clean())
    return folder, validate(folder)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """(report, what is wrong)."""
    splits, wrong = made.suspicious()
    return validate(made.write(tmp_path_factory.mktemp("odd") / "zoo", splits)), wrong


def test_nothing_is_suspicious_about_clean_data(clean):
    assert clean[1]["suspicious"] == {}


def test_everything_wrong_is_found_and_nothing_else(odd):
    report, wrong = odd
    found = {kind: [case["name"] for case in of["first"]] for kind, of in report["suspicious"].items()}
    assert found == wrong
    assert all(of["count"] == len(of["first"]) for of in report["suspicious"].values())


def test_cases_say_where_and_what(odd):
    def case(kind, number=0):
        found = odd[0]["suspicious"][kind]["first"][number]
        return found["split"], found["row"], found["detail"]

    assert case("silent audio") == ("train", 0, "all samples are 7")
    assert case("silent audio", 1) == ("train", 1, "-71.2 dBFS")
    assert case("clipped audio") == ("train", 2, "1.1% of the samples")
    assert case("black frames") == ("train", 5, "1 of 4")
    assert case("other number of frames") == ("train", 8, "3 frames, the settings say 4")
    assert case("duplicate content") == ("train", 10, "as clip9 (train)")
    assert case("duplicate content", 1) == ("test", 3, "as clip22 (test)")
    assert case("duplicate content across splits") == ("test", 2, "as clip9 (train)")
    assert case("duplicate ids") == ("test", 5, "as in test, row 4")
    assert case("source in several splits")[2] == "train and test"
    assert case("undecodable frames")[2].startswith("frame 1: ") and "0x" not in case("undecodable frames")[2]


def log_mel64(pcm):
    """The front end in float64, one frame at a time, on a mel filterbank of loops."""
    rate, size, hop, fft = files.RATE, 25, 10, 32
    mel = lambda hz: 1127 * np.log(1 + hz / 700)  # noqa: E731
    edges = np.linspace(mel(20), mel(rate / 2), MELS + 2)
    rows = []
    for start in range(0, len(pcm) - size + 1, hop):
        frame = pcm[start : start + size] / 32768.0
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * np.hanning(size), fft)) ** 2
        row = np.zeros(MELS)
        for m in range(MELS):
            for k in range(fft // 2):
                x = mel(k * rate / fft)
                up, down = (
                    (x - edges[m]) / (edges[m + 1] - edges[m]),
                    (edges[m + 2] - x) / (edges[m + 2] - edges[m + 1]),
                )
                row[m] += max(0.0, min(up, down)) * power[k]
        rows.append(np.log(np.maximum(row, np.finfo(np.float32).eps)))
    return np.array(rows)


def test_log_mel_statistics_are_those_in_float64(clean):
    splits = made.clean()
    splits["all"] = [e for examples in splits.values() for e in examples]
    for name, examples in splits.items():
        values = np.concatenate([log_mel64(e["audio"]) for e in examples])
        found = clean[1]["log_mel"][name]
        assert found["values"] == values.size
        np.testing.assert_allclose([found["mean"], found["std"]], [values.mean(), values.std()], rtol=1e-5)


def test_pixel_statistics(clean):
    frames = [np.asarray(Image.open(io.BytesIO(j))) for e in made.clean()["test"] for j in e["frames"]]
    pixels = np.concatenate([frame.reshape(-1, 3) for frame in frames]) / 255
    found = clean[1]["pixels"]["test"]
    assert found["values"] == len(pixels)
    np.testing.assert_allclose(found["mean"], pixels.mean(0), rtol=1e-9)
    np.testing.assert_allclose(found["std"], pixels.std(0), rtol=1e-9)


def test_counts(clean, odd):
    train = clean[1]["splits"]["train"]
    assert list(clean[1]["splits"]) == ["train", "test", "val"]  # the largest first
    assert (train["clips"], train["read"], train["hours"]) == (12, 12, pytest.approx(12 * 1.5 / 3600))
    assert clean[1]["labels"]["labels"]["splits"]["val"] == {"labelled": 4, "counts": {"cat": 1, "dog": 2, "owl": 1}}
    assert sum(clean[1]["durations"]["splits"]["test"]["counts"]) == 8
    assert odd[0]["splits"]["test"]["combinations"] == {"audio+frames+text": 7, "text": 1}
    assert odd[0]["splits"]["val"]["combinations"] == {"audio+frames+text": 3, "audio+frames": 1}
    text = clean[1]["texts"]["text"]  # "a dog" and "an owl"
    assert (text["clips"], text["texts"], text["words"]["mean"]) == (24, 48, 2)
    assert text["bytes"] == {"median": 5, "mean": 5.5, "95 %": 6, "longest": 6}


def test_the_page_needs_nothing_else(odd, clean):
    page = clean[0].with_name("zoo-report") / "index.html"
    assert json.loads(page.with_name("report.json").read_text()) == clean[1]
    assert sorted(p.name for p in page.parent.iterdir()) == ["index.html", "report.json"]
    text = page.read_text()
    assert "Nothing suspicious was found." in text
    assert text.count("data:image/png;base64,") == 3 + 6  # durations, two label sets; two examples of each split
    assert not re.search(r"<script|<link|@import|url\(|(?:src|href)=\"(?!data:)", text)


def test_suspicious_examples_are_shown(odd):
    text = (run.Path(odd[0]["folder"]).with_name("zoo-report") / "index.html").read_text()
    for kind in ("silent audio", "frozen frames", "undecodable frames", "duplicate content"):
        assert re.search(rf'alt="clip\d+; {kind}: ', text)


def test_a_damaged_record_is_named_after_the_report(tmp_path):
    folder = made.write(tmp_path / "zoo", made.clean())
    file = files.damage(folder, "test", 6)
    assert file.name == "zoo-test.array_record-00001-of-00002"
    message = rf"1 of 24 records cannot be read, the first is .*{file.name}: record 2 \(clip26\): .*; the others"
    with pytest.raises(UserError, match=message) as error:
        validate(folder, out=tmp_path / "report")
    assert "\n" not in str(error.value)
    found = json.loads((tmp_path / "report/report.json").read_text())
    assert found["suspicious"].keys() == {"damaged records"}
    assert found["splits"]["test"]["read"] == 8


@pytest.mark.parametrize("size", [0, 1 << 16, 70000])
def test_a_shard_that_is_cut_off_is_named(tmp_path, size):
    folder = made.write(tmp_path / "zoo", made.clean())
    file = folder / "zoo-train.array_record-00001-of-00002"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(UserError, match=rf"\d+ of \d+ records cannot be read, the first is .*{file.name}: record \d"):
        validate(folder)


def test_index_and_records_that_disagree(tmp_path):
    folder = made.write(tmp_path / "zoo", made.clean())
    index = Folder(folder).split("val").index
    ids, present, labels = index["id"].copy(), index["present"].copy(), index["label-labels"].copy()
    ids[0], present[1, 2], labels[2] = "other", False, (labels[2] + 1) % 3
    made.change_index(folder, "val", id=ids, present=present, **{"label-labels": labels})
    found = validate(folder, share=1.0)["suspicious"]
    assert found.keys() == {"index and record disagree"}
    cases = [(case["row"], case["detail"]) for case in found["index and record disagree"]["first"]]
    assert cases == [(0, "id"), (1, "presence"), (2, "labels of labels")]


def test_an_index_that_cannot_be_that_of_the_split_is_refused(tmp_path):
    folder = made.write(tmp_path / "zoo", made.clean())
    made.change_index(folder, "val", source=np.array(["a"]))
    with pytest.raises(UserError, match=r"index-val.npz is damaged \(source is \(1,\), expected \(4,\)\)"):
        validate(folder)


def test_a_share_is_random_and_the_same_in_every_run():
    rows = run._rows(1000, 0.1)
    np.testing.assert_array_equal(rows, run._rows(1000, 0.1))
    assert len(set(rows.tolist())) == 100 and (np.diff(rows) > 0).all() and 300 < rows.mean() < 700
    assert run._rows(3, 0.01).size == 1 and run._rows(0, 0.1).size == 0
    np.testing.assert_array_equal(run._rows(5, 1.0), range(5))


def test_the_report_never_lies_in_the_data_set(clean):
    for out in (clean[0], clean[0] / "report", clean[0] / "x/.."):
        with pytest.raises(UserError, match="lies in the data set"):
            validate(clean[0], out=out)
    with pytest.raises(UserError, match="--share=0 must be"):
        validate(clean[0], share=0)


def test_the_command(clean, tmp_path):
    arguments = [f"--folder={clean[0]}", f"--out={tmp_path / 'r'}", "--share=0.25", f"--mels={MELS}"]
    process = toy.run("-m", "mmr_jax", "validate-data", *arguments)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    found = json.loads((tmp_path / "r/report.json").read_text())
    assert {name: s["read"] for name, s in found["splits"].items()} == {"train": 3, "test": 2, "val": 1}
    assert f"mean={found['log_mel']['train']['mean']:.2f}, std=" in out and "Nothing suspicious" in out
