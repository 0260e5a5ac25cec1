"""How good a criterion is: against torchmetrics, by hand, and by drawing the curve."""

from dataclasses import replace

import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from branchynet.evaluation.quality import (
    CONFIDENCE,
    UNCERTAINTY,
    area,
    calibrated,
    calibration_error,
    criterion_macs,
    qualities,
)
from branchynet.exits.criteria import Criterion, Entropy, Margin, MaxProbability
from branchynet.exits.learned import Logistic, Mlp
from branchynet.exits.openmax import OpenMax
from branchynet.exits.temperature import Temperature
from branchynet.networks.attach import attach
from branchynet.runtime.costs import Macs, count_macs


@pytest.mark.parametrize("seed", range(4))
def test_the_calibration_error_is_torchmetrics(seed):
    torch.manual_seed(seed)
    probability = torch.rand(500).pow(0.3).where(torch.rand(500) > 0.1, 1.0)  # some are exactly 1
    right = torch.rand(500) < probability**2
    theirs = binary_calibration_error(probability, right.long(), n_bins=15, norm="l1")
    assert calibration_error(probability, right) == pytest.approx(theirs.item(), abs=1e-6)


def test_a_calibration_error_by_hand():
    # 0.9 is said of four samples, of which two are right; 0.5 of two, of which one is.
    probability = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.5, 0.5])
    right = torch.tensor([1, 1, 0, 0, 1, 0]).bool()
    assert calibration_error(probability, right) == pytest.approx(4 / 6 * 0.4)
    assert calibration_error(torch.ones(3), torch.ones(3, dtype=torch.bool)) == 0


def drawn_area(uncertainty, right, last):
    """Under the curve, by trapezoids through all thresholds."""
    won = right.double() - last.double()
    places, heights = [0.0], [0.0]
    for value in uncertainty.unique():
        taken = uncertainty <= value
        places.append(taken.sum().item())
        heights.append(won[taken].sum().item())
    return torch.trapezoid(torch.tensor(heights).double(), torch.tensor(places).double()).item()


@pytest.mark.parametrize("levels", [5, 1000])
def test_the_area_is_that_of_the_curve_between_chance_and_the_best(levels):
    torch.manual_seed(1)
    right, last = torch.rand(300) < 0.7, torch.rand(300) < 0.8
    uncertainty = (torch.rand(300) + 0.5 * (~right) * last).mul(levels).floor()
    won = right.double() - last.double()
    line = drawn_area(torch.zeros(300), right, last)
    best = drawn_area(-won, right, last)
    expected = (drawn_area(uncertainty, right, last) - line) / (best - line)
    assert area(uncertainty, right, last) == pytest.approx(expected)
    assert 0.1 < expected < 0.9


def test_areas_at_their_ends():
    right, last = torch.tensor([1, 1, 0]).bool(), torch.tensor([0, 1, 1]).bool()
    assert area(torch.tensor([0.1, 0.2, 0.3]), right, last) == 1
    assert area(torch.tensor([0.3, 0.2, 0.1]), right, last) == -1
    assert area(torch.zeros(3), right, last) == 0
    assert area(torch.rand(3), right, right) is None, "nothing is won or lost"
    assert area(torch.rand(3), torch.ones(3).bool(), torch.zeros(3).bool()) is None, "all orders are alike"


class Projected(Criterion):
    """Multiplies a matrix of K × 7."""

    name, unit = "projected", "1"

    def prepare(self, num_classes, shape):
        self.weight = torch.nn.Parameter(torch.zeros(7, num_classes))

    def forward(self, logits):
        return (logits @ self.weight.T).square().sum(dim=1)


def test_the_criterions_macs_are_counted_and_told_apart():
    layers = [torch.nn.Linear(16, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 5)]
    trunk = torch.nn.Sequential(torch.nn.Flatten(), *layers)
    network = attach(trunk, [{"after": "1"}, {"after": "2"}], input_shape=(1, 4, 4), num_classes=5)
    criterion = Projected()
    criterion.prepare(5, (8,))
    with_it, without = (count_macs(network, (1, 4, 4), each) for each in ([criterion] * 3, ()))
    assert criterion_macs(with_it) == (35, 35) and criterion_macs(without) == (0, 0)
    assert [a - b for a, b in zip(with_it.exits, without.exits, strict=True)] == [35, 70, 105]
    averaged = count_macs(network.with_shares((0.0, 0.5, 0.5)), (1, 4, 4), [criterion] * 3)
    assert criterion_macs(averaged) == (35, 40), "and K for the average"
    for counted in (with_it, without, averaged):
        older = replace(counted, decisions=None)
        assert criterion_macs(older) == criterion_macs(counted), (
            "so it is worked out where it was not recorded"
        )


def test_qualities_of_a_report(report):
    (found,) = qualities(report)
    assert found.auroc == pytest.approx(11 / 15) and found.macs == 10
    assert found.latency_us == 10.0 - 8.0
    assert (found.calibration_error, calibrated(report)) == (None, "")
    # Exit 2 alone is right about samples 3, 5 and 6, exit 1 alone about 2.
    won = torch.tensor([0, 0, 1, -1, 0, -1, -1, 0])
    rank = torch.arange(1, 9)
    best = sum(w * (4.5 - r) for w, r in zip((1, -1, -1, -1), (1, 6, 7, 8), strict=True))
    assert found.area == pytest.approx(((won * (4.5 - rank)).sum() / best).item())


def test_what_is_calibrated(make_report):
    two = make_report().trace
    sure = replace(two, confidence=torch.full((8, 2), 0.75))
    told = make_report(traces={"val": sure, "test": sure})
    assert qualities(told)[0].calibration_error == pytest.approx(0.75 - 5 / 8)
    assert calibrated(told) == CONFIDENCE
    itself = replace(told, of_probability=True)
    assert calibrated(itself) == UNCERTAINTY
    assert qualities(itself)[0].calibration_error == pytest.approx(
        calibration_error(1 - two.uncertainty[:, 0], two.correct[:, 0])
    )


def test_macs_of_an_exit_at_the_input():
    assert criterion_macs(Macs(100, (20, 130), (20, 100), (0, 100))) == (0,)


def test_which_criteria_say_a_probability():
    assert all(kind().of_probability for kind in (MaxProbability, Logistic, Mlp, OpenMax))
    assert not Entropy().of_probability and not Margin().of_probability
    assert Temperature(MaxProbability()).of_probability and not Temperature().of_probability
