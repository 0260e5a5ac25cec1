"""AlexNet and the two B-AlexNets, to the letter of the released code and of the paper's text."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F

from branchynet.errors import UserError
from branchynet.networks.alexnet import alexnet_cifar
from branchynet.networks.attach import attach, legal_places
from branchynet.runtime.costs import count_macs

CONF = Path(__file__).parents[2] / "conf" / "model"
SHAPE = (3, 32, 32)
# Pixels × kernel × channels in × out.
CONVS = [
    32**2 * 25 * 3 * 32,
    16**2 * 25 * 32 * 64,
    8**2 * 9 * 64 * 96,
    8**2 * 9 * 96 * 96,
    8**2 * 9 * 96 * 64,
]
TRUNK = sum(CONVS) + 1024 * 256 + 256 * 128 + 128 * 10


def branched(name):
    """(config, network) of conf/model/<name>.yaml."""
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    arguments = {key: value for key, value in config["trunk"].items() if key != "_target_"}
    return config, attach(alexnet_cifar(**arguments), config["exits"], SHAPE, 10)


def heads_alone(macs):
    """MACs of each side head."""
    return tuple(alone - trunk for alone, trunk in zip(macs.static, macs.trunk_only, strict=True))[:-1]


def gain(baseline, costs, rates):
    """The baseline's cost over the mean cost at these exit rates in %."""
    return 100 * baseline / sum(rate * cost for rate, cost in zip(rates, costs, strict=True))


def test_layers_as_released():
    layers = [(name, type(m).__name__) for name, m in alexnet_cifar().named_children()]
    assert [kind for _, kind in layers] == [
        "Conv2d", "ReLU", "MaxPool2d", "LocalResponseNorm",
        "Conv2d", "ReLU", "MaxPool2d", "LocalResponseNorm",
        "Conv2d", "ReLU", "Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d", "Flatten",
        "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear",
    ]  # fmt: skip
    trunk = alexnet_cifar()
    weighted = [m for m in trunk if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [tuple(m.weight.shape) for m in weighted] == [
        (32, 3, 5, 5), (64, 32, 5, 5), (96, 64, 3, 3), (96, 96, 3, 3), (64, 96, 3, 3),
        (256, 1024), (128, 256), (10, 128),
    ]  # fmt: skip
    assert all(m.bias is not None and not m.bias.any() for m in weighted)
    assert [m.p for m in trunk if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    norms = [m for m in trunk if isinstance(m, nn.LocalResponseNorm)]
    assert [(m.size, m.alpha, m.beta, m.k) for m in norms] == [(3, 1.5e-4, 0.75, 2.0)] * 2


def test_the_trunk_is_the_same_written_as_functions():
    torch.manual_seed(0)
    trunk = alexnet_cifar().eval()
    x = y = torch.randn(2, *SHAPE)
    for n, padding in enumerate((2, 2, 1, 1, 1), start=1):
        layer = trunk.get_submodule(f"conv{n}")
        y = F.relu(F.conv2d(y, layer.weight, layer.bias, padding=padding))
        if n in (1, 2, 5):
            y = F.max_pool2d(y, 3, 2, ceil_mode=True)
        if n in (1, 2):
            y = F.local_response_norm(y, 3, 1.5e-4, 0.75, 2.0)
    y = F.relu(F.linear(y.flatten(1), trunk.fc6.weight, trunk.fc6.bias))
    y = F.relu(F.linear(y, trunk.fc7.weight, trunk.fc7.bias))
    torch.testing.assert_close(trunk(x), F.linear(y, trunk.fc8.weight, trunk.fc8.bias))


def test_the_released_branches_count_the_macs_worked_out_by_hand():
    config, network = branched("b_alexnet_released")
    assert network.places == ("conv2", "conv3") and config["trunk"]["init"] == "original"
    macs = count_macs(network, SHAPE)
    head_1 = 8**2 * 9 * 64 * 32 + 8**2 * 9 * 32 * 32 + 512 * 10
    head_2 = 4**2 * 9 * 96 * 32 + 128 * 10
    assert macs.baseline == TRUNK == pytest.approx(28.25e6, abs=5e3)
    assert heads_alone(macs) == (head_1, head_2) == pytest.approx((1.77e6, 0.44e6), abs=5e3)
    assert macs.trunk_only == (sum(CONVS[:2]), sum(CONVS[:3]), TRUNK)
    # At Table I's exit rates, heads counted and the trunk alone.
    rates = (65.6, 25.2, 9.2)
    assert gain(macs.baseline, macs.exits, rates) == pytest.approx(1.44, abs=5e-3)
    assert gain(macs.baseline, macs.trunk_only, rates) == pytest.approx(1.60, abs=5e-3)


def test_the_texts_branches_have_the_same_layers_after_the_first_two_convolutions():
    config, network = branched("b_alexnet")
    released, other = branched("b_alexnet_released")
    assert network.places == ("conv1", "conv2")
    assert [[type(m) for m in head] for head in network.heads[:-1]] == [
        [type(m) for m in head] for head in other.heads[:-1]
    ]
    for ours, theirs in zip(config["exits"], released["exits"], strict=True):
        assert {**ours, "after": None} == {**theirs, "after": None}
    macs = count_macs(network, SHAPE)
    head_1 = 16**2 * 9 * 32 * 32 * 2 + 2048 * 10
    head_2 = 8**2 * 9 * 64 * 32 + 512 * 10
    assert macs.baseline == TRUNK
    assert heads_alone(macs) == (head_1, head_2) == pytest.approx((4.74e6, 1.18e6), abs=5e3)
    assert gain(macs.baseline, macs.exits, (65.6, 25.2, 9.2)) == pytest.approx(2.13, abs=5e-3)


def test_the_released_heads_layer_by_layer():
    _, network = branched("b_alexnet_released")
    network.eval()
    # Pooling before ReLU gives the same numbers as after it.
    first, second = torch.randn(2, 64, 16, 16), torch.randn(2, 96, 8, 8)
    for x, head, count in ((first, network.heads[0], 2), (second, network.heads[1], 1)):
        *convs, linear = (m for m in head if isinstance(m, nn.Conv2d | nn.Linear))
        assert len(convs) == count
        y = F.max_pool2d(F.relu(x), 3, 2, ceil_mode=True)
        y = F.local_response_norm(y, 3, 1.5e-4, 0.75, 2.0)
        for conv in convs:
            y = F.relu(F.conv2d(y, conv.weight, conv.bias, padding=1))
        y = F.max_pool2d(y, 3, 2, ceil_mode=True)
        torch.testing.assert_close(head(x), F.linear(y.flatten(1), linear.weight, linear.bias))


@pytest.mark.parametrize("size", range(8, 41))
def test_every_size_of_image_fits(size):
    trunk = alexnet_cifar(1, 7, size, init="default").to("meta")
    assert trunk(torch.zeros(2, 1, size, size, device="meta")).shape == (2, 7)


def test_its_places_as_documented():
    places = legal_places(alexnet_cifar())
    assert places[-3:] == ["fc7", "relu7", "dropout7"]
    documented = (alexnet_cifar.__doc__ or "").partition("Its places: ")[2].partition(".")[0]
    named = [place for place in documented.replace("…", ",").replace("\n", " ").split(",")]
    assert {place.strip() for place in named} - {""} <= set(places)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"in_channels": 0}, ["in_channels=0", "above 0"]),
        ({"num_classes": 1.5}, ["num_classes=1.5", "above 0"]),
        ({"size": "32"}, ["size=32", "above 0"]),
        ({"size": 7}, ["size=7", "at least 8"]),
        ({"dropout": 1}, ["dropout=1", "between 0 and 1"]),
        ({"dropout": -0.1}, ["dropout=-0.1", "between 0 and 1"]),
        ({"dropout": None}, ["dropout=None", "between 0 and 1"]),
        ({"dropout": True}, ["dropout=True", "between 0 and 1"]),
        ({"dropout": float("nan")}, ["dropout=nan", "between 0 and 1"]),
    ],
)
def test_impossible_arguments_get_one_line(arguments, words):
    with pytest.raises(UserError) as caught:
        alexnet_cifar(**arguments)
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words)


def test_dropout_is_settable_and_off_in_evaluation():
    trunk, x = alexnet_cifar(size=8, dropout=0), torch.randn(2, 3, 8, 8)
    # Without dropout only our normalisation tells training from evaluation, and that to rounding.
    torch.testing.assert_close(trunk.train()(x), trunk.eval()(x))
    trunk = alexnet_cifar(size=8, dropout=0.9).train()
    assert not torch.allclose(trunk(x), trunk(x))
    assert torch.equal(trunk.eval()(x), trunk(x))
