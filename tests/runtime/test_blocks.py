"""Sums of features that lie otherwise: turned once, and nothing else changed."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from branchynet.exits.criteria import MaxProbability
from branchynet.networks.attach import attach
from branchynet.networks.branched import undivided
from branchynet.networks.graph import split, traced
from branchynet.networks.resnet import resnet_cifar
from branchynet.runtime.blocks import keep_in_blocks
from branchynet.runtime.catalogue import make_engine
from branchynet.runtime.for_inference import frozen
from branchynet.runtime.session import load_session
from branchynet.runtime.to_onnx import export


def prepared(module, shape):
    model = onnx.load_from_string(export(module, shape))
    before = len(model.graph.node)
    model = keep_in_blocks(model)
    onnx.checker.check_model(model, full_check=True)
    return model, len(model.graph.node) - before


def ran(model, x):
    return load_session(model.SerializeToString(), 1).run(None, {"x": x})[0]


@pytest.fixture(scope="module")
def trunk():
    torch.manual_seed(0)
    return frozen(resnet_cifar(depth=14))


def rest_behind(trunk, place):
    graph, outputs = traced(trunk, {place.split(".")[0]})
    return split(trunk, graph, [outputs[place][0]])[1]


def test_both_shortcuts_that_are_padded_are_turned(trunk):
    x = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    model, added = prepared(trunk, x.shape[1:])
    assert added == 2
    np.testing.assert_allclose(ran(model, x), trunk(torch.from_numpy(x)).detach().numpy(), atol=1e-5)


def test_a_segment_that_begins_with_a_residual_block_turns_its_input(trunk):
    rest = rest_behind(trunk, "stage1.0")
    x = np.random.default_rng(0).standard_normal((3, 16, 32, 32)).astype(np.float32)
    model, added = prepared(rest, x.shape[1:])
    assert added == 3 and model.graph.node[0].op_type == "MaxPool"
    np.testing.assert_allclose(ran(model, x), rest(torch.from_numpy(x)).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("channels", [6, 16])
def test_nothing_is_done_without_a_sum_or_with_channels_that_fill_no_block(channels):
    plain = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
    assert prepared(plain, (channels, 8, 8))[1] == 0

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = plain

        def forward(self, x):
            return x + self.inside(x)

    assert prepared(Residual(), (channels, 8, 8))[1] == (channels == 16)


def test_onnx_runtime_adds_inside_the_convolutions(trunk, tmp_path):
    """What it is for: no sum is left that is computed plane by plane."""
    import onnxruntime as ort

    def optimised(model):
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 3
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = onnx.load(tmp_path / "optimised.onnx").graph.node
        if not any(node.domain == "com.microsoft.nchwc" for node in found):
            pytest.skip("this processor has no blocks")
        return [node.op_type for node in found].count("Add")

    rest = rest_behind(trunk, "stage1.0")
    plain = onnx.load_from_string(export(rest, (16, 32, 32)))
    assert optimised(plain) > 0
    assert optimised(keep_in_blocks(plain)) == 0


def test_the_engine_gives_what_pytorch_gives(trunk):
    torch.manual_seed(1)
    network = attach(trunk, [{"after": "stage1.0", "global_pool": True}], (3, 32, 32), 10).eval()
    x = np.random.default_rng(0).standard_normal((9, 3, 32, 32)).astype(np.float32)
    for made, thresholds in ((network, (0.0,)), (undivided(trunk), ())):
        engines = [
            make_engine(name, made, MaxProbability(), thresholds, (3, 32, 32))
            for name in ("torch", "onnxruntime")
        ]
        for size in (1, 9):
            first, second = (engine.run(x[:size]) for engine in engines)
            assert np.array_equal(first.prediction, second.prediction)
            np.testing.assert_allclose(first.uncertainty, second.uncertainty, atol=1e-5)
