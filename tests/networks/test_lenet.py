"""LeNet and B-LeNet's config, to the letter of the released code."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from branchynet.errors import UserError
from branchynet.networks.attach import attach
from branchynet.networks.heads import DEFAULTS
from branchynet.networks.lenet import lenet5

CONFIG = Path(__file__).parents[2] / "conf" / "model" / "b_lenet.yaml"


def macs(module, x):
    with FlopCounterMode(display=False) as counter:
        y = module(x)
    return counter.get_total_flops() // 2, y


def test_layers_as_released():
    layers = dict(lenet5().named_children())
    shapes = {
        name: tuple(m.weight.shape) for name, m in layers.items() if isinstance(m, nn.Conv2d | nn.Linear)
    }
    assert shapes == {
        "conv1": (5, 1, 5, 5), "conv2": (10, 5, 5, 5), "conv3": (20, 10, 5, 5), "fc1": (84, 720), "fc2": (10, 84),
    }  # fmt: skip
    assert all(m.bias is not None for m in layers.values() if hasattr(m, "weight"))


def test_b_lenet_counts_the_macs_worked_out_by_hand():
    config = OmegaConf.to_container(OmegaConf.load(CONFIG))
    trunk = {key: value for key, value in config["trunk"].items() if key != "_target_"}
    network = attach(lenet5(**trunk), config["exits"], (1, 28, 28), 10).to("meta")
    x = torch.zeros(1, 1, 28, 28, device="meta")
    # Pixels × kernel × channels in × out; sides: 28 → 30, pooled 15 → 17, pooled 9 → 11, pooled 6.
    conv1, conv2, conv3 = 30**2 * 25 * 1 * 5, 17**2 * 25 * 5 * 10, 11**2 * 25 * 10 * 20
    fully_connected = 720 * 84 + 84 * 10
    trunk_macs, _ = macs(network.trunk(), x)
    assert trunk_macs == conv1 + conv2 + conv3 + fully_connected == 1_140_070
    tap_macs, tap = macs(network.segments[0], x)
    head_macs, _ = macs(network.heads[0], tap)
    assert tap_macs == conv1
    assert head_macs == 15**2 * 9 * 5 * 10 + 640 * 10 == 107_650


@pytest.mark.parametrize(("channels", "classes", "size"), [(3, 7, 32), (1, 10, 20)])
def test_other_sizes(channels, classes, size):
    assert lenet5(channels, classes, size)(torch.randn(2, channels, size, size)).shape == (2, classes)


def test_the_config_names_every_key_of_an_exit_and_comments_each_key():
    (exit_1,) = OmegaConf.to_container(OmegaConf.load(CONFIG))["exits"]
    # So that no override needs a plus sign; LeNet has no tokens.
    assert set(exit_1) == {"after", *DEFAULTS} - {"tokens"}
    lines = [line for line in CONFIG.read_text().splitlines()[1:] if line.strip()]
    assert [line for line in lines if "#" not in line] == []


def test_original_weights_have_a_standard_deviation_of_one_over_root_fan_in():
    torch.manual_seed(0)
    trunk = lenet5(init="original")
    for layer, fan_in in ((trunk.conv3, 250), (trunk.fc1, 720), (trunk.fc2, 84)):
        assert layer.weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.1)
        assert not layer.bias.any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"in_channels": -1}, ["in_channels=-1", "above 0"]),
        ({"num_classes": 0}, ["num_classes=0", "above 0"]),
        ({"size": 28.0}, ["size=28.0", "above 0"]),
        ({"init": "chainer"}, ["init=chainer", "default, he, original"]),
    ],
)
def test_impossible_arguments_get_one_line(arguments, words):
    with pytest.raises(UserError) as caught:
        lenet5(**arguments)
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words)
