"""What a network is worth on validation, against the sweep done by hand."""

import pytest
import torch

from branchynet.evaluation.evidence import trace
from branchynet.evaluation.settings import SweepSettings
from branchynet.evaluation.worth import OBJECTIVES, worth
from branchynet.exits.criteria import Entropy, for_exits
from branchynet.exits.sweep import evaluate_grid, threshold_grid
from branchynet.exits.trace import Trace
from branchynet.runtime.costs import count_macs


class Validation:
    """The data without a test split: who asks for it gets an error."""

    def __init__(self, data):
        self.data, self.input_shape, self.classes = data, data.input_shape, data.classes
        self.inexact = data.inexact

    def labels(self, which):
        assert which == "val"
        return self.data.labels(which)

    def batches(self, which, size, part=None):
        assert which == "val"
        return self.data.batches(which, size, part)


@pytest.fixture
def judged(bright_data, bright_network):
    """A function from a loss that is allowed to the network's worth; its baseline is its own last exit."""
    network = bright_network()
    criteria = for_exits(Entropy(), network.feature_shapes(bright_data.input_shape), 3)
    settings = SweepSettings.__new__(SweepSettings)
    for name, value in {"max_vectors": 40_000, "thresholds": None, "candidates": None}.items():
        object.__setattr__(settings, name, value)

    def judge(max_loss):
        return worth(settings, network, criteria, network, Validation(bright_data), max_loss=max_loss)

    return judge, network, criteria


@pytest.mark.parametrize("max_loss", [0.0, 0.02, 0.1])
def test_the_cheapest_point_that_loses_no_more(judged, bright_data, max_loss):
    judge, network, criteria = judged
    found = judge(max_loss)
    macs = count_macs(network, bright_data.input_shape, criteria)
    seen = trace(
        network,
        criteria,
        (x for x, _ in bright_data.batches("val", 100)),
        bright_data.labels("val"),
    )
    points = evaluate_grid(seen, threshold_grid(seen, 40_000))
    mean = points.mean_cost(torch.tensor(macs.exits))
    baseline = seen.correct[:, -1].double().mean().item()
    enough = points.accuracy >= baseline - max_loss - 1e-9
    assert found.macs == pytest.approx(mean[enough].min().item())
    assert (
        found.gain == pytest.approx(macs.baseline / found.macs)
        and found.accuracy >= baseline - max_loss - 1e-9
    )
    assert found.highest_accuracy == points.accuracy.max().item()
    assert found.exits == tuple(seen.correct.double().mean(0).tolist())
    assert found.baseline_accuracy == baseline and found.baseline_macs == macs.baseline
    assert found.macs_to_the_end == macs.exits[-1] and sum(found.exit_rates) == pytest.approx(1)


def test_where_no_point_is_good_enough_the_gain_says_what_is_missing(judged, monkeypatch):
    judge, *_ = judged

    def always(right):
        def answers(trunk, criterion, batches, label, task):
            return Trace(torch.zeros(len(label), 1), (label if right else label - 1)[:, None], label)

        monkeypatch.setattr("branchynet.evaluation.worth.baseline_trace", answers)

    always(False)
    assert judge(0.0).gain > 0, "a baseline that is never right is easily beaten"
    always(True)
    found = judge(0.01)
    assert found.highest_accuracy < 0.99
    assert found.gain == pytest.approx(-100 * (0.99 - found.highest_accuracy))
    assert found.accuracy == found.highest_accuracy


def test_it_is_plain_and_has_all_that_a_search_may_go_by(judged):
    plain = judged[0](0.0).as_dict()
    assert set(OBJECTIVES) <= set(plain)
    assert all(isinstance(value, int | float | list) for value in plain.values())
