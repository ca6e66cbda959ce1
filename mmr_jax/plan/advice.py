"""What a plan's numbers suggest to change in the config, as sentences."""

from collections.abc import Mapping

LANES = 128  # of the matrix unit: a number of tokens is padded to its multiple
_MANY = 1.15
_GOOD = 0.55
_LONG = 256  # tokens, from which on XLA's attention takes more cycles than the kernel


def padded(tokens: int) -> int:
    """The next multiple of `LANES`."""
    return -(-tokens // LANES) * LANES


def waste(tokens: int) -> float:
    """The share of the matrix unit's rows that padding takes."""
    return 1 - tokens / padded(tokens)


def advise(config: Mapping, plan: Mapping) -> list[str]:
    """At most one sentence per thing that could be better, the most certain ones first."""
    found = _about_tokens(plan["tokens"])
    for step in plan["steps"]:
        found += [f"{step['name']}: {text}" for text in (*_about_memory(config, step), *_about_speed(config, step))]
    if plan["tpu"] and config["model"]["attention"] == "xla" and max(plan["tokens"].values(), default=0) > _LONG:
        found.append("model.attention=kernel keeps the logits of long sequences on the chip (model.dtype=bfloat16)")
    if plan["tpu"] and config["model"]["dtype"] != "bfloat16":
        found.append("model.dtype=bfloat16 is what the peak is given for")
    return found


def _about_tokens(tokens: Mapping[str, int]) -> list[str]:
    return [
        f"{name}: {n} tokens fill {padded(n)} rows of the matrix unit ({waste(n):.0%} are padding); "
        f"{padded(n) - LANES or LANES} or {padded(n)} would fill theirs"
        for name, n in tokens.items()
        if n > LANES and padded(n) > _MANY * n
    ]


def _about_memory(config: Mapping, step: Mapping) -> list[str]:
    memory = step["memory"]
    if memory["fits"] is not False or step["name"].startswith("loss/"):
        return []
    ways = [f"a batch of {memory['largest_batch']}"] if memory["largest_batch"] else []
    if "checkpoint_bytes" in step:
        ways += ["model.remat=full"] if config["model"]["remat"] == "none" else []
        ways += ["microbatches"]
        ways += ["mesh.fsdp above 1"] if config["mesh"]["fsdp"] == 1 else []
    return [f"it does not fit; what would help: {', '.join(ways)}"]


def _about_speed(config: Mapping, step: Mapping) -> list[str]:
    cycles, memory, found = step.get("cycles"), step["memory"], []
    if not cycles or "checkpoint_bytes" not in step:
        return found
    largest = memory["largest_batch"] or 0
    if cycles["share_of_peak"] < _GOOD and largest >= 2 * step["batch"]:
        found.append(f"there is room for a batch of about {largest}: larger ones use the matrix unit better")
    if cycles["share_of_peak"] < _GOOD and config["model"]["scan_layers"]:
        found.append(
            "model.scan_layers=False with model.remat=none spares copies into stacks of layers, and computing again "
            "to keep them small; it compiles for longer"
        )
    elif config["model"]["remat"] == "full" and memory["total"] < 0.5 * (memory["limit"] or 0):
        found.append("half of the memory is free: plan model.remat=dots, which computes less again")
    if step["network"]["efficiency"] < 0.8:
        found.append("a fifth of the time or more goes to the network if nothing overlaps: more examples per device")
    return found
