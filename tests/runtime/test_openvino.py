"""OpenVINO: an extra; float32, and bfloat16 with thresholds of its own."""

import copy
import sys

import numpy as np
import pytest
import torch

from branchynet.errors import ArgumentError, UserError
from branchynet.exits.criteria import Entropy
from branchynet.exits.sweep import compare
from branchynet.exits.trace import Trace
from branchynet.runtime.catalogue import get_backend, make_engine
from branchynet.runtime.openvino import OpenVino, OpenVinoModel
from branchynet.runtime.to_onnx import export
from branchynet.runtime.trace_engine import trace_engine
from branchynet.runtime.verify import run_in_batches

SHAPE = (1, 12, 12)


@pytest.mark.parametrize("name", ["openvino", "openvino_bf16"])
def test_a_missing_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"pip install 'branchynet\[openvino\]'") as caught:
        get_backend(name).check()
    assert "\n" not in str(caught.value)


def test_a_precision_makes_a_name_and_says_whether_it_is_exact():
    assert [(made.name, made.exact) for made in map(OpenVino, ("f32", "bf16"))] == [
        ("openvino", True),
        ("openvino_bf16", False),
    ]
    with pytest.raises(ArgumentError, match=r"^precision=int8: it is one of f32, bf16$"):
        OpenVino("int8")


def test_a_model_reads_and_writes_the_memory_it_is_bound_to():
    pytest.importorskip("openvino")
    model = OpenVinoModel(export(torch.nn.Hardtanh(0, 9), (3,)), 1)
    for rows in (1, 4, 1, 2):
        x, y = np.zeros((rows, 3), np.float32), np.empty((rows, 3), np.float32)
        call = model.bind([x], [y])
        for value in (1, -1, 12):
            x[...] = value  # after it was bound
            call()
            assert np.array_equal(y, x.clip(0, 9))


def test_bfloat16_leaves_where_its_own_trace_says(network, images):
    pytest.importorskip("openvino")
    with torch.no_grad():
        exact = torch.stack([Entropy()(out) for out in network(torch.from_numpy(images))], dim=1).numpy()
    engine = make_engine("openvino_bf16", network, Entropy(), (1.0, 1.0), SHAPE)
    for batch in (1, 50):
        uncertainty, prediction = trace_engine(engine, [images], batch)
        assert np.abs(uncertainty - exact).max() < 0.3
        again = copy.copy(engine)
        again.thresholds = [float(np.quantile(uncertainty[:, n], 0.4)) for n in range(2)]
        outcome = run_in_batches(again, images, batch)
        trace = Trace(
            torch.from_numpy(uncertainty), torch.from_numpy(prediction), torch.zeros(len(images)).long()
        )
        found = compare(
            trace,
            again.thresholds,
            torch.from_numpy(outcome.exit_index),
            torch.from_numpy(outcome.prediction),
            tolerance=0,
        )
        if batch == 1:  # rows of a batch may round otherwise when others left
            assert found.differences == 0
        assert found.differences <= 0.05 * len(images)
