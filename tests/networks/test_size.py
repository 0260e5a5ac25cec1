"""What a network takes at least, against what its layers hold, counted by hand."""

import torch
from torch import nn

from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.size import activation_bytes, weights_bytes


def network():
    segments = [nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), nn.Sequential(nn.Conv2d(4, 2, 3), nn.Flatten())]
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(4 * 4 * 4, 3)), nn.Linear(2 * 2 * 2, 3)]
    return BranchedNetwork(segments, heads, ["first"])


def test_weights():
    convolutions, heads = 4 * 9 + 4 + 2 * 4 * 9 + 2, 64 * 3 + 3 + 8 * 3 + 3
    assert weights_bytes(network()) == 4 * (convolutions + heads)
    # A norm's statistics, too, and its counter.
    assert weights_bytes(nn.BatchNorm2d(5)) == 4 * (4 * 5 + 1)


def test_activations_of_layers_with_parameters():
    with torch.device("meta"):
        assert activation_bytes(network(), (1, 6, 6)) == 4 * (4 * 16 + 2 * 4 + 3 + 3)


def test_nothing_is_laid_out():
    with torch.device("meta"):
        large = nn.Linear(10**9, 10**6)
        small = BranchedNetwork([nn.Flatten()], [large], [])
        assert weights_bytes(small) > 10**15 and activation_bytes(small, (1, 10**5, 10**4)) == 4 * 10**6
