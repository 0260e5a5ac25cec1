"""The IoU over a data set: against pixels counted by hand; nothing of it for classes."""

import pytest
import torch

from branchynet.evaluation.overlap import overlap, overlaps


def test_pixels_are_added_up_before_they_are_divided():
    """Two images, three classes, the last one nowhere: 3 of 4 pixels, and 1 of 6."""
    both = torch.tensor([[3, 0, 0], [0, 1, 0]])
    either = torch.tensor([[3, 2, 0], [1, 4, 0]])
    found = overlap(both, either)
    assert found.classes == (0.75, 1 / 6, None)
    assert found.mean == pytest.approx((0.75 + 1 / 6) / 2)
    low, high = found.interval
    assert low == pytest.approx((1.0 + 0.0) / 2, abs=0.2) and low <= found.mean <= high


def test_there_are_none_where_answers_are_classes(report):
    assert overlaps(report) is None
