"""The frontier against the definition, pair by pair."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from branchynet.exits.frontier import pareto


def reference(cost, accuracy):
    """Every point against every other; of equal points the first stays."""
    kept = []
    for i, (c, a) in enumerate(zip(cost, accuracy, strict=True)):
        beaten = False
        for j, (d, b) in enumerate(zip(cost, accuracy, strict=True)):
            no_worse = d <= c and b >= a
            beaten |= no_worse and (d < c or b > a or j < i)
        if not beaten:
            kept.append(i)
    return sorted(kept, key=lambda i: cost[i])


# Few values, so that there are many ties.
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_equals_the_definition(points):
    cost = [float(c) for c, _ in points]
    accuracy = [a / 6 for _, a in points]
    index = pareto(torch.tensor(cost).double(), torch.tensor(accuracy).double())
    assert index.dtype == torch.int64
    assert index.tolist() == reference(cost, accuracy)


def test_worked_out_by_hand():
    cost = torch.tensor([40.0, 10.0, 20.0, 20.0, 30.0, 10.0])
    accuracy = torch.tensor([0.99, 0.90, 0.95, 0.97, 0.96, 0.90])
    assert pareto(cost, accuracy).tolist() == [1, 3, 0]
