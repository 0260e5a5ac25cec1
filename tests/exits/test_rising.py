"""The knee of uncertainties in rising order."""

import pytest
import torch

from branchynet.exits.rising import rising_knee


def test_the_point_farthest_below_the_chord():
    # 0, 0, 0, 0.1, 0.5, 1 over a chord of 0, 0.2 … 1: below it by 0, 0.2, 0.4, 0.5, 0.3, 0.
    knee = rising_knee(torch.tensor([0.5, 0.0, 1.0, 0.0, 0.1, 0.0]))
    assert knee.threshold == pytest.approx(0.1) and knee.share == 3 / 6


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_it_does_not_depend_on_the_unit(factor):
    values = torch.rand(200, generator=torch.Generator().manual_seed(0)) ** 5
    plain, scaled = rising_knee(values), rising_knee(factor * values)
    assert scaled.share == plain.share
    assert scaled.threshold == pytest.approx(factor * plain.threshold, rel=1e-6)


@pytest.mark.parametrize("values", [[0.3], [0.3, 0.3, 0.3], [0.0, 0.0]])
def test_where_all_are_as_sure_nobody_leaves(values):
    assert rising_knee(torch.tensor(values)) == (pytest.approx(values[0]), 0)


def test_the_slow_reference():
    values = torch.rand(50, generator=torch.Generator().manual_seed(1)) ** 3
    curve = sorted(values.double().tolist())
    below = [curve[0] + (curve[-1] - curve[0]) * at / 49 - value for at, value in enumerate(curve)]
    best = below.index(max(below))
    assert rising_knee(values) == (curve[best], best / 50)
