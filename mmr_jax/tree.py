"""Nested dicts of arrays addressed by path: flatten, rebuild, split by a rule on the path."""

from collections.abc import Callable, Mapping


def flatten(tree: Mapping, prefix: str = "") -> dict[str, object]:
    """Nested dict -> {"a/b/c": leaf}, in sorted order of the paths."""
    out = {}
    for key in sorted(tree):
        path = f"{prefix}/{key}" if prefix else key
        out.update(flatten(tree[key], path) if isinstance(tree[key], Mapping) else {path: tree[key]})
    return out


def unflatten(flat: Mapping[str, object]) -> dict:
    """The inverse of `flatten`."""
    out: dict = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = out
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = leaf
    return out


def partition(tree: Mapping, keep: Callable[[str], bool]) -> tuple[dict, dict]:
    """Split a nested dict in two by a rule on the path: (leaves to keep, the rest)."""
    flat = flatten(tree)
    yes = {path: leaf for path, leaf in flat.items() if keep(path)}
    no = {path: leaf for path, leaf in flat.items() if path not in yes}
    return unflatten(yes), unflatten(no)


def merge(a: Mapping, b: Mapping) -> dict:
    """The union of two nested dicts without common leaves (the inverse of `partition`)."""
    return unflatten({**flatten(a), **flatten(b)})
