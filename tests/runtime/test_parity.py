"""Engines against the offline sweep: a whole data set, at every batch size from 1 to 257."""

import pytest
import torch

from branchynet.exits.criteria import Entropy
from branchynet.exits.sweep import compare
from branchynet.exits.trace import compute_trace
from branchynet.runtime.steps import exit_steps
from branchynet.runtime.verify import run_in_batches


@pytest.fixture(scope="module")
def trace(network, images):
    labels = torch.zeros(len(images), dtype=torch.int64)
    return compute_trace(exit_steps(network, [Entropy()] * 3), [torch.from_numpy(images)], labels)


def test_every_batch_size_leaves_where_the_sweep_says(backend, engine, images, trace):
    """Thresholds are observed uncertainties, so that one sample lies on each of them."""
    engine.thresholds = [
        float(trace.uncertainty[:, n].quantile(0.4, interpolation="lower")) for n in range(2)
    ]
    unexplained = 0
    for size in range(1, len(images) + 1):
        outcome = run_in_batches(engine, images, size)
        found = compare(
            trace,
            engine.thresholds,
            torch.from_numpy(outcome.exit_index),
            torch.from_numpy(outcome.prediction),
        )
        assert 1 <= found.near_threshold <= 5, "those on a threshold, and who comes within 1e-5 of it"
        assert found.differences - found.unexplained <= found.near_threshold
        unexplained += found.unexplained
    assert unexplained <= (0 if backend.name == "torch" else len(images) ** 2 // 1000)
