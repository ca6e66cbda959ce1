"""The report of a study: HTML page, Markdown, CSV, JSON and the terminal, all from the same numbers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmr_jax.files import write_bytes, write_text
from mmr_jax.robustness.report import html, markdown
from mmr_jax.robustness.report.blocks import Gallery
from mmr_jax.robustness.report.content import build, numbers
from mmr_jax.robustness.report.document import blocks
from mmr_jax.robustness.report.terminal import print_summary
from mmr_jax.robustness.results import Predictions, Result, write_matrix_csv

__all__ = ["print_summary", "write_report"]

TITLE = "Robustness to missing, added and exchanged modalities"
PICTURES = "pictures"


def write_report(
    out_dir: str | Path,
    results: Sequence[Result],
    meta: Mapping | None = None,
    predictions: Sequence[Predictions] | None = None,
) -> dict[str, Path]:
    """Write index.html, report.md with pictures/, matrix.csv and report.json; returns their paths by kind.

    meta (all optional): title, modalities, train_subsets, baseline (a method), metric ("top1" | "map"), chance, config,
    config_diff, versions, notes, alpha {method: float},
    stages [{"name", "seconds", "status", "goodput" {kind: seconds} or None}],
    reference_rows [{"name", subset: score}], accuracy_tables [{"title", "columns", "rows"}],
    retrieval [{"pretrain", "seed", "pairs": rows of `robustness.retrieval.search_pairs`}],
    reconstructions [{"pretrain", "normalized", "errors", "pictures": [{"title", "png": bytes}]}].
    predictions: give the intervals of the differences to the baseline.
    """
    content = build(results, meta, predictions)
    made, title = blocks(content), str(content.meta.get("title") or TITLE)
    folder = Path(out_dir)
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    pictures = {p.name: p.png for block in made if isinstance(block, Gallery) for p in block.pictures}
    for name, png in pictures.items():
        write_bytes(folder / PICTURES / name, png)
    for stale in set((folder / PICTURES).glob("*.png")) - {folder / PICTURES / name for name in pictures}:
        stale.unlink()  # of an earlier report in this folder
    files = {
        "html": ("index.html", html.page(title, made)),
        "markdown": ("report.md", markdown.document(title, made, PICTURES)),
        "json": ("report.json", json.dumps(numbers(content), indent=1, allow_nan=False) + "\n"),
    }
    for name, text in files.values():
        write_text(folder / name, text)
    write_matrix_csv(folder / "matrix.csv", results)
    return {kind: folder / name for kind, (name, _) in files.items()} | {
        "matrix": folder / "matrix.csv",
        "pictures": folder / PICTURES,
    }
