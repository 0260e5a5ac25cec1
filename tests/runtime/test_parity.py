"""Engines against the offline sweep: a whole data set, at every batch size from 1 to 257."""

import copy

import numpy as np
import pytest
import torch

from branchynet.exits.criteria import entropy
from branchynet.exits.trace import compute_trace
from branchynet.runtime.engine import make_engine
from branchynet.runtime.trace_engine import trace_engine
from branchynet.runtime.verify import compare, run_in_batches

SHAPE = (1, 12, 12)


@pytest.fixture(scope="module")
def trace(network, images):
    labels = torch.zeros(len(images), dtype=torch.int64)
    return compute_trace(network, [(torch.from_numpy(images), labels)], entropy)


def test_every_batch_size_leaves_where_the_sweep_says(engine_name, made, images, trace):
    """Thresholds are observed uncertainties, so that one sample lies on each of them."""
    engine = copy.copy(made)
    engine.thresholds = [
        float(trace.uncertainty[:, n].quantile(0.4, interpolation="lower")) for n in range(2)
    ]
    uncertainty, prediction = trace.uncertainty.numpy(), trace.prediction.numpy()
    unexplained = 0
    for size in range(1, len(images) + 1):
        outcome = run_in_batches(engine, images, size)
        found = compare(outcome, uncertainty, prediction, engine.thresholds)
        assert 1 <= found.near_threshold <= 5, "those on a threshold, and who comes within 1e-5 of it"
        assert found.differences - found.unexplained <= found.near_threshold
        unexplained += found.unexplained
    assert unexplained <= (0 if engine_name == "torch" else len(images) ** 2 // 1000)


def test_the_trace_of_an_engine_is_the_networks(made, images, trace):
    engine = copy.copy(made)
    engine.thresholds = (0.5, 0.25)
    uncertainty, prediction = trace_engine(engine, images, batch=100)
    np.testing.assert_allclose(uncertainty, trace.uncertainty.numpy(), atol=1e-5)
    assert np.array_equal(prediction, trace.prediction.numpy())
    assert engine.thresholds == (0.5, 0.25)


def test_bfloat16_leaves_where_its_own_trace_says(network, images, trace):
    pytest.importorskip("openvino")
    engine = make_engine("openvino_bf16", network, entropy, (1.0, 1.0), SHAPE)
    for batch in (1, 50):
        uncertainty, prediction = trace_engine(engine, images, batch)
        assert np.abs(uncertainty - trace.uncertainty.numpy()).max() < 0.3
        again = copy.copy(engine)
        again.thresholds = [float(np.quantile(uncertainty[:, n], 0.4)) for n in range(2)]
        outcome = run_in_batches(again, images, batch)
        found = compare(outcome, uncertainty, prediction, again.thresholds, tolerance=0)
        if batch == 1:  # rows of a batch may round otherwise when others left
            assert found.differences == 0
        assert found.differences <= 0.05 * len(images)
