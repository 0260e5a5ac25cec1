"""A small network, images, and the slow loop that every engine has to agree with."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from branchynet.exits.criteria import entropy
from branchynet.networks.attach import attach
from branchynet.runtime.engine import make_engine

SHAPE = (1, 12, 12)
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is an optional extra")


@pytest.fixture(
    scope="session", params=["torch", "onnxruntime", pytest.param("openvino", marks=needs_openvino)]
)
def engine_name(request):
    """Every engine that computes in float32 and is quickly made."""
    return request.param


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
def made(engine_name, network):
    """The engine, made once: copy it before its thresholds are set."""
    return make_engine(engine_name, network, entropy, (1.0, 1.0), SHAPE)


@pytest.fixture(scope="session")
def middling(network, images):
    """Thresholds that send about a third of the samples out at each exit, and no sample near them."""
    with torch.no_grad():
        uncertainty = torch.stack([entropy(out) for out in network(torch.from_numpy(images))], 1)
    first = uncertainty[:, 0].sort().values
    rest = uncertainty[uncertainty[:, 0] >= first[85], 1].sort().values
    return float(first[84] + first[85]) / 2, float(rest[84] + rest[85]) / 2


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
