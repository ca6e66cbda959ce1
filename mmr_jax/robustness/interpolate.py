"""WiSE-FT: weight-space interpolation of two models (Eq. 9; Wortsman et al. 2022), for any pytrees."""

import jax
import numpy as np


def wise_ft(finetuned, anchor, alpha: float):
    """alpha * finetuned + (1 - alpha) * anchor, leaf by leaf, for any two equal pytrees of arrays.

    The anchor is the linear probe in McKinzie et al. 2023, section 5.2. alpha 1 and 0 return the leaves of the
    ends themselves, bit for bit. Dtypes are kept; leaves that are not floating point must be equal.

    Raises ValueError naming the first path at which the trees, shapes or dtypes differ.
    """
    _check_equal_trees(finetuned, anchor)
    if alpha in (0, 1):
        return finetuned if alpha == 1 else anchor
    return jax.tree_util.tree_map_with_path(lambda path, a, b: _mix(path, a, b, alpha), finetuned, anchor)


def _mix(path, a, b, alpha: float):
    if not np.issubdtype(np.asarray(a).dtype, np.inexact) and np.asarray(a).dtype.kind in "iub":
        if not np.array_equal(a, b):
            raise ValueError(f"wise_ft: {jax.tree_util.keystr(path)} is not floating point and differs")
        return a
    mixed = alpha * a + (1 - alpha) * b
    return mixed.astype(a.dtype) if hasattr(a, "dtype") else mixed


def _check_equal_trees(a, b) -> None:
    left = dict(jax.tree_util.tree_flatten_with_path(a)[0])
    right = dict(jax.tree_util.tree_flatten_with_path(b)[0])
    for path in [*left, *right]:
        name = jax.tree_util.keystr(path) or "the root"
        if path not in left or path not in right:
            side = "finetuned" if path in left else "anchor"
            raise ValueError(f"wise_ft: {name} is only in {side}; both must have the same tree")
        for what in ("shape", "dtype"):
            x, y = (getattr(np.asarray(t[path]) if what == "shape" else t[path], what, None) for t in (left, right))
            if x != y:
                raise ValueError(f"wise_ft: {name} has {what} {x} in finetuned and {y} in anchor")
    if jax.tree.structure(a) != jax.tree.structure(b):
        raise ValueError("wise_ft: the containers of finetuned and anchor differ; both must have the same tree")
