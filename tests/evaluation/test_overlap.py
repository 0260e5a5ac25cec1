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
    # Drawn are the first image twice, 3/3 and 0/2; both; or the second one twice, 0/1 and 1/4.
    assert found.interval == (0.125, 0.5)


def test_there_are_none_where_answers_are_classes(report):
    assert overlaps(report) is None
