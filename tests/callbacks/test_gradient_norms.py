"""The norms that the callback logs are those of the gradients, averaged over the epoch's steps."""

import types

import pytest
import torch
from torch import nn

from branchynet.callbacks.gradient_norms import GradientNorms, norms, trunk_parameters
from branchynet.errors import ArgumentError
from branchynet.networks.branched import BranchedNetwork


class Module:
    """What of a LightningModule the callback touches."""

    def __init__(self, network):
        self.network, self.stage, self.logged = network, "joint", {}

    def log(self, name, value, sync_dist):
        self.logged[name] = float(value)


@pytest.fixture
def network():
    torch.manual_seed(0)
    lower = nn.Sequential()
    lower.add_module("conv1", nn.Conv2d(1, 2, 3))
    upper = nn.Sequential()
    upper.add_module("conv2", nn.Conv2d(2, 2, 3))
    side = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    last = nn.Sequential()
    last.add_module("flatten", nn.Flatten())
    last.add_module("fc", nn.Linear(8, 3))
    return BranchedNetwork([lower, upper], [side, last], ["conv1"])


def step(network, seed, weights):
    """A step's gradients by hand: the loss is the weighted sum of the exits' logits."""
    network.zero_grad()
    x = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    sum(w * out.sum() for w, out in zip(weights, network(x), strict=True)).backward()
    return network.segments[0].conv1.weight.grad.norm().item()


def test_the_mean_over_an_epochs_steps(network):
    callback, module = GradientNorms(first=1), Module(network)
    for epoch in range(2):  # an epoch does not remember the one before
        callback.on_train_epoch_start(None, module)
        by_hand = []
        for seed in range(2):
            by_hand.append(step(network, 10 * epoch + seed, (1.0, 1.0)))
            callback.on_before_optimizer_step(None, module, None)
        callback.on_train_epoch_end(None, module)
        assert set(module.logged) == {"joint/gradient_norm/conv1", "joint/gradient_norm/trunk"}
        assert module.logged["joint/gradient_norm/conv1"] == pytest.approx(sum(by_hand) / 2)


def test_the_trunk_has_its_own_layers_and_its_classifier_but_no_side_head(network):
    assert list(trunk_parameters(network)) == [
        *("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"),
        *("fc.weight", "fc.bias"),
    ]
    step(network, 0, (1.0, 1.0))
    found = norms(trunk_parameters(network), None)
    assert list(found) == ["conv1", "conv2", "fc", "trunk"]
    grads = [value.grad for value in trunk_parameters(network).values()]
    assert found["trunk"].item() == pytest.approx(sum(float((grad**2).sum()) for grad in grads) ** 0.5)


def test_a_layer_that_is_not_trained_has_none(network):
    step(network, 0, (1.0, 0.0))
    network.segments[1].zero_grad()
    assert list(norms(trunk_parameters(network), 2)) == ["conv1", "fc", "trunk"]
    network.requires_grad_(False).zero_grad()
    assert norms(trunk_parameters(network), 2) == {}


@pytest.mark.parametrize("first", [0, -1, 1.5, True])
def test_what_no_number_of_layers_is(first):
    with pytest.raises(ArgumentError, match="first"):
        GradientNorms(first)


def test_nothing_is_logged_without_a_step(network):
    callback, module = GradientNorms(), Module(network)
    callback.on_train_epoch_start(types.SimpleNamespace(), module)
    callback.on_train_epoch_end(types.SimpleNamespace(), module)
    assert module.logged == {}
