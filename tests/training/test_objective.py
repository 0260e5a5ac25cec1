"""The joint loss against numbers worked out by hand; the weights' errors."""

import math

import pytest
import torch

from branchynet.errors import UserError
from branchynet.training.objective import check_weights, exit_weights, joint_loss, side_weights


def test_joint_loss_is_the_weighted_sum_worked_out_by_hand():
    # Two samples, three classes. Exit 1 is uniform: ln 3 each. Exit 2: p(target) = 2/4 and 1/4.
    uniform = torch.zeros(2, 3)
    sharper = torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 2.0]]).log()
    target = torch.tensor([0, 1])
    total, losses = joint_loss([uniform, sharper], target, (1.0, 0.3))
    first, second = math.log(3), (math.log(2) + math.log(4)) / 2
    assert losses.tolist() == pytest.approx([first, second])
    assert total.item() == pytest.approx(first + 0.3 * second)


def test_an_exit_that_was_not_run_counts_nothing_and_says_nan():
    logits = torch.randn(4, 3, requires_grad=True)
    target = torch.tensor([0, 1, 2, 0])
    total, losses = joint_loss([None, logits], target, (0.0, 2.0))
    assert math.isnan(losses[0]) and total.item() == pytest.approx(2 * losses[1].item())
    total.backward()
    assert logits.grad is not None and logits.grad.abs().sum() > 0


def test_a_weighted_exit_that_was_not_run_is_a_bug():
    with pytest.raises(ValueError, match="was not run"):
        joint_loss([None, torch.zeros(1, 3)], torch.tensor([0]), (1.0, 1.0))


def test_label_smoothing_by_hand():
    # Target probability 0.9 + 0.1/2, the other 0.1/2, over logits with p = (0.8, 0.2).
    logits = torch.tensor([[0.8, 0.2]]).log()
    total, _ = joint_loss([logits], torch.tensor([0]), (1.0,), label_smoothing=0.1)
    assert total.item() == pytest.approx(-(0.95 * math.log(0.8) + 0.05 * math.log(0.2)))


def test_weights_between_first_and_last_lie_on_a_line():
    assert exit_weights({"first": 1.0, "last": 0.3, "values": None}, 2) == pytest.approx((1.0, 0.3))
    assert exit_weights({"first": 1.0, "last": 0.0, "values": None}, 3) == pytest.approx((1.0, 0.5, 0.0))
    assert exit_weights({"first": 1.0, "last": 0.3, "values": [2, 1]}, 2) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0], ["1 weights", "2 exits"]),
        ([1.0, 1.0, 1.0], ["3 weights", "2 exits"]),
        ([1.0, -0.5], ["exit 2", "-0.5"]),
        ([float("nan"), 1.0], ["exit 1", "nan"]),
        ([float("inf"), 1.0], ["exit 1", "inf"]),
        ([0.0, 0.0], ["above 0"]),
        (["a", 1.0], ["number"]),
        (0.5, ["0.5", "list"]),
        ("ab", ["ab", "list"]),
    ],
)
def test_wrong_weights_get_one_line_that_says_what_is_wrong(values, words):
    with pytest.raises(UserError) as caught:
        check_weights(values, 2)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words)


def test_with_a_frozen_trunk_the_last_exits_weight_counts_as_zero():
    assert side_weights((1.0, 0.0, 0.3)) == (1.0, 0.0, 0.0)
    with pytest.raises(UserError, match=r"freeze=trunk.*freeze=none"):
        side_weights((0.0, 0.0, 1.0))
