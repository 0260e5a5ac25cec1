"""The joint loss against numbers worked out by hand; what objectives are made of; the weights' errors."""

import math

import pytest
import torch

from branchynet.errors import UserError
from branchynet.training.objective import (
    Joint,
    check_weights,
    exit_losses,
    exit_weights,
    side_weights,
    weighted,
)


def test_joint_loss_is_the_weighted_sum_worked_out_by_hand():
    # Two samples, three classes. Exit 1 is uniform: ln 3 each. Exit 2: p(target) = 2/4 and 1/4.
    uniform = torch.zeros(2, 3)
    sharper = torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 2.0]]).log()
    target = torch.tensor([0, 1])
    total, losses = Joint((1.0, 0.3))([uniform, sharper], target)
    first, second = math.log(3), (math.log(2) + math.log(4)) / 2
    assert losses.tolist() == pytest.approx([first, second])
    assert total.item() == pytest.approx(first + 0.3 * second)


def test_an_exit_that_was_not_run_counts_nothing_and_says_nan():
    logits = torch.randn(4, 3, requires_grad=True)
    target = torch.tensor([0, 1, 2, 0])
    total, losses = Joint((0.0, 2.0))([None, logits], target)
    assert math.isnan(losses[0]) and total.item() == pytest.approx(2 * losses[1].item())
    total.backward()
    assert logits.grad is not None and logits.grad.abs().sum() > 0


def test_a_weighted_exit_that_was_not_run_is_a_bug():
    with pytest.raises(ValueError, match="was not run"):
        Joint((1.0, 1.0))([None, torch.zeros(1, 3)], torch.tensor([0]))


def test_label_smoothing_by_hand():
    # Target probability 0.9 + 0.1/2, the other 0.1/2, over logits with p = (0.8, 0.2).
    logits = torch.tensor([[0.8, 0.2]]).log()
    total, _ = Joint((1.0,), label_smoothing=0.1)([logits], torch.tensor([0]))
    assert total.item() == pytest.approx(-(0.95 * math.log(0.8) + 0.05 * math.log(0.2)))


def test_the_joint_loss_needs_the_exits_that_it_weights():
    joint = Joint([1, 0.0, 0.3])
    assert joint.weights == (1.0, 0.0, 0.3) and joint.needs == (True, False, True)
    assert not joint.of_features and joint.label_smoothing == 0
    assert joint == Joint((1.0, 0.0, 0.3)) != Joint((1.0, 0.0, 0.3), 0.1)


@pytest.mark.parametrize("label_smoothing", [-0.1, 1, 1.5, True, "0.1", None, math.nan, math.inf])
def test_label_smoothing_out_of_its_range_gets_one_line(label_smoothing):
    with pytest.raises(UserError) as caught:
        Joint((1.0,), label_smoothing)
    assert str(caught.value) == f"label_smoothing={label_smoothing}: it is between 0 and 1, 1 excluded"


@pytest.mark.parametrize(
    "weights", [(0.0, 0.0), (1.0, -1.0), (1.0, math.nan), ("a", 1.0), (True, 1.0), (), "ab"]
)
def test_the_joint_loss_checks_its_weights(weights):
    with pytest.raises(UserError) as caught:
        Joint(weights)
    assert "\n" not in str(caught.value)


# What objectives are made of


def test_each_exits_own_loss_by_hand():
    # p(target) = 3/4 and 1/2; then with smoothing 0.2: 0.9 and 0.1 of each.
    logits = torch.tensor([[3.0, 1.0], [1.0, 1.0]]).log().requires_grad_()
    target = torch.tensor([0, 1])
    none, loss = exit_losses([None, logits], target)
    assert none is None and loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    loss.backward()
    assert logits.grad is not None
    (smooth,) = exit_losses([logits], target, 0.2)
    expected = (0.9 * math.log(4 / 3) + 0.1 * math.log(4) + math.log(2)) / 2
    assert smooth.item() == pytest.approx(expected)


def test_losses_are_computed_in_float32():
    logits = torch.tensor([[3.0, 1.0, 0.1]]).bfloat16()
    (loss,) = exit_losses([logits], torch.tensor([1]))
    assert loss.dtype == torch.float32
    assert loss.item() == exit_losses([logits.float()], torch.tensor([1]))[0].item()


def test_the_weighted_sum_keeps_the_gradient_and_the_losses_do_not():
    first, last = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    total, losses = weighted([first, None, last], (0.5, 0.0, 2.0))
    assert total.item() == 7.0 and losses[[0, 2]].tolist() == [2.0, 3.0] and losses[1].isnan()
    assert not losses.requires_grad
    total.backward()
    assert (first.grad.item(), last.grad.item()) == (0.5, 2.0)


def test_a_weighted_loss_that_is_missing_is_a_bug():
    with pytest.raises(ValueError, match="an exit with a weight above zero was not run"):
        weighted([torch.tensor(1.0), None], (1.0, 0.1))
    with pytest.raises(ValueError, match="zip"):
        weighted([torch.tensor(1.0)], (1.0, 0.1))


# Weights


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
        ([True, 1.0], ["True", "number"]),
        (0.5, ["values=0.5", "list"]),
        ("ab", ["values=ab", "list"]),
    ],
)
def test_wrong_weights_get_one_line_that_says_what_is_wrong(values, words):
    with pytest.raises(UserError) as caught:
        check_weights(values, 2)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words)
    with pytest.raises(UserError) as again:
        exit_weights({"values": values, "first": 1.0, "last": 0.3}, 2)
    assert str(again.value) == message


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"first": "high", "last": 0.3}, "first=high: it is a number"),
        ({"first": 1.0, "last": None}, "last=None: it is a number"),
        ({"first": 1.0, "last": True}, "last=True: it is a number"),
        ({"first": 1.0, "last": -0.5}, "the weight of exit 3 is -0.5"),
        ({"first": math.nan, "last": 0.3}, "first=nan: it is a number, 0 or more, and finite"),
        ({"first": math.inf, "last": 0.3}, "first=inf: it is a number, 0 or more, and finite"),
        ({"first": 1.0, "last": 10**400}, "last=1000"),
        ({"first": 0, "last": 0}, "at least one exit needs a weight above 0"),
    ],
)
def test_wrong_ends_of_the_line_get_one_line(spec, says):
    with pytest.raises(UserError) as caught:
        exit_weights(spec, 3)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_network_of_one_exit_has_the_first_weight():
    assert exit_weights({"first": 0.7, "last": 0.3, "values": None}, 1) == (0.7,)


def test_with_a_frozen_trunk_the_last_exits_weight_counts_as_zero():
    assert side_weights((1.0, 0.0, 0.3)) == (1.0, 0.0, 0.0)
    with pytest.raises(UserError, match=r"freeze=trunk.*freeze=none"):
        side_weights((0.0, 0.0, 1.0))


def test_weights_of_classes_by_hand():
    # Two classes, p(target) = 1/2 and 1/4 of two images: ln 2 and ln 4, counted 0.5 and 3 times.
    logits = torch.tensor([[1.0, 1.0], [3.0, 1.0]]).log()
    target = torch.tensor([0, 1])
    total, losses = Joint((1.0,), class_weights=(0.5, 3.0))([logits], target)
    assert total.item() == losses[0].item() == pytest.approx((0.5 * math.log(2) + 3 * math.log(4)) / 2)
    assert Joint((1.0,), class_weights=(1.0, 1.0))([logits], target)[0].item() == pytest.approx(
        Joint((1.0,))([logits], target)[0].item()
    )
    # What an image counts does not depend on its batch: the mean of two halves is the whole.
    halves = [exit_losses([logits[n : n + 1]], target[n : n + 1], 0.1, (0.5, 3.0))[0] for n in (0, 1)]
    whole = exit_losses([logits], target, 0.1, (0.5, 3.0))[0]
    assert (sum(halves) / 2).item() == pytest.approx(whole.item())


@pytest.mark.parametrize("of_classes", [None, (0.5, 3.0)])
def test_pixels_whose_label_is_no_class_are_in_no_loss(of_classes):
    logits, target = torch.randn(2, 2, 3, 4, requires_grad=True), torch.randint(2, (2, 3, 4))
    away = torch.rand(target.shape) < 0.4
    given = target.masked_fill(away, 255)
    loss = exit_losses([None, logits], given, 0.1, of_classes)[1]
    # The same pixels alone, as images of one pixel.
    alone = logits.movedim(1, -1)[~away][..., None], target[~away][:, None]
    assert loss.item() == pytest.approx(exit_losses([alone[0]], alone[1], 0.1, of_classes)[0].item())
    loss.backward()
    assert (logits.grad.abs().sum(dim=1) > 0).equal(~away)
