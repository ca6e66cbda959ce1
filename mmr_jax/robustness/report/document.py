"""The order of a report: its content as a list of blocks, the same for every output format."""

import json

from mmr_jax.robustness.report import curves, pretrained, tables
from mmr_jax.robustness.report.blocks import Block, Bullets, Code, Gallery, Heading, Paragraph
from mmr_jax.robustness.report.content import Content, jsonable
from mmr_jax.robustness.report.heatmap import heat_maps
from mmr_jax.robustness.report.words import summary


def blocks(content: Content) -> list[Block]:
    """All sections after the title; a section without content is left out with its heading."""
    sections = {
        "": [Paragraph(summary(content))],
        "Results": [
            tables.table_1(content),
            tables.gains(content),
            tables.ratios(content),
            tables.without_full(content),
        ],
        "Every training set on every evaluation set": [heat_maps(content)],
        "Robustness against performance": [Gallery([curves.robustness_against_performance(content)])],
        "Overlap of training and evaluation": [
            Gallery([curves.by_overlap(content)], "Mean over the cells with k shared modalities.")
        ],
        "Matched subsets and pretraining": [
            curves.matched_by_size(content),
            tables.matched_by_pretraining(content),
        ],
        "Best evaluation set": [tables.best_eval(content)],
        "Matched scores": [tables.matched(content)],
        "Interpolation of weights": [curves.alpha_curves(content)] if content.curves else [],
        "Retrieval across modalities": pretrained.retrieval(content),
        "Reconstruction of what is hidden": pretrained.reconstructions(content),
        "More tables": tables.extra(content),
        "How this was made": _provenance(content),
    }
    made: list[Block] = []
    for heading, parts in sections.items():
        present = [part for part in parts if part is not None]
        if heading and present:
            made.append(Heading(heading))
        made += present
    return made


def _provenance(content: Content) -> list[Block | None]:
    notes = [str(note) for note in content.meta.get("notes") or []]
    notes += [
        f"{method} is not in the main tables: its pretraining set lacks modalities." for method in content.left_out
    ]
    return [
        Bullets(notes) if notes else None,
        tables.provenance(content),
        tables.cells_used(content),
        tables.examples(content),
        tables.stages(content),
        tables.goodput(content),
        _code(content, "Difference from the configuration file", "config_diff"),
        _code(content, "Configuration", "config"),
        _code(content, "Versions", "versions"),
    ]


def _code(content: Content, title: str, key: str) -> Code | None:
    value = content.meta.get(key)
    if not value:
        return None
    return Code(title, json.dumps(jsonable(value), indent=2, ensure_ascii=False))
