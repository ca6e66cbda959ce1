"""Names of TPU slices, and whether the table of chips agrees with itself."""

import pytest

from mmr_jax.errors import UserError
from mmr_jax.plan.chips import CHIPS, parse_topology


@pytest.mark.parametrize(
    "text, name, chips",
    [
        ("v5e:8x8", "v5e:8x8", 64),
        ("v5e-64", "v5e:8x8", 64),
        ("v5litepod-256", "v5e:16x16", 256),
        ("v5e-8", "v5e:2x4", 8),
        ("v6e-32", "v6e:4x8", 32),
        ("v4-8", "v4:2x2x1", 4),  # the number counts cores, of which a chip has two
        ("v5p-128", "v5p:4x4x4", 64),
        ("v5p-256", "v5p:4x4x8", 128),
        ("v5p:8x8x16", "v5p:8x8x16", 1024),
        ("tpu7x-8", "tpu7x:2x2x1", 4),
    ],
)
def test_names(text, name, chips):
    found = parse_topology(text)
    assert (found.name, found.chips) == (name, chips)


@pytest.mark.parametrize(
    "text, message",
    [
        ("v5x-64", "unknown TPU 'v5x'; did you mean 'v5"),
        ("h100-8", "unknown TPU 'h100'"),
        ("v5e-63", "unknown slice 'v5e-63'; did you mean 'v5e-64'"),
        ("v5e:4x4x4", "v5e has 2 axes; write it as v5e:8x8"),
        ("v5p:8x8", "v5p has 3 axes; write it as v5p:4x4x4"),
        ("v5e:0x8", "v5e has 2 axes"),
        ("v5e", "unknown slice 'v5e'"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        parse_topology(text)


@pytest.mark.parametrize("name, units, side", [("v4", 8, 128), ("v5e", 4, 128), ("v5p", 8, 128)])
def test_clock_and_matrix_units_give_the_peak(name, units, side):
    """Two FLOP per cell and cycle; the published peaks are rounded."""
    assert CHIPS[name].flop_per_cycle == pytest.approx(2 * units * side**2, rel=0.005)
