"""The examples of the documentation run, and the notebook too."""

import json
import os
import re
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))


@pytest.mark.parametrize("page", PAGES)
def test_python_examples_run(page):
    """All blocks of a page, in order, in one namespace; their asserts are the checks."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), flags=re.M | re.S)
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)
    assert blocks or page not in ("README.md", "docs/api.md", "docs/extend.md", "docs/weights.md")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / page).read_text())
    missing = [t for t in targets if not (ROOT / page).parent.joinpath(t).exists()]
    assert not missing


def test_readme_names_every_config_and_command():
    from mmr_jax.cli.main import COMMANDS

    text = (ROOT / "README.md").read_text()
    configs = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "configs").rglob("*.py"))
    assert [c for c in configs if c not in text] == []
    assert [c for c in COMMANDS if f"`mmr {c}" not in text and f"`{c}`" not in text] == []


def test_notebook_stops_where_there_is_nothing_to_install(tmp_path, monkeypatch):
    """Its first cell, where mmr_jax is absent: without an address, and with one that cannot be cloned."""
    transformer = pytest.importorskip("IPython.core.inputtransformer2").TransformerManager()
    cell = json.loads((ROOT / "docs/colab/robustness.ipynb").read_text())["cells"][1]["source"]
    code = transformer.transform_cell("".join(cell))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ran, shell = [], types.SimpleNamespace(system=lambda command: ran.append(command))
    with pytest.raises(AssertionError, match="fill in `repository`"):
        exec(code, {"get_ipython": lambda: shell})
    with pytest.raises(AssertionError, match="nowhere was not cloned"):
        exec(code.replace('repository = ""', 'repository = "nowhere"'), {"get_ipython": lambda: shell})
    assert len(ran) == 1


def test_notebook(tmp_path, monkeypatch):
    """Every cell runs at a small scale; the matrix, the alpha curve and the user's own scores come out."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("MMR_NOTEBOOK_SCALE", "0.02")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    flags = os.environ.get("XLA_FLAGS", "").split()  # quick to compile, and on one device
    monkeypatch.setenv("XLA_FLAGS", " ".join(f for f in flags if "device_count" not in f))
    book = nbformat.read(ROOT / "docs/colab/robustness.ipynb", as_version=4)
    nbclient.NotebookClient(book, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [o for cell in book.cells if cell.cell_type == "code" for o in cell.outputs]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    text = " ".join(o["data"]["text/plain"] for o in outputs if o.output_type == "execute_result")
    assert len(pictures) >= 4
    assert "'robustness'" in text and "index.html" in text
