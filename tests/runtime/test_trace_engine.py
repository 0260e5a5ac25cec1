"""What an engine's own exits say of every sample: the network's trace, within rounding."""

import numpy as np
import pytest
import torch

from branchynet.exits.criteria import Entropy
from branchynet.exits.trace import compute_trace
from branchynet.runtime.base import Outcome
from branchynet.runtime.steps import exit_steps
from branchynet.runtime.trace_engine import trace_engine


def test_the_trace_of_an_engine_is_the_networks(engine, network, images):
    labels = torch.zeros(len(images), dtype=torch.int64)
    trace = compute_trace(exit_steps(network, [Entropy()] * 3), [torch.from_numpy(images)], labels)
    engine.thresholds = (0.5, 0.25)
    uncertainty, prediction = trace_engine(engine, [images[:150], images[150:]], batch=100)
    np.testing.assert_allclose(uncertainty, trace.uncertainty.numpy(), atol=1e-5)
    assert np.array_equal(prediction, trace.prediction.numpy())
    assert uncertainty.dtype == np.float32 and prediction.dtype == np.int64
    assert engine.thresholds == (0.5, 0.25)


class Recorder:
    """An engine that says at which exit it was asked, and for how many images."""

    thresholds = (0.5, 0.25)

    def __init__(self, fails_at=None):
        self.fails_at, self.asked = fails_at, []

    def run(self, x):
        exit = [*(np.inf == np.array(self.thresholds)), True].index(True)
        self.asked.append((exit, len(x)))
        if exit == self.fails_at:
            raise RuntimeError("out of memory")
        full = np.full(len(x), exit)
        return Outcome(full, full + 1, full.astype(np.float32))


def test_every_exit_runs_in_batches_of_the_size_asked_for():
    engine = Recorder()
    uncertainty, prediction = trace_engine(engine, [np.zeros((5, 1, 2, 2), np.float32)], batch=2)
    assert engine.asked == [(n, size) for n in range(3) for size in (2, 2, 1)]
    assert prediction.tolist() == [[0, 1, 2]] * 5 and np.array_equal(uncertainty, prediction)


def test_the_thresholds_are_restored_after_a_failure():
    engine = Recorder(fails_at=1)
    with pytest.raises(RuntimeError, match="memory"):
        trace_engine(engine, [np.zeros((5, 1, 2, 2), np.float32)])
    assert engine.thresholds == (0.5, 0.25)
