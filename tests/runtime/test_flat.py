"""Modules as plain functions."""

import pytest
import torch
from torch import nn

from branchynet.networks.lrn import released_lrn
from branchynet.networks.resnet import BasicBlock
from branchynet.runtime.flat import flat
from branchynet.runtime.for_inference import for_inference

MAPS = {
    "convolution": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "depthwise, dilated": nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=4, bias=False),
    "another padding": nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    "pooling": nn.MaxPool2d(3, 2, 1, dilation=2, ceil_mode=True),
    "activation": nn.ReLU(),
    "another activation": nn.GELU(),
    "normalisation": nn.BatchNorm2d(4),
    "local normalisation": released_lrn(),
    "dropout": nn.Dropout(0.5),
    "flat": nn.Flatten(2),
    "nothing": nn.Identity(),
    "block": BasicBlock(4, 4),
    "in a row": nn.Sequential(
        nn.Conv2d(4, 3, 3),
        nn.ReLU(inplace=True),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(3, 2),
    ),
}


@pytest.mark.parametrize("layer", MAPS.values(), ids=MAPS.keys())
@pytest.mark.parametrize("form", [lambda module: module, for_inference], ids=["as it is", "for inference"])
@torch.inference_mode()
def test_it_computes_the_very_same(layer, form):
    torch.manual_seed(0)
    module = form(nn.Sequential(layer).eval())
    x = torch.randn(2, 4, 9, 9)
    given = x.clone()
    expected = module(x)
    found = flat(module)(x)
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()  # the next layer's memory layout
    assert torch.equal(x, given)


def test_no_module_is_called():
    module = nn.Sequential(
        nn.Conv2d(4, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 2)
    ).eval()
    calls = []
    for layer in module.modules():
        layer.register_forward_hook(lambda layer, *_: calls.append(layer))
    flat(module)(torch.randn(1, 4, 8, 8))
    assert calls == []


def test_a_module_that_cannot_be_traced_is_called_as_it_is():
    class Own(nn.Module):
        def forward(self, x):
            return x + 1 if x.sum() > 0 else x - 1

    module = Own()
    assert flat(module) is module


def test_weights_of_its_own_and_several_inputs_are_left_to_the_module():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return x * self.factor

    class Two(nn.Module):
        def forward(self, x, y=None):
            return x if y is None else x + y

    for module in (Scaled(), Two()):
        assert flat(module) is module
