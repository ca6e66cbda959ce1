"""A plan as tables: on the terminal, and as plan.json and plan.md."""

import re
from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from mmr_jax.files import write_json, write_text
from mmr_jax.plan.advice import padded
from mmr_jax.robustness.report import markdown
from mmr_jax.robustness.report.blocks import Block, Bullets, Paragraph, Table


def blocks(plan: Mapping) -> list[Block]:
    """All of a plan, in order."""
    made = [Paragraph(_headline(plan)), *_tokens(plan), _memory(plan), _work(plan), *_collectives(plan), *_inputs(plan)]
    advice = [Bullets([f"advice: {text}" for text in plan["advice"]])] if plan["advice"] else []
    return made + advice


def write_plan(plan: Mapping, folder: Path) -> None:
    """plan.json and plan.md in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "plan.json", plan)
    write_text(folder / "plan.md", markdown.document(f"Plan of {plan['name']}", blocks(plan), ""))


def print_plan(plan: Mapping, console: Console) -> None:
    """The same on the terminal."""
    for block in blocks(plan):
        match block:
            case Paragraph(text):
                console.print(text, markup=False)
            case Bullets(items):
                console.print("\n".join(items), markup=False)
            case Table():
                console.print(_rich(block))
                console.print(block.note, markup=False)


def _rich(block: Table) -> RichTable:
    table = RichTable(title=escape(block.title), box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, name in enumerate(block.columns):
        table.add_column(
            escape(name).replace("/", "/\n"), overflow="fold", no_wrap=not i, justify="right" if i else "left"
        )
    for row in block.rows:
        table.add_row(*map(escape, row))
    return table


def _headline(plan: Mapping) -> str:
    target = plan["target"]
    mesh = ", ".join(f"{axis} {size}" for axis, size in target["mesh"].items())
    versions = ", ".join(f"{name} {version}" for name, version in plan["versions"].items())
    sizes = f"{target['devices']} devices on {target['hosts']} hosts; mesh: {mesh}; {plan['parameters']:,} parameters"
    return f"{target['name']} ({target['kind']}): {sizes}; {versions}"


def _tokens(plan: Mapping) -> list[Table]:
    rows = [[m, str(n), str(padded(n)), f"{100 * plan['waste'][m]:.0f} %"] for m, n in plan["tokens"].items()]
    return [Table("tokens", ["modality", "tokens", "next multiple of 128", "padding"], rows)] if rows else []


def _memory(plan: Mapping) -> Table:
    kinds = dict.fromkeys(kind for step in plan["steps"] for kind in step["memory"]["by_kind"])
    fits = {True: "yes", False: "no", None: "unknown"}
    rows = [["batch", *(f"{step['batch']:,}" for step in plan["steps"])]]
    rows += [[kind, *(_mib(step["memory"]["by_kind"].get(kind)) for step in plan["steps"])] for kind in kinds]
    for kind in ("arguments", "temporaries", "outputs", "code", "total"):
        rows.append([kind, *(_mib(step["memory"].get(kind)) for step in plan["steps"])])
    rows.append(["fits", *(fits[step["memory"]["fits"]] for step in plan["steps"])])
    rows.append(["largest batch", *(_number(step["memory"]["largest_batch"]) for step in plan["steps"])])
    rows.append(["checkpoint", *(_mib(step.get("checkpoint_bytes")) for step in plan["steps"])])
    limit = plan["target"]["limit"]
    note = f"A device has {limit / 2**30:.2f} GiB. " if limit else ""
    note += "Arguments are the kinds above as the compiler lays them out, outputs what is no donated argument. The "
    note += "largest batch is an estimate, a straight line through two compilations. Checkpoints are of all devices."
    return Table("memory per device, MiB", _columns(plan), rows, note)


def _work(plan: Mapping) -> Table:
    rows = []
    for key, label in {"per_example": "an example", "per_device": "device", "executed_per_device": "executed"}.items():
        rows.append([f"GFLOP, {label}", *(_decimals(step["flops"][key] / 1e9) for step in plan["steps"])])
    for label, show in {
        "million cycles": lambda c: f"{c['total'] / 1e6:,.2f}",
        "ms": lambda c: f"{1e3 * c['seconds']:,.2f}",
        "share of peak": lambda c: f"{100 * c['share_of_peak']:.1f} %",
    }.items():
        rows.append([label, *(show(step["cycles"]) if step.get("cycles") else "none" for step in plan["steps"])])
    for clock in ("clock", "processor"):
        rows.append([f"compiling, {clock} s", *(f"{step['compile_seconds'][clock]:.1f}" for step in plan["steps"])])
    note = "Products and convolutions count as FLOP; executed are also those that are computed again. Cycles are the "
    note += f"compiler's estimate, no measurement: below 15 % a difference is noise.{_unknown(plan)}"
    return Table("work per step", _columns(plan), rows, note)


def _unknown(plan: Mapping) -> str:
    """What has no estimate and could matter."""
    found = {
        f"{n} {kind} in {_short(step)}"
        for step in plan["steps"]
        for kind, n in (step.get("cycles") or {}).get("unknown", {}).items()
    }
    return f" Without an estimate, hence not in the sum: {', '.join(sorted(found))}." if found else ""


def _columns(plan: Mapping) -> list[str]:
    return ["", *map(_short, plan["steps"])]


def _short(step: Mapping) -> str:
    """The name of a step without seed and pretraining set, which all steps share."""
    return re.sub(r"^seed\d+/[^/]*/", "", step["name"])


def _collectives(plan: Mapping) -> list[Table]:
    rows = []
    for step in plan["steps"]:
        for c in step.get("collectives", ()):
            sizes = [f"{c[key] / 1e6:,.3f}" for key in ("bytes", "sent")]
            rows.append([_short(step), c["kind"], str(c["group"]), f"{c['count']:,}", *sizes])
    columns = ["step", "kind", "devices", "number", "MB per device", "MB sent"]
    note = "Per step. Sent is what each device sends by the usual algorithms."
    return [Table("collectives", columns, rows, note)] if rows else []


def _inputs(plan: Mapping) -> list[Table]:
    rows = []
    for step in plan["steps"]:
        given = step.get("input")
        if given and given["bytes_per_second_per_host"]:
            row = [_short(step), f"{given['batches_per_second']:,.2f}", f"{given['examples_per_second_per_host']:,.0f}"]
            row += [f"{given['bytes_per_second_per_host'] / 1e6:,.1f}", f"{1e3 * step['network']['seconds']:,.2f}"]
            rows.append([*row, f"{100 * step['network']['efficiency']:.1f} %"])
    columns = ["step", "batches/s", "examples/s per host", "MB/s per host", "network, ms", "efficiency"]
    link = plan["target"].get("link", 0) / 2e9
    note = f"What the hosts must deliver at that speed. Network: bytes sent at {link:.0f} GB/s out of each chip (an "
    note += "assumption: all links busy, one direction); efficiency: computing / (computing + network), no overlap."
    return [Table("input and network", columns, rows, note)] if rows else []


def _mib(size: float | None) -> str:
    return "" if size is None else f"{size / 2**20:,.1f}"


def _decimals(value: float) -> str:
    return f"{value:,.{2 if value >= 1 else 3}f}"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
