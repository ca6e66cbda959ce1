"""FLOPs of a function from its jaxpr, with trip counts (the compiler's own estimate counts a scanned body once)."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import jax


@dataclass
class Flops:
    """What a function costs. A multiplication and an addition are two FLOPs.

    `by_primitive` holds the FLOPs of products and convolutions; every other primitive counts as 0. `calls` says how
    often each primitive runs, nested ones times their trip counts. `unbounded` holds the FLOPs of one pass over what
    runs an unknown number of times (while loops) and is not part of `total`.
    """

    by_primitive: Counter = field(default_factory=Counter)
    calls: Counter = field(default_factory=Counter)
    unbounded: int = 0

    @property
    def total(self) -> int:
        """FLOPs of everything that runs a known number of times."""
        return sum(self.by_primitive.values())

    def add(self, other: "Flops", times: int = 1) -> None:
        """Count `other` `times` times."""
        for mine, theirs in ((self.by_primitive, other.by_primitive), (self.calls, other.calls)):
            for name, count in theirs.items():
                mine[name] += times * count
        self.unbounded += times * other.unbounded


def count_flops(fn: Callable, *args) -> Flops:
    """The FLOPs of `fn(*args)`, which is traced, not run: arguments may be ShapeDtypeStructs.

    Of a `cond` the most expensive branch counts; a `shard_map` body counts once per device. Results that nobody uses
    are counted although the compiler would drop them.
    """
    return _jaxpr(jax.make_jaxpr(fn)(*args).jaxpr)


def _jaxpr(jaxpr) -> Flops:
    out = Flops()
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        out.calls[name] += 1
        if name in _PRODUCTS:
            out.by_primitive[name] += _PRODUCTS[name](eqn)
        elif name == "cond":
            out.add(max(map(_nested, eqn.params["branches"]), key=lambda f: f.total))
        elif name in _REPEATED_UNKNOWN:
            for inner in _inner(eqn):
                body = _nested(inner)
                out.unbounded += body.total + body.unbounded
        else:
            for inner in _inner(eqn):
                out.add(_nested(inner), _times(eqn))
    return out


def _nested(jaxpr) -> Flops:
    return _jaxpr(getattr(jaxpr, "jaxpr", jaxpr))


def _inner(eqn) -> Iterator:
    """Every jaxpr among the parameters of an equation, whatever the primitive calls it."""
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                yield item


def _times(eqn) -> int:
    """How often the jaxprs of an equation run."""
    if eqn.primitive.name == "scan":
        return eqn.params["length"]
    if eqn.primitive.name == "pallas_call":
        return math.prod(eqn.params["grid_mapping"].grid)
    if eqn.primitive.name == "shard_map":
        return math.prod(eqn.params["mesh"].shape[axis] for axis in eqn.params["newly_manual_axes"])
    return 1


def _dot_general(eqn) -> int:
    """2 * M * N * K per batch element: the output's size times the contracted size."""
    (contracted, _), _ = eqn.params["dimension_numbers"]
    return 2 * eqn.outvars[0].aval.size * math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)


def _convolution(eqn) -> int:
    """Each output element sums over the kernel's window and its input channels (padding and dilation included)."""
    _, channels, *window = eqn.params["dimension_numbers"].rhs_spec
    kernel = eqn.invars[1].aval.shape
    return 2 * eqn.outvars[0].aval.size * math.prod(kernel[axis] for axis in (channels, *window))


_PRODUCTS = {"dot_general": _dot_general, "conv_general_dilated": _convolution}
_REPEATED_UNKNOWN = ("while",)
