"""Recall of every class against numbers by hand, and its intervals against slow draws of single samples."""

import numpy as np
import pytest
import torch

from branchynet.evaluation.recall import recall, recalls
from branchynet.evaluation.report import balanced_accuracies


def test_recalls_of_a_report_are_those_that_balanced_accuracy_is_the_mean_of(report):
    found, balanced = recalls(report), balanced_accuracies(report)
    assert found.samples == (3, 3, 2)
    assert found.point.classes == pytest.approx((2 / 3, 1, 1))
    ways = (found.baseline, *found.exits, found.point)
    assert [each.balanced for each in ways] == pytest.approx(
        [balanced.baseline, *balanced.exits, balanced.point]
    )
    assert [each.lowest for each in ways] == [min(each.classes) for each in ways]


def test_a_class_without_samples_has_none_and_does_not_count():
    found = recall(torch.tensor([True, False, True]), torch.tensor([0, 0, 3]), 5)
    assert found.classes == (0.5, None, None, 1.0, None)
    assert found.intervals[1] is None and found.intervals[3] == (1.0, 1.0)
    assert (found.balanced, found.lowest) == (0.75, 0.5)


def test_intervals_are_those_of_draws_of_single_samples():
    rng = np.random.default_rng(1)
    label = torch.from_numpy(rng.choice(3, 300, p=[0.8, 0.15, 0.05]))
    right = torch.from_numpy(rng.random(300) < np.array([0.9, 0.6, 0.4])[label])
    found = recall(right, label, 3)
    drawn = []
    for _ in range(3000):
        index = rng.integers(0, 300, 300)
        own, ok = label.numpy()[index], right.numpy()[index]
        drawn.append([ok[own == k].mean() for k in range(3)])
    slow = np.quantile(drawn, (0.025, 0.975), axis=0)
    for k in range(3):
        assert found.intervals[k] == pytest.approx(tuple(slow[:, k]), abs=0.03)
    balanced = np.quantile(np.mean(drawn, axis=1), (0.025, 0.975))
    assert found.balanced_interval == pytest.approx(tuple(balanced), abs=0.02)
    rare, common = (found.intervals[k][1] - found.intervals[k][0] for k in (2, 0))
    assert rare > 3 * common
