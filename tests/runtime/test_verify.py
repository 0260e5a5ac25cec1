"""The real run against the trace."""

import copy

import numpy as np
import pytest
import torch

from branchynet.exits.criteria import entropy
from branchynet.exits.sweep import evaluate
from branchynet.exits.trace import compute_trace
from branchynet.runtime.engine import Outcome, make_classifier
from branchynet.runtime.verify import compare, run_for_real


def test_every_sample_leaves_where_the_sweep_says(engine_name, made, network, images):
    labels = torch.arange(len(images)) % 10
    x = torch.from_numpy(images)
    trace = compute_trace(network, [(x, labels)], entropy)
    thresholds = [float(trace.uncertainty[:, n].median()) + 1e-3 for n in range(2)]
    engine = copy.copy(made)
    engine.thresholds = thresholds
    baseline = make_classifier(engine_name, network.trunk(), (1, 12, 12), 1)
    run = run_for_real(engine, baseline, images)
    found = compare(run.outcome, trace.uncertainty.numpy(), trace.prediction.numpy(), engine.thresholds)
    assert found.unexplained == 0 and found.differences <= found.near_threshold
    point = evaluate(trace, torch.tensor([thresholds]))
    rates = np.bincount(run.outcome.exit, minlength=3) / len(images)
    if not found.differences:
        assert rates.tolist() == point.exit_rates[0].tolist()
        assert (run.outcome.prediction == labels.numpy()).mean() == point.accuracy[0].item()
    assert np.array_equal(run.baseline_prediction, trace.prediction[:, -1].numpy())
    assert run.latency_us > 0 and run.baseline_latency_us > 0 and run.latency_iqr_us >= 0


T = (0.5, 0.5)
# Samples: sure at 1; sure at 2; sure at neither; on the threshold of 1, which is not below it.
UNCERTAINTY = np.float32([[0.1, 0.9, 0.9], [0.9, 0.2, 0.9], [0.9, 0.9, 0.9], [0.5, 0.1, 0.9]])
PREDICTION = np.array([[1, 2, 3]] * 4)
EXPECTED = Outcome(np.array([1, 2, 3, 2]), np.array([0, 1, 2, 1]), np.zeros(4, np.float32))


def changed(prediction=None, exit=None):
    """EXPECTED, with sample: value changes."""
    copy = Outcome(*(array.copy() for array in EXPECTED))
    for array, changes in ((copy.prediction, prediction), (copy.exit, exit)):
        for sample, value in (changes or {}).items():
            array[sample] = value
    return copy


@pytest.mark.parametrize(
    ("outcome", "numbers"),
    [
        (EXPECTED, (0, 1, 0)),
        (changed(exit={3: 0}, prediction={3: 1}), (1, 1, 0)),  # the one on the threshold: rounding
        (
            changed(exit={0: 1}, prediction={0: 2}),
            (1, 1, 1),
        ),  # far from it: a difference that nothing explains
        (changed(prediction={2: 7}), (1, 1, 1)),  # the right exit, another answer
        (changed(exit={3: 0, 1: 2}), (2, 1, 1)),
    ],
)
def test_differences_are_counted_and_those_near_a_threshold_told_apart(outcome, numbers):
    found = compare(outcome, UNCERTAINTY, PREDICTION, T)
    assert (found.differences, found.near_threshold, found.unexplained) == numbers


def test_only_thresholds_that_a_sample_met_count_as_near():
    # Left at exit 1; its uncertainty at exit 2 lies on that threshold, but nobody looked there.
    uncertainty = np.float32([[0.1, 0.5, 0.9]])
    outcome = Outcome(np.array([1]), np.array([0]), np.zeros(1, np.float32))
    found = compare(outcome, uncertainty, PREDICTION[:1], T)
    assert (found.differences, found.near_threshold, found.unexplained) == (0, 0, 0)
