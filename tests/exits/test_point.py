"""An operating point's fractions and costs worked out by hand; thresholds as decimal numbers."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchynet.exits.point import OperatingPoint, decimal

# 8 samples: 5 leave at exit 1, none at exit 2, 3 at exit 3; 6 are answered rightly.
POINT = OperatingPoint((0.3, 0.0), right=6, left=(5, 0, 3))


def test_fractions_are_counts_over_the_samples():
    assert POINT.samples == 8
    assert POINT.accuracy == 0.75
    assert POINT.exit_rates == (0.625, 0.0, 0.375)


def test_the_mean_cost_is_that_of_the_samples_one_by_one():
    cost = [10.0, 25.0, 50.0]
    paid = [cost[n] for n, count in enumerate(POINT.left) for _ in range(count)]
    assert POINT.mean_cost(cost) == pytest.approx(sum(paid) / 8) == 25.0
    for wrong in ([10.0, 25.0], [10.0, 25.0, 50.0, 70.0]):
        with pytest.raises(ValueError, match="zip"):
            POINT.mean_cost(wrong)


def test_without_side_exits_everybody_leaves_at_the_end():
    point = OperatingPoint((), right=3, left=(4,))
    assert (point.accuracy, point.exit_rates, point.mean_cost([7.0])) == (0.75, (1.0,), 7.0)


def test_points_are_values():
    assert OperatingPoint((0.3, 0.0), 6, (5, 0, 3)) == POINT
    assert OperatingPoint((0.3, 0.0), 5, (5, 0, 3)) != POINT
    assert len({POINT, OperatingPoint((0.3, 0.0), 6, (5, 0, 3))}) == 1


def test_decimal_by_hand():
    assert decimal(float(np.float32(0.3))) == 0.3 != float(np.float32(0.3))
    assert decimal(0.3) == 0.3
    assert (decimal(0.0), decimal(1e-45), decimal(math.inf)) == (0.0, 1e-45, math.inf)
    assert decimal(3) == 3.0 and isinstance(decimal(3), float)


def bits(value: float) -> bytes:
    """Of the float32 next to it."""
    return struct.pack("f", value)


@given(st.floats(0, allow_infinity=False, width=32))
def test_decimal_gives_the_very_threshold_back_in_as_few_digits_as_can_be(value):
    found = decimal(value)
    assert bits(found) == bits(value)
    fewest = next(digits for digits in range(1, 10) if bits(float(f"{value:.{digits - 1}e}")) == bits(value))
    mantissa = f"{found!r}".partition("e")[0].replace(".", "").strip("0")
    assert len(mantissa) <= fewest
