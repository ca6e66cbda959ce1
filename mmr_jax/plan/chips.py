"""The TPU generations: what one chip has, and the names of their topologies."""

import math
import re
from dataclasses import dataclass

from mmr_jax.errors import UserError, nearest

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One chip. `flops`: bf16 per second at peak; `hbm`: bytes that programs can use; `link`: bytes per second to and
    from all neighbours together; `cores`: TensorCores; `devices`: how many devices jax sees; `axes`: of the torus.
    """

    flops: float
    hbm: float
    clock: float
    link: float
    cores: int = 1
    devices: int = 1
    axes: int = 2

    @property
    def flop_per_cycle(self) -> float:
        """Of one device, at peak."""
        return self.flops / self.clock / self.devices


# flops and link: Google's pages of each generation (docs.cloud.google.com/tpu/docs), but for the links of v4 and tpu7x,
# which are unverified. hbm: what libtpu 0.0.42 grants a program of the published 32, 16, 95, 32 and 192 GB. Clocks:
# those that make the peak of four 128 x 128 matrix units in each core of v4, v5e and v5p; those of v6e and tpu7x are
# unverified, and take four times as much of a cycle. By the compiler's own estimate a product of 4096 x 4096 bf16
# matrices reaches 88, 97, 96, 87 and 81 % of flop_per_cycle.
CHIPS = {
    "v4": Chip(275e12, 30.75 * GIB, 1.05e9, 600e9, cores=2, axes=3),
    "v5e": Chip(197e12, 15.75 * GIB, 1.5e9, 400e9),
    "v5p": Chip(459e12, 95.74 * GIB, 1.75e9, 1200e9, cores=2, axes=3),
    "v6e": Chip(918e12, 31.25 * GIB, 1.75e9, 800e9),
    "tpu7x": Chip(2307e12, 2 * 94.75 * GIB, 2.2e9, 1200e9, cores=2, devices=2, axes=3),
}
_ALIASES = {"v5litepod": "v5e"}
_KINDS = {"TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v5p": "v5p", "TPU v6 lite": "v6e"}
_KINDS |= {"TPU v5e": "v5e", "TPU v6e": "v6e", "TPU7x": "tpu7x"}
_MOST = 13  # powers of two among the short names: 8192 chips


@dataclass(frozen=True)
class Topology:
    """Chips in a row of rows: `name` as libtpu takes it."""

    generation: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.generation}:{'x'.join(map(str, self.shape))}"

    @property
    def chip(self) -> Chip:
        return CHIPS[self.generation]

    @property
    def chips(self) -> int:
        return math.prod(self.shape)


def chip_of(device_kind: str) -> Chip | None:
    """The chip that jax calls so, None if it is no TPU of the table."""
    return CHIPS.get(_KINDS.get(device_kind, ""))


def parse_topology(text: str) -> Topology:
    """A topology from its shape, `v5e:8x8`, or from its short name, `v5e-64`, as Google names slices.

    The number counts TensorCores, of which a chip of v4, v5p and tpu7x has two: v5p-128 are 64 chips.
    """
    generation, mark, rest = re.match(r"([^:-]*)([:-]?)(.*)", text).groups()
    generation = _ALIASES.get(generation, generation)
    if generation not in CHIPS:
        raise UserError(f"--topology: unknown TPU {generation!r}{nearest(generation, CHIPS)}; for example v5e-64")
    if mark == ":":
        return _by_shape(text, generation, rest)
    names = _short_names(generation)
    if rest not in names:
        hint = nearest(text, [f"{generation}-{n}" for n in names])
        raise UserError(f"--topology: unknown slice {text!r}{hint}; or give its shape, {generation}:...")
    return Topology(generation, names[rest])


def _by_shape(text: str, generation: str, shape: str) -> Topology:
    axes = CHIPS[generation].axes
    if not re.fullmatch(r"[1-9]\d*" + r"x[1-9]\d*" * (axes - 1), shape):
        example = Topology(generation, _short_names(generation)[str(64 * CHIPS[generation].cores)]).name
        raise UserError(f"--topology={text}: {generation} has {axes} axes; write it as {example}")
    return Topology(generation, tuple(map(int, shape.split("x"))))


def _short_names(generation: str) -> dict[str, tuple[int, ...]]:
    """{number of cores: shape}, powers of two as even as they go, ones last."""
    chip, found = CHIPS[generation], {}
    for power in range(_MOST + 1):
        each, more = divmod(power, chip.axes)
        shape = [2 ** (each + (axis >= chip.axes - more)) for axis in range(chip.axes)]
        found[str(2**power * chip.cores)] = tuple(sorted(shape, key=lambda n: (n == 1, n)))
    return found
