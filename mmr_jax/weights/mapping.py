"""The language of the mapping tables: which published tensors make each leaf of ours, in both directions."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mmr_jax.errors import UserError, nearest
from mmr_jax.weights.transforms import Transform

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Leaf:
    """One leaf of ours. `groups` are the names of the tensors that make it: one group, or one per layer if `stacked`.

    `shapes` are those of the tensors of a group.
    """

    path: str
    groups: tuple[tuple[str, ...], ...]
    shapes: tuple[Shape, ...]
    transform: Transform
    stacked: bool = False

    def published(self) -> dict[str, Shape]:
        """{name: shape} of all tensors that it is made of."""
        return {name: shape for group in self.groups for name, shape in zip(group, self.shapes, strict=True)}

    def read(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Published tensors -> our array, contiguous."""
        made = [self.transform.into(*(tensors[name] for name in group)) for group in self.groups]
        return np.stack(made) if self.stacked else np.array(made[0], order="C")

    def write(self, leaf: np.ndarray) -> dict[str, np.ndarray]:
        """Our array -> published tensors, contiguous; the inverse of `read`."""
        out = {}
        for group, layer in zip(self.groups, leaf if self.stacked else [leaf], strict=True):
            out |= dict(zip(group, (np.asarray(a, order="C") for a in self.transform.back(layer)), strict=True))
        return out


@dataclass(frozen=True)
class Table:
    """All of a checkpoint: leaves, tensors kept aside, and `optional` ones of any shape that it may have or not."""

    leaves: tuple[Leaf, ...]
    aside: Mapping[str, Shape] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()

    def published(self) -> dict[str, Shape]:
        """{name: shape} of every tensor that must be there."""
        return {name: shape for leaf in self.leaves for name, shape in leaf.published().items()} | dict(self.aside)

    def without(self, absent: Iterable[str]) -> "Table":
        """The table without what is made of any of these tensors."""
        absent = set(absent)
        kept = tuple(leaf for leaf in self.leaves if not absent & leaf.published().keys())
        return Table(kept, {k: v for k, v in self.aside.items() if k not in absent}, self.optional)


@dataclass(frozen=True)
class Kind:
    """A family of checkpoints. `sizes`(tensors, options) reads JSON-able sizes off the tensors, `table`(sizes) is the
    mapping, `describe`(sizes) the config fields; `fits`(names) says whether names look like it."""

    sizes: Callable[["Tensors", "Options"], dict]
    table: Callable[[dict], Table]
    describe: Callable[[dict], dict]
    fits: Callable[[Iterable[str]], bool]


@dataclass(frozen=True)
class Options:
    """What the weights do not say. Heads: by default a head is 64 wide, and a decoder of MAE or CAV-MAE has 16."""

    heads: int | None = None
    decoder_heads: int = 16
    activation: str | None = None
    mels: int = 128

    def heads_of(self, width: int) -> int:
        """Attention heads of an encoder of this width."""
        if self.heads is None and width % 64:
            raise UserError(f"width {width} is no multiple of 64: say how many attention heads there are (heads)")
        return divides(width // 64 if self.heads is None else self.heads, width, "heads")


def divides(heads: int, width: int, what: str) -> int:
    """`heads`, if it divides the width."""
    if heads < 1 or width % heads:
        raise UserError(f"{what}={heads} does not divide the width {width}; give the number of attention heads")
    return heads


class Tensors(dict):
    """{name: array} with questions about shapes that end in one line."""

    def __init__(self, tensors: Mapping[str, np.ndarray], source: str):
        super().__init__(tensors)
        self.source = source

    def shape(self, name: str, rank: int) -> Shape:
        """The shape of a tensor that must be there."""
        if name not in self:
            raise UserError(f"{self.source}: tensor {name!r} is missing{nearest(name, self)}")
        if self[name].ndim != rank:
            raise UserError(f"{self.source}: {name} has shape {self[name].shape}, expected {rank} axes")
        return self[name].shape

    def depth(self, prefix: str) -> int:
        """How many different numbers follow a prefix such as "blocks."."""
        return len({name[len(prefix) :].split(".")[0] for name in self if name.startswith(prefix)})

    def any(self, prefix: str) -> bool:
        """Whether a name starts so."""
        return any(name.startswith(prefix) for name in self)

    def square(self, name: str, count: int) -> int:
        """The side of a square grid of `count` tokens."""
        side = int(count**0.5 + 0.5) if count > 0 else 0
        if not count or side * side != count:
            raise UserError(f"{self.source}: {name} holds {count} places, which is no square grid")
        return side
