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
    assert set(rates({"name": "none", "warmup": 0.2})) == {0.1}  # debug=fast switches another one off


def test_one_cycle_peaks_where_warmup_ends_and_ends_near_zero():
    values = rates({"name": "one_cycle", "warmup": 0.2})
    assert max(values) == pytest.approx(0.1)
    assert values.index(max(values)) in (19, 20)
    assert values[-1] < 1e-4 * max(values)


def test_cosine_falls_and_is_half_way_down_in_the_middle():
    values = rates({"name": "cosine"})
    assert values[0] == 0.1 and values[50] == pytest.approx(0.05)
    assert all(later < earlier for earlier, later in pairwise(values))


def test_multi_step_divides_at_the_milestones():
    values = rates({"name": "multi_step", "milestones": [0.5, 0.75], "factor": 0.1})
    assert values == pytest.approx([0.1] * 50 + [0.01] * 25 + [0.001] * 25)


def test_a_milestone_of_a_short_stage_lets_the_first_step_have_the_full_rate():
    assert rates({"name": "multi_step", "milestones": [0.1], "factor": 0.5}, 3) == [0.1, 0.05, 0.05]


@pytest.mark.parametrize(
    ("spec", "steps", "word"),
    [
        ({"name": "linear"}, 100, "^name=linear: it is one of none, one_cycle, cosine, multi_step$"),
        ({"name": ["cosine"]}, 100, "^name=.*: it is one of none"),
        ({"name": "none", "nosuch": 1}, 100, "^nosuch=1: there is no such setting; none has none$"),
        ({"name": "cosine", "nosuch": 1}, 100, "^nosuch=1: there is no such setting; cosine has none$"),
        (
            {"name": "one_cycle", "warmup": 0.2, "x": 1},
            100,
            "^x=1: there is no such .*; one_cycle has warmup$",
        ),
        ({"name": "one_cycle"}, 100, "^warmup: it is missing, and name=one_cycle needs it"),
        ({"name": "one_cycle", "warmup": 1.5}, 100, "^warmup=1.5: it is"),
        ({"name": "one_cycle", "warmup": "long"}, 100, "warmup=long"),
        ({"name": "one_cycle", "warmup": 0.1}, 5, "too few"),
        ({"name": "multi_step", "milestones": [0.75, 0.5], "factor": 0.1}, 100, "rising"),
        ({"name": "multi_step", "milestones": [30, 60], "factor": 0.1}, 100, "milestones=.*shares"),
        ({"name": "multi_step", "milestones": [], "factor": 0.1}, 100, "milestones"),
        ({"name": "multi_step", "milestones": [True], "factor": 0.1}, 100, "milestones=.*True"),
        ({"name": "multi_step", "milestones": 0.5, "factor": 0.1}, 100, "milestones=0.5"),
        ({"name": "multi_step", "milestones": [0.5], "factor": 10}, 100, "factor=10"),
    ],
)
def test_mistakes_get_one_line(spec, steps, word):
    with pytest.raises(UserError, match=word) as caught:
        rates(spec, steps)
    assert "\n" not in str(caught.value)
