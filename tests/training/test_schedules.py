"""The learning rate over a stage."""

from itertools import pairwise

import pytest
import torch

from branchynet.errors import UserError
from branchynet.training.schedules import build_schedule


def rates(spec, steps=100, lr=0.1):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=lr, momentum=0.9)
    schedule = build_schedule(spec, optimizer, steps)
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return values


def test_none_is_constant():
    assert set(rates({"name": "none"})) == {0.1}


def test_one_cycle_peaks_where_warmup_ends_and_ends_near_zero():
    values = rates({"name": "one_cycle", "warmup": 0.2})
    assert max(values) == pytest.approx(0.1)
    assert values.index(max(values)) in (19, 20)
    assert values[-1] < 1e-4 * max(values)


def test_cosine_falls_and_is_half_way_down_in_the_middle():
    values = rates({"name": "cosine"})
    assert values[0] == 0.1 and values[50] == pytest.approx(0.05)
    assert all(later < earlier for earlier, later in pairwise(values))


@pytest.mark.parametrize(
    ("spec", "steps", "word"),
    [
        ({"name": "linear"}, 100, "one_cycle"),
        ({"name": "one_cycle", "warmup": 1.5}, 100, "warmup"),
        ({"name": "one_cycle", "warmup": 0.1}, 5, "too few"),
    ],
)
def test_mistakes_get_one_line(spec, steps, word):
    with pytest.raises(UserError, match=word):
        rates(spec, steps)
