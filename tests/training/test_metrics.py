"""PerExit against counting by hand."""

import math

import pytest
import torch

from branchynet.training.metrics import PerExit


def test_accuracy_and_loss_over_two_batches_of_different_size():
    metric = PerExit(2)
    one_hot = torch.eye(3)
    metric.update([one_hot[[0, 1]], one_hot[[0, 0]]], torch.tensor([1.0, 2.0]), torch.tensor([0, 1]))
    metric.update([one_hot[[2]], one_hot[[0]]], torch.tensor([4.0, 5.0]), torch.tensor([1]))
    result = metric.compute()
    assert result["accuracy"].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert result["loss"].tolist() == pytest.approx([(2 * 1 + 4) / 3, (2 * 2 + 5) / 3])
    metric.reset()
    metric.update([one_hot[[0]], one_hot[[1]]], torch.tensor([1.0, 2.0]), torch.tensor([1]))
    assert metric.compute()["accuracy"].tolist() == [0, 1]


def test_an_exit_that_was_not_run_has_no_loss():
    metric = PerExit(2)
    metric.update([None, torch.eye(2)], torch.tensor([math.nan, 1.0]), torch.tensor([0, 1]))
    result = metric.compute()
    assert math.isnan(result["loss"][0]) and result["accuracy"].tolist() == [0, 1]
