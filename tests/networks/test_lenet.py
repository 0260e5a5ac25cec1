"""LeNet and B-LeNet's config, to the letter of the released code."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from branchynet.networks.attach import attach
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
