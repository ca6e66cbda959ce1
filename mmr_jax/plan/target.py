"""Where a program is to run: a TPU topology that need not be there, or the machine at hand."""

import os
from dataclasses import dataclass

import jax

from mmr_jax.plan.chips import Chip, chip_of, parse_topology


@dataclass(frozen=True)
class Target:
    """`devices` as jax sees them; `limit`: bytes of memory of each, None if unknown; `chip` of a TPU."""

    name: str
    devices: tuple
    limit: float | None
    chip: Chip | None

    @property
    def hosts(self) -> int:
        return len({device.process_index for device in self.devices})

    @property
    def chips(self) -> int:
        return len(self.devices) // (self.chip.devices if self.chip else 1)


def topology(name: str) -> Target:
    """The devices of a topology; its name is one that `parse_topology` takes. Needs libtpu and its environment."""
    from jax.experimental import topologies

    wanted = parse_topology(name)
    options = {"chip_config_name": "megacore"} if wanted.chip.cores > wanted.chip.devices else {}
    devices = topologies.get_topology_desc(platform="tpu", topology_name=wanted.name, **options).devices
    return Target(wanted.name, tuple(devices), wanted.chip.hbm / wanted.chip.devices, wanted.chip)


def at_hand() -> Target:
    """All devices of the running program."""
    devices = jax.devices()
    chip = chip_of(devices[0].device_kind)
    stats = devices[0].memory_stats() or {}
    limit = stats.get("bytes_limit")
    if devices[0].platform == "cpu":
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / len(devices)
    return Target(f"{len(devices)} x {devices[0].device_kind}", tuple(devices), limit, chip)
