"""The HTML page: one file, inert names, and no sideways scrolling on a phone in a real browser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from mmr_jax.robustness import Result, all_subsets
from mmr_jax.robustness.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
SCRIPT = "<script>alert(1)</script>"
PROBE = """<script>
const p = document.documentElement;
const text = document.body.innerText;
document.title = [p.scrollWidth, p.clientWidth, window.innerWidth, document.images.length,
  [...document.images].filter(i => i.naturalWidth > 100).length, text.includes("<script>alert(1)")].join(" ");
</script>"""


class Page(HTMLParser):
    """Tags and their attributes, as a browser's parser would see them."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rng, modalities = np.random.default_rng(0), ["audio", "image", "text", "video"]
    subsets = all_subsets(modalities)
    methods = ["finetune", SCRIPT, "x" * 120, '" onerror="alert(1)']
    results = [
        Result(m, {t: {e: float(rng.uniform()) for e in subsets} for t in subsets}, seed=seed)
        for m in methods
        for seed in (0, 1)
    ]
    meta = {
        "title": "A study " + "with_a_long_unbroken_name" * 6,
        "notes": [SCRIPT, "y" * 200],
        "config": {"text": "z" * 300, "html": SCRIPT},
        "versions": {"numpy": np.__version__},
        "stages": [{"name": SCRIPT, "seconds": 3.0, "status": "done"}],
        "accuracy_tables": [{"title": SCRIPT, "columns": ["a", SCRIPT], "rows": [["1", SCRIPT]]}],
    }
    return write_report(tmp_path_factory.mktemp("report"), results, meta)["html"]


def test_nothing_is_fetched_and_names_are_inert(page):
    text = page.read_text()
    tags = Page(text).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe", "object", "embed", "form", "base"}
    for tag, attrs in tags:
        assert not [name for name in attrs if name.startswith("on") or name in ("href", "srcset")], tag
        assert attrs.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
    assert not re.search(r"https?://|@import|url\(", text)
    assert SCRIPT not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags


def test_every_table_scrolls_in_its_own_box(page):
    text = page.read_text()
    assert text.count("<table>") == text.count('tabindex="0"><table>') > 5


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on this machine")
@pytest.mark.parametrize("width", [390, 1280])
def test_opens_in_a_browser_without_sideways_scrolling(page, width, tmp_path):
    # A window is at least 500 wide in some builds, so the page is put into a frame of the phone's width.
    probed = tmp_path / "probed.html"
    probed.write_text(
        page.read_text().replace("</body>", PROBE.replace("document.title", "parent.document.title") + "</body>")
    )
    frame = tmp_path / "frame.html"
    frame.write_text(f'<title>none</title><iframe src="probed.html" style="width:{width}px;height:800px;border:0">')
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        "--disable-web-security",
    ]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [BROWSER, *options, profile, "--virtual-time-budget=5000", "--dump-dom", frame.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    values = re.search(r"<title>(.*?)</title>", dom).group(1).split()
    scroll, client, inner, images, loaded = map(int, values[:5])
    assert inner == width and scroll <= client
    assert images == loaded > 5
    assert values[5] == "true"
