"""Modules as ONNX models: for any batch, with nothing of where they come from, and without noise."""

import logging
import warnings
from contextlib import nullcontext
from importlib import import_module

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from branchynet.runtime.session import load_session
from branchynet.runtime.to_onnx import any_batch, export, export_model

registration = import_module("torch.onnx._internal.exporter._registration")


class TwoOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3))

    def forward(self, x):
        y = self.layer(x)
        return y.argmax(dim=1), y


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return TwoOutputs()


@pytest.fixture(scope="module")
def content(module):
    """Exported in training mode: a model is one of evaluation all the same."""
    return export(module.train(), (1, 8, 8))


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_model_is_for_any_batch(size, module, content):
    session = load_session(content, 1)
    assert [each.name for each in session.get_inputs()] == ["x"]
    x = np.random.default_rng(0).standard_normal((size, 1, 8, 8)).astype(np.float32)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x))
    found = session.run(None, {"x": x})
    assert np.array_equal(found[0], expected[0].numpy())
    np.testing.assert_allclose(found[1], expected[1].numpy(), atol=1e-5)


def test_names_and_one_image_where_they_are_wanted(module):
    model = export_model(module, {"image": torch.zeros(1, 1, 8, 8)}, ["class", "logits"])
    onnx.checker.check_model(model, full_check=True)
    (given,) = model.graph.input
    assert given.name == "image" and [each.name for each in model.graph.output] == ["class", "logits"]
    assert [size.dim_value for size in given.type.tensor_type.shape.dim] == [1, 1, 8, 8]
    assert any_batch(torch.zeros(1, 4)) is None and list(any_batch(torch.zeros(3, 4))[0]) == [0]


class Sum(nn.Module):
    def forward(self, x, previous=None):
        return x.sum(dim=1) if previous is None else x.sum(dim=1) + previous


def test_several_inputs_share_their_batch():
    session = load_session(export(Sum(), (3, 2), (2,)), 1)
    assert [each.name for each in session.get_inputs()] == ["x", "x2"]
    for size in (1, 5):
        x, previous = np.ones((size, 3, 2), np.float32), np.full((size, 2), 4, np.float32)
        assert (session.run(None, {"x": x, "x2": previous})[0] == 7).all()


def test_no_node_says_where_it_comes_from(content):
    model = onnx.load_from_string(content)
    assert len(model.graph.node) > 2 and not any(node.metadata_props for node in model.graph.node)
    assert __file__.encode() not in content


def test_the_exporters_table_is_read_once_and_others_find_it_as_it_was(module, content, monkeypatch):
    """It takes as long as the rest of an export. Without it a model is the same."""
    table = vars(registration.ONNXRegistry)["from_torchlib"]
    with monkeypatch.context() as inside:
        inside.setattr(registration.onnxscript_apis, "get_torchlib_ops", lambda: pytest.fail("once more"))
        assert export(module, (1, 8, 8)) == content
        assert vars(registration.ONNXRegistry)["from_torchlib"] is table
    monkeypatch.setattr("branchynet.runtime.to_onnx.translations_kept", nullcontext)
    assert export(module, (1, 8, 8)) == content
    monkeypatch.undo()
    monkeypatch.delattr(registration.ONNXRegistry, "from_torchlib")  # as in another PyTorch
    with pytest.raises(AttributeError, match="from_torchlib"):
        export(module, (1, 8, 8))


def test_the_exporter_is_quiet_and_the_loggers_are_as_before(module, capfd):
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    loggers[0].setLevel(logging.DEBUG)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            export(module, (1, 8, 8))
        assert not [each for each in caught if issubclass(each.category, FutureWarning | DeprecationWarning)]
        assert [logger.level for logger in loggers] == [logging.DEBUG, *before[1:]]
    finally:
        loggers[0].setLevel(before[0])
    assert capfd.readouterr() == ("", "")
