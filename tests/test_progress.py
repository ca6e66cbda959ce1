"""What is printed where there is no terminal to draw a bar on."""

import io

import pytest
from rich.console import Console

from mmr_jax import progress


@pytest.fixture
def clock(monkeypatch):
    """Moved by `clock[0] += seconds`."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_now_and_then(clock):
    text = io.StringIO()
    with progress.Progress("clips", 20, done=4, console=Console(file=text, width=200)) as told:
        for _ in range(4):
            clock[0] += 10
            told.count(2, before=1)
            told.tell()
    # 4 were done, 4 are found done; 4 and 8 are done in 20 and 40 s: one in 5 s.
    assert text.getvalue() == "10 of 20 clips, 50 s left\n16 of 20 clips, 20 s left\n"


def test_a_line_with_a_name_and_a_note(clock):
    text = io.StringIO()
    told = progress.Progress("steps", 10, done=2, console=Console(file=text, width=200), name="train/[a]")
    clock[0] += 16
    told.count(4)
    told.tell("loss 0.25")
    told.close()
    assert text.getvalue() == "train/[a]: 6 of 10 steps, loss 0.25, 16 s left\n"
