import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("MMR_DATA") or Path(__file__).parents[4] / "shared" / "data")


@pytest.fixture
def shared():
    """A folder of the shared data; the test is skipped where it is absent."""

    def folder(name):
        if not (SHARED / name).is_dir():
            pytest.skip(f"no {name} in {SHARED} (set MMR_DATA to the folder of shared data)")
        return SHARED / name

    return folder


@pytest.fixture
def tree(tmp_path):
    """tree({"labels/a.csv": "text" or bytes}) writes files and gives (labels folder, media folder)."""

    def write(files):
        for folder in ("labels", "media"):
            (tmp_path / folder).mkdir(exist_ok=True)
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / "labels", tmp_path / "media"

    return write


@pytest.fixture
def consistent():
    """Checks what holds for every listing."""

    def check(listing):
        assert len({clip.id for clip in listing.clips}) == len(listing.clips)
        for clip in listing.clips:
            assert clip.source and clip.media and not clip.media.startswith("/")
            assert set(clip.labels) == set(listing.label_sets) and set(clip.texts) == set(listing.texts)
        for name, labels in listing.label_sets.items():
            assert len(set(labels.classes)) == len(labels.classes)
            used = {label.name for clip in listing.clips for label in clip.labels[name]}
            assert used <= set(labels.classes)
            assert labels.metric == ("map" if labels.multilabel else "top1")
        assert ("text" in listing.modalities) == bool(listing.texts)
        return listing

    return check
