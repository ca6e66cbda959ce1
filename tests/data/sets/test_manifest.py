import csv
import dataclasses
import io
import json
import pickle

import pytest

from mmr_jax.data.prepare import manifest
from mmr_jax.data.prepare.listing import Clip, Label, LabelSet
from mmr_jax.errors import UserError


@pytest.fixture
def read(tmp_path):
    def read_(content, name="clips.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return manifest.read(path)

    return read_


FULL = """media,id,start,end,source,split,text,text.title,labels,labels.speaker,_remark
a/x.mp4,one,1.5,4,video7,test,hello | there,A title,dog|cat@0.5-2,ann,not read
a/x.mp4,,4,9.25,video7,test,,,,,
b.wav,,,,,,,,dog@0-1|dog@2-3,bob,
"""


def test_a_full_csv(read, consistent):
    listing = consistent(read(FULL))
    first, second, third = listing.clips
    assert first == Clip(
        "one",
        "test",
        "a/x.mp4",
        1.5,
        4.0,
        "video7",
        {"text": ("hello", "there"), "title": ("A title",)},
        {"labels": (Label("dog"), Label("cat", 0.5, 2.0)), "speaker": (Label("ann"),)},
    )
    assert (second.id, second.start, second.end) == ("x_004000", 4.0, 9.25)
    assert second.texts == {"text": (), "title": ()} and second.labels == {"labels": (), "speaker": ()}
    assert (third.id, third.split, third.source, third.end) == ("b", "train", "b.wav", None)
    assert third.labels["labels"] == (Label("dog", 0.0, 1.0), Label("dog", 2.0, 3.0))
    assert listing.texts == ("text", "title") and listing.problems == []
    assert listing.label_sets["labels"] == LabelSet(("cat", "dog"), True, "map")
    assert listing.label_sets["speaker"] == LabelSet(("ann", "bob"), False, "top1")
    assert listing.modalities == ("audio", "frames", "text")
    assert pickle.loads(pickle.dumps(listing)) == listing  # workers get clips this way


def test_jsonl_says_the_same_as_csv(read):
    rows = [
        {
            "media": "a/x.mp4",
            "id": "one",
            "start": 1.5,
            "end": 4,
            "source": "video7",
            "split": "test",
            "text": ["hello", "there"],
            "text.title": "A title",
            "labels": ["dog", {"name": "cat", "start": 0.5, "end": 2}],
            "labels.speaker": ["ann"],
            "_remark": {"any": "thing"},
        },
        {"media": "a/x.mp4", "start": 4, "end": 9.25, "source": "video7", "split": "test", "text": None, "labels": []},
        {
            "media": "b.wav",
            "labels": [{"name": "dog", "end": 1}, {"name": "dog", "start": 2, "end": 3}],
            "labels.speaker": "bob",
        },
    ]
    lines = "\n\n".join(map(json.dumps, rows))
    assert read(lines, "clips.jsonl") == dataclasses.replace(read(FULL), notes=("3 clips by clips.jsonl",))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_byte_order_marks_blank_lines_and_quoted_newlines(read, end, mark):
    cells = [["media", "text", "labels"], ["a.mp4", "two\nlines, one cell", "bird chirping, tweeting"]]
    out = io.StringIO()
    csv.writer(out, lineterminator=end).writerows([*cells, ["b.mp4", 'say "hi"', "x"]])
    text = out.getvalue().replace(f"x{end}", f"x{end}{end} ,,{end}")
    listing = read(mark + text.encode())
    assert [c.texts["text"] for c in listing.clips] == [("two\nlines, one cell",), ('say "hi"',)]
    assert listing.label_sets["labels"].classes == ("bird chirping, tweeting", "x")
    assert listing.problems == []


def test_lines_are_counted_over_quoted_newlines(read):
    with pytest.raises(UserError, match="line 5: start is 'soon'"):
        read('media,start,text\na.mp4,,"1\n2"\n\nb.mp4,soon,\n')


def test_bytes_that_are_no_utf8_are_read_as_latin1_cell_by_cell(read):
    row = b"media,text,text.b\na.mp4,caf\xe9," + "naïve".encode() + b"\nb.mp4,ok,ok\n"
    listing = read(row)
    assert listing.clips[0].texts == {"text": ("café",), "b": ("naïve",)}
    assert listing.problems == [("a", "clip", "text not UTF-8", "clips.csv line 2; read as latin-1")]
    listing = read(b'{"media": "a.mp4", "text": ["caf\xe9", "\\ud83d\\ude00", "\\ud800"]}', "clips.jsonl")
    assert listing.clips[0].texts["text"] == ("café", "😀", "\ufffd")
    assert [p[2] for p in listing.problems] == ["text not UTF-8"]
    listing.clips[0].texts["text"][2].encode()  # nothing is left that cannot be written


def test_utf16_is_refused(read):
    with pytest.raises(UserError, match="UTF-16"):
        read("media\na.mp4\n".encode("utf-16"))


def test_repeated_ids_and_cuts_in_two_splits_are_dropped(read):
    listing = read(
        "media,id,split,start\na.mp4,x,train,\nb.mp4,x,test,\na.mp4,y,test,\na.mp4,z,train,\na.mp4,w,test,5\n"
    )
    assert [clip.id for clip in listing.clips] == ["x", "z", "w"]
    assert [p[:3] for p in listing.problems] == [("x", "clip", "duplicate id"), ("y", "clip", "in two splits")]
    assert "line 3; the first is line 2" in listing.problems[0][3]
    assert "line 4; line 2 has" in listing.problems[1][3]


def test_default_ids_of_equal_names_in_two_folders_collide_and_say_so(read):
    listing = read("media\ns1/a.mp4\ns2/a.mp4\n")
    assert len(listing.clips) == 1 and listing.problems[0][2] == "duplicate id"


def test_columns_without_content_make_no_set(read):
    listing = read("media,text,labels\na.jpg,,\n")
    assert (listing.texts, listing.label_sets, listing.modalities) == ((), {}, ("frames",))


@pytest.mark.parametrize(
    ("media", "modalities"),
    [
        ("a.mp4", ("audio", "frames")),
        ("a.FLAC", ("audio",)),
        ("a.png", ("frames",)),
        ("a.unheard", ("audio", "frames")),
        ("a.wav\nb.jpg", ("audio", "frames")),
    ],
)
def test_modalities_by_suffix(read, media, modalities):
    assert read(f"media\n{media}\n").modalities == modalities


BAD = [
    ("", "no column 'media'.*the file is empty"),
    ("Media,id\na,b\n", "no column 'media'.*did you mean 'Media'"),
    ("media;id\na;b\n", "no column 'media'.*comma-separated"),
    ("media\n", "names no clip"),
    ("media\n\n , \n", "names no clip"),
    ("media,labls\na.mp4,x\n", "unknown column 'labls'; did you mean 'labels'"),
    ("media,text.\na.mp4,x\n", "unknown column 'text.'"),
    ("media,text.a-b\na.mp4,x\n", "unknown column 'text.a-b'"),
    ("media,media\na.mp4,x\n", "column 'media' twice"),
    ("media,text,text.text\na.mp4,x,y\n", "text set 'text' is there twice"),
    ("media,id\na.mp4\n", "line 2 has 1 cells; the header has 2"),
    ("media,id\na.mp4,b,c\n", "line 2 has 3 cells; the header has 2"),
    ("media,start\na.mp4,1:30\n", "line 2: start is '1:30'; expected a number of seconds"),
    ("media,start\na.mp4,-1\n", "line 2: start is '-1'"),
    ("media,start\na.mp4,nan\n", "line 2: start is 'nan'"),
    ("media,end\na.mp4,inf\n", "line 2: end is 'inf'"),
    ("media,start,end\na.mp4,3,3\n", "line 2: end 3 is not after start 3"),
    ("media,end\na.mp4,0\n", "line 2: end 0 is not after start 0"),
    ("media,labels\na.mp4,dog@3-2\n", "line 2: label 'dog': end 2 is not after start 3"),
    ("media,labels\na.mp4,dog@3:5\n", "line 2: label 'dog@3:5'; expected a name, or name@start-end"),
    ("media,labels\na.mp4,dog@a-5\n", "line 2: label 'dog': start is 'a'"),
    ("media,labels\na.mp4,@1-5\n", "line 2: a label has no name"),
    ("media,split\na.mp4,my-split\n", "line 2: split 'my-split'"),
    ("media,id\n,x\n", "line 2: media is empty"),
    ("media\n/etc/passwd\n", "line 2: media '/etc/passwd' must be a path below"),
    ("media\na/../../b.mp4\n", "line 2: media 'a/../../b.mp4' must be"),
    ("media\n..\\b.mp4\n", "line 2: media .* must be"),
    ("media\nC:\\b.mp4\n", "line 2: media .* must be"),
    ("media\n.\n", "line 2: media '.' must be"),
    ('media,text\na.mp4,"open\nb.mp4,x\n', "line 2: unexpected end of data"),
]


@pytest.mark.parametrize(("content", "message"), BAD)
def test_bad_csv(read, content, message):
    with pytest.raises(UserError, match=message) as error:
        read(content)
    assert "\n" not in str(error.value) and "clips.csv" in str(error.value)


BAD_LINES = [
    ("", "names no clip"),
    ('{"media": "a.mp4"}\n\n{"media": ', "line 3 is no JSON"),
    ("[" * 100_000, "line 1 is no JSON"),
    ("[1]", "line 1 is no JSON object but list"),
    ('{"id": "x"}', "line 1: media is empty"),
    ('{"media": 3}', "line 1: media is 3; expected a string"),
    ('{"media": "a", "start": "1"}', "line 1: start is '1'; expected a number"),
    ('{"media": "a", "start": true}', "line 1: start is True"),
    ('{"media": "a", "start": NaN}', "line 1: start is nan"),
    ('{"media": "a", "start": 1' + "0" * 400 + "}", "line 1: start is 1"),
    ('{"media": "a", "end": [1]}', "line 1: end is \\[1\\]"),
    ('{"media": "a", "label": []}', "line 1: unknown column 'label'; did you mean 'labels'"),
    ('{"media": "a", "text": 3}', "line 1: text is 3; expected a list of strings"),
    ('{"media": "a", "text": [{"name": "x"}]}', "line 1: text is"),
    ('{"media": "a", "labels": [1]}', "line 1: labels is"),
    ('{"media": "a", "labels": [{}]}', "line 1: a label: 'name' is None"),
    ('{"media": "a", "labels": [{"name": "x", "stop": 2}]}', "unknown key 'stop'"),
    ('{"media": "a", "labels": [{"name": "x", "start": 2, "end": 1}]}', "label 'x': end 1 is not after start 2"),
]


@pytest.mark.parametrize(("content", "message"), BAD_LINES)
def test_bad_jsonl(read, content, message):
    with pytest.raises(UserError, match=message) as error:
        read(content, "clips.jsonl")
    assert "\n" not in str(error.value)


def test_other_files(read, tmp_path):
    with pytest.raises(UserError, match="ends in .csv or .jsonl"):
        read("media\n", "clips.tsv")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        manifest.read(tmp_path / "absent.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        manifest.read(tmp_path / "folder.csv")


def test_the_name_is_fit_for_file_names(read, tmp_path):
    assert read("media\na.mp4\n", "My clips, 2nd.csv").name == "my_clips_2nd"
    assert read("media\na.mp4\n", "2nd.csv").name == "set_2nd"
    (tmp_path / "Birds").mkdir()
    assert read("media\na.mp4\n", "Birds/manifest.csv").name == "birds"
