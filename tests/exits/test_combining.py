"""Shares of averaged exits: what they give, and that the fitted ones are the best."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from branchynet.errors import ArgumentError
from branchynet.exits.combining import Average, Separate, answers, average, fit_shares

SAMPLES, CLASSES = 400, 5


@pytest.fixture
def heads():
    """Three heads that err independently, and the labels: (logits of each, label)."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    right = torch.nn.functional.one_hot(label, CLASSES).float()
    return [
        gain * right + 1.5 * torch.randn(SAMPLES, CLASSES, generator=generator) for gain in (1.5, 2, 2.5)
    ], label


def test_an_answer_is_the_weighted_mean_of_log_probabilities(heads):
    (first, second, third), _ = heads
    found = answers([first, second, third], (0.0, 0.25, 0.5))
    assert found[0] is first
    logs = [each.log_softmax(dim=1) for each in (first, second, third)]
    torch.testing.assert_close(found[1].softmax(1), (0.75 * logs[1] + 0.25 * logs[0]).softmax(1))
    by_hand = 0.5 * logs[2] + 0.375 * logs[1] + 0.125 * logs[0]
    torch.testing.assert_close(found[2].softmax(1), by_hand.softmax(1))


def test_without_shares_and_with_shares_of_0_answers_are_the_heads_own(heads):
    logits, _ = heads
    for shares in (None, (0.0, 0.0, 0.0)):
        assert all(a is b for a, b in zip(answers(logits, shares), logits, strict=True))


def test_fitted_shares_are_the_best_of_all_hundredths_each_in_its_turn(heads):
    logits, label = heads
    expected, before = [0.0], logits[0].double()
    for own in logits[1:]:
        mixed = [(1 - s / 100) * own.double() + s / 100 * before for s in range(101)]
        losses = [cross_entropy(each, label).item() for each in mixed]
        best = losses.index(min(losses))
        expected.append(best / 100)
        before = mixed[best]
    assert fit_shares(logits, label) == tuple(expected)
    assert all(0.1 < share < 0.9 for share in expected[1:]), "an earlier exit helps"


def test_fitted_shares_agree_with_scipy(heads):
    optimize = pytest.importorskip("scipy.optimize")
    (first, second, _), label = heads
    first, second = first.double(), second.double()

    def loss(share):
        return cross_entropy((1 - share) * second + share * first, label).item()

    best = optimize.minimize_scalar(loss, bounds=(0, 1), method="bounded").x
    assert fit_shares([first, second], label)[1] == pytest.approx(best, abs=0.006)


def test_averaging_makes_the_last_exit_better(heads):
    logits, label = heads
    averaged = answers(logits, fit_shares(logits, label))[-1]
    assert cross_entropy(averaged, label) < 0.9 * cross_entropy(logits[-1], label)
    assert (averaged.argmax(1) == label).sum() > (logits[-1].argmax(1) == label).sum()


def test_an_exit_that_does_not_help_gets_no_share_and_of_equal_ones_the_smallest_is_taken(heads):
    logits, label = heads
    perfect = 8 * torch.nn.functional.one_hot(label, CLASSES).float()
    assert fit_shares([logits[0], perfect], label) == (0.0, 0.0)
    assert fit_shares([perfect, logits[0]], label) == (0.0, 1.0)
    assert fit_shares([logits[1], logits[1]], label) == (0.0, 0.0), "all are equal"


def test_a_share_of_0_changes_no_bit(heads):
    (first, second, _), _ = heads
    assert torch.equal(average(second, first, 0.0), second)


def test_where_shares_come_from(heads):
    logits, label = heads

    def never():
        raise AssertionError("nothing is to be fitted")

    assert Separate().find(3, never) is None
    assert Average([0, 0.5, 1]).find(3, never) == (0.0, 0.5, 1.0)
    assert Average().find(3, lambda: (logits, label)) == fit_shares(logits, label)


@pytest.mark.parametrize(
    "wrong", [[0.1, 0.5], [0, 1.1], [0, -0.1], [0, True], [0, float("nan")], [], "0", 0.5]
)
def test_what_are_no_shares_is_refused(wrong):
    with pytest.raises(ArgumentError, match=r"^shares=.*the first one 0"):
        Average(wrong)


def test_shares_are_of_as_many_exits_as_the_network_has():
    Average([0, 0.5]).check(2)
    Average().check(7)
    with pytest.raises(ArgumentError, match=r"^shares=\[0, 0.5\]: it is 3 numbers"):
        Average([0, 0.5]).check(3)
