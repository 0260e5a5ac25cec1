"""A small network, images, and the slow loop that every engine has to agree with."""

import numpy as np
import pytest
import torch
from torch import nn

from branchynet.exits.criteria import entropy
from branchynet.networks.attach import attach

SHAPE = (1, 12, 12)


@pytest.fixture(scope="session")
def network():
    """Three exits, one of them on the input; with batch norm and dropout, which behave otherwise in training."""
    torch.manual_seed(0)
    trunk = nn.Sequential()
    for name, layer in {
        "conv1": nn.Conv2d(1, 6, 3, padding=1),
        "norm1": nn.BatchNorm2d(6),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(2, 2, ceil_mode=True),
        "flatten": nn.Flatten(),
        "drop": nn.Dropout(0.5),
        "fc": nn.Linear(216, 10),
    }.items():
        trunk.add_module(name, layer)
    exits = [{"after": "input", "fc": [8]}, {"after": "relu1", "convs": [4], "norm": "batch", "pool": 2}]
    made = attach(trunk, exits, SHAPE, 10)
    with torch.no_grad():
        made.train()(torch.randn(64, *SHAPE))  # statistics that are not the initial ones
        for head in made.heads:
            head[-1].weight.mul_(6) if isinstance(head, nn.Sequential) else head.fc.weight.mul_(6)
    return made.eval()


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(0).standard_normal((257, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="session")
def figure_2():
    """`BranchyNetFastInference(x, T)`, line by line, a sample at a time."""

    @torch.no_grad()
    def run(network, x, thresholds):
        answers = []
        for sample in torch.from_numpy(x):
            z = sample[None]
            for n in range(network.num_exits):
                z = network.segments[n](z)
                y = network.heads[n](z)
                e = np.float32(entropy(y).item())
                if n == network.num_exits - 1 or e < np.float32(thresholds[n]):
                    answers.append((int(y.argmax()), n, e))
                    break
        prediction, exits, uncertainty = zip(*answers, strict=True)
        return np.array(prediction), np.array(exits), np.array(uncertainty)

    return run
