"""The Pareto frontier of accuracy over cost."""

import torch
from torch import Tensor


def pareto(cost: Tensor, accuracy: Tensor) -> Tensor:
    """Indices (int64) of the points that no other one beats, by rising cost and rising accuracy.

    A point is beaten by one that is no dearer and no less accurate, and better in one of the two; of equal
    points the first stays.

    Args:
        cost: (V,).
        accuracy: (V,).
    """
    # By cost; of equal cost the most accurate first, of those the first: two stable sorts.
    order = torch.argsort(accuracy, descending=True, stable=True)
    order = order[torch.argsort(cost[order], stable=True)]
    sorted_accuracy = accuracy[order]
    best_before = torch.cummax(sorted_accuracy, dim=0).values.roll(1)
    best_before[0] = -torch.inf
    return order[sorted_accuracy > best_before]
