"""Initial weights by name: their spread, their biases, and names that do not exist."""

import copy

import pytest
import torch
from torch import nn

from branchynet.errors import UserError
from branchynet.networks.alexnet import alexnet_cifar
from branchynet.networks.init import INITS, init_weights
from branchynet.networks.lenet import lenet5
from branchynet.networks.resnet import resnet_cifar


def trunk():
    """Convolutions with and without biases, one in groups, norms, nested blocks, linear layers."""
    block = nn.Sequential(nn.Conv2d(16, 64, 3, bias=False), nn.BatchNorm2d(64))
    return nn.Sequential(
        nn.Conv2d(3, 16, 5), block, nn.Conv2d(64, 64, 3, groups=4), nn.Flatten(), nn.Linear(640, 100)
    )


FAN_IN = {"0": 3 * 25, "1.0": 16 * 9, "2": 16 * 9, "4": 640}


@pytest.mark.parametrize(("init", "variance"), [("he", 2.0), ("original", 1.0)])
def test_a_normal_spread_by_fan_in_and_biases_of_zero(init, variance):
    torch.manual_seed(0)
    module = trunk()
    init_weights(module, init)
    for name, fan_in in FAN_IN.items():
        layer = module.get_submodule(name)
        # 1,200 weights and more: the deviation of a sample's deviation is at most 1/√2400 of it.
        scaled = layer.weight.detach() * (fan_in / variance) ** 0.5
        assert scaled.std().item() == pytest.approx(1, abs=4 / (2 * scaled.numel()) ** 0.5)
        assert scaled.mean().item() == pytest.approx(0, abs=4 / scaled.numel() ** 0.5)
        assert scaled.abs().max() > 2.5  # a uniform spread would end at √3
        assert layer.bias is None or not layer.bias.any()


def test_default_draws_nothing_and_others_leave_norms_alone():
    module = trunk()
    before = copy.deepcopy(module.state_dict())
    state = torch.get_rng_state()
    init_weights(module, "default")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    with torch.no_grad():
        module[1][1].weight.fill_(3), module[1][1].bias.fill_(2)
    init_weights(module, "he")
    assert (module[1][1].weight == 3).all() and (module[1][1].bias == 2).all()
    assert not torch.equal(module[1][0].weight, before["1.0.weight"])


@pytest.mark.parametrize("make", [lenet5, alexnet_cifar, lambda init: resnet_cifar(8, init=init)])
def test_every_trunk_draws_as_it_is_told(make):
    spread = {}
    for init in INITS:
        torch.manual_seed(0)
        layer = [m for m in make(init=init).modules() if isinstance(m, nn.Conv2d)][-1]
        spread[init] = layer.weight.std().item() * layer.weight[0].numel() ** 0.5
    assert spread == pytest.approx({"default": 3**-0.5, "he": 2**0.5, "original": 1.0}, rel=0.05)


@pytest.mark.parametrize(
    "make", [lenet5, alexnet_cifar, resnet_cifar, lambda init: init_weights(trunk(), init)]
)
def test_an_unknown_name_gets_one_line(make):
    with pytest.raises(UserError) as caught:
        make(init="xavier")
    message = str(caught.value)
    assert message == "init=xavier: it is one of default, he, original"
