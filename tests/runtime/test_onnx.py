"""ONNX Runtime: models that read and write the caller's memory."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from branchynet.runtime.catalogue import ENGINES
from branchynet.runtime.onnx import OnnxModel, OnnxRuntime
from branchynet.runtime.to_onnx import export


class Both(nn.Module):
    def forward(self, x):
        return x.argmax(dim=1), 2 * x


@pytest.fixture(scope="module")
def content():
    return export(Both(), (3,))


def test_a_model_reads_and_writes_the_memory_it_is_bound_to(content):
    model = OnnxModel(content, 1)
    for rows in (1, 4):
        x = np.zeros((rows, 3), np.float32)
        best, double = np.empty(rows, np.int64), np.empty((rows, 3), np.float32)
        call = model.bind([x], [best, double])
        for index in range(3):
            x[...] = 0
            x[:, index] = 5  # after it was bound
            call()
            assert best.tolist() == [index] * rows and np.array_equal(double, 2 * x)


def test_two_bindings_of_one_row_live_side_by_side(content):
    model = OnnxModel(content, 1)
    arrays = [
        (np.full((1, 3), value, np.float32), np.empty(1, np.int64), np.empty((1, 3), np.float32))
        for value in (1, 2)
    ]
    first, second = (model.bind([x], outputs) for x, *outputs in arrays)
    second()
    first()
    assert [outputs[-1][0, 0] for outputs in arrays] == [2, 4]


def test_every_output_has_to_be_bound(content):
    with pytest.raises(ValueError, match="zip"):
        OnnxModel(content, 1).bind([np.zeros((1, 3), np.float32)], [np.empty(1, np.int64)])


def test_the_engine_loads_its_models_on_the_threads_asked_for(content, monkeypatch):
    from branchynet.runtime import session

    asked, load = [], session.load_session

    def watched(model, threads):
        asked.append(threads)
        return load(model, threads)

    monkeypatch.setattr(session, "load_session", watched)
    assert isinstance(OnnxRuntime().load(3)(content), OnnxModel) and asked == [3]
    classify = ENGINES["onnxruntime"].classifier(nn.Sequential(nn.Flatten(), nn.Identity()), (1, 2, 2), 2)
    assert classify(torch.eye(4)[2].reshape(1, 1, 2, 2).numpy()) == 2 and asked == [3, 2]


def test_it_is_imported_where_it_is_used_and_not_before():
    """Users of other engines need none of it."""
    blocked = "onnxruntime", "onnx", "onnxscript", "openvino"
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        "from branchynet.runtime.catalogue import ENGINES; print(*ENGINES)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == list(ENGINES)
