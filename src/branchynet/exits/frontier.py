"""The Pareto frontier of accuracy over cost.

Shapes: V operating points.
"""

import torch
from torch import Tensor


def pareto(cost: Tensor, accuracy: Tensor) -> Tensor:
    """Indices (int64) of the points that no other one beats, by rising cost, and so by rising accuracy.

    A point is beaten by one that costs no more and is no less accurate, and is better in one of the two; of
    equal points the first stays. Takes O(V log V).

    Args:
        cost: (V,).
        accuracy: (V,).

    >>> pareto(torch.tensor([3.0, 1.0, 2.0, 2.0]), torch.tensor([0.9, 0.8, 0.8, 0.85])).tolist()
    [1, 3, 0]
    """
    # By cost; of equal cost the most accurate first, of those the first: two stable sorts.
    order = torch.argsort(accuracy, descending=True, stable=True)
    order = order[torch.argsort(cost[order], stable=True)]
    ordered = accuracy[order]
    # A point stays if it is more accurate than every cheaper one.
    best_before = torch.cummax(ordered, dim=0).values.roll(1)
    best_before[:1] = -torch.inf
    return order[ordered > best_before]
