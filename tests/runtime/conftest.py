"""A small network, images, criteria with parameters, and the slow loop that engines have to agree with.

tests/exports uses these fixtures, too.
"""

import math
from copy import copy
from functools import cache
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from branchynet.exits.combining import answers
from branchynet.exits.criteria import Criterion, Entropy, MaxProbability, for_exits, judge
from branchynet.exits.learned import Mlp
from branchynet.exits.openmax import OpenMax
from branchynet.exits.temperature import Temperature
from branchynet.networks.attach import attach
from branchynet.runtime.catalogue import ENGINES, make_engine

SHAPE = (1, 12, 12)
ENTROPIES = (Entropy(),) * 3
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is an optional extra")


@pytest.fixture(
    scope="session", params=["torch", "onnxruntime", pytest.param("openvino", marks=needs_openvino)]
)
def backend(request):
    """Every engine that computes in float32 and is quickly made."""
    return ENGINES[request.param]


@pytest.fixture(scope="session", params=["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def host_backend(request):
    """Those of them that run one exported model per segment."""
    return ENGINES[request.param]


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
def engine_of(network):
    """A function: the network on an engine, with entropy, made once."""
    return cache(lambda backend: make_engine(backend, network, Entropy(), (1.0, 1.0), SHAPE))


@pytest.fixture
def engine(backend, engine_of):
    """A copy: its thresholds may be set."""
    return copy(engine_of(backend))


@pytest.fixture
def host_engine(host_backend, engine_of):
    """Likewise, of those with one exported model per segment."""
    return copy(engine_of(host_backend))


class Seeing(Criterion):
    """What a layer of its own makes of the features, less how large the logits are."""

    name, unit = "seeing", "0 to 1"
    learns = of_features = True

    def prepare(self, num_classes, shape):
        self.layer = nn.Linear(math.prod(shape), 1)

    def forward(self, logits, features):
        return (self.layer(features.flatten(1))[:, 0] - 0.1 * logits.amax(dim=1)).sigmoid()


class Remembering(Criterion):
    """The mean entropy of the exits so far, times what each has learned, and a little of the features."""

    name, unit = "remembering", "nats"
    learns = of_features = of_history = True

    def prepare(self, num_classes, shape):
        self.register_buffer("factor", torch.ones(()))

    def forward(self, logits, features, state):
        entropy = self.factor * Entropy()(logits) + 0.1 * features.flatten(1).abs().amax(dim=1)
        now = torch.stack([entropy, torch.ones_like(entropy)], dim=1)
        if state is not None:
            now = now + state
        return now[:, 0] / now[:, 1], now


class Doubting(Criterion):
    """The least probability of the best class among all exits so far: the same object at all exits."""

    name, unit, of_history = "doubting", "0 to 1", True

    def forward(self, logits, state):
        doubt = 1 - logits.float().softmax(dim=1).amax(dim=1, keepdim=True)
        state = doubt if state is None else torch.maximum(doubt, state)
        return state[:, 0], state


def fitted(network):
    """Ours that learn, one kind an exit, fitted to random images: an exit is right where it sees much."""
    x = torch.randn(600, *SHAPE, generator=torch.Generator().manual_seed(1))
    made = (Temperature(MaxProbability()), Mlp(["softmax", "sorted_logits", "features"]), OpenMax(alpha=2))
    made[1].decays, made[1].rounds = (0.01,), 2
    with torch.no_grad():
        told = zip(made, *network.with_features(x), strict=True)
    for own, logits, features in told:
        seen = features.flatten(1).mean(dim=1)
        answer = logits.argmax(dim=1)
        own.prepare(10, tuple(features.shape[1:]))
        label = torch.where(seen > seen.quantile(0.4), answer, (answer + 1) % 10)
        own.fit(logits, label, features if own.of_features else None)
        own.requires_grad_(False).eval()
    assert made[1].net[-1].weight.any() and made[2].known.sum() > 2, "they have learned something"
    return made


@pytest.fixture(scope="session", params=[Seeing, Remembering, fitted])
def own_criteria(request, network):
    """Three criteria with parameters, which differ from exit to exit."""
    if request.param is fitted:
        return fitted(network)
    torch.manual_seed(2)
    criteria = for_exits(request.param(), network.feature_shapes(SHAPE), 10)
    for n, criterion in enumerate(criteria):
        for tensor in criterion.state_dict().values():
            tensor.mul_(n + 2)
    return criteria


@pytest.fixture(scope="session")
def thirds():
    """A function: thresholds that send about a third of 257 images out at each exit, and none near them."""

    @torch.no_grad()
    def find(network, criteria, x):
        logits, features = network.with_features(torch.from_numpy(x))
        told = zip(criteria, answers(logits, network.shares), features, strict=True)
        found, state = [], None
        for each in told:
            uncertainty, state = judge(*each, state)
            found.append(uncertainty)
        first, second, _ = found
        rising = first.sort().values
        rest = second[first >= rising[85]].sort().values
        return float(rising[84] + rising[85]) / 2, float(rest[84] + rest[85]) / 2

    return find


@pytest.fixture(scope="session")
def middling(network, images, thirds):
    """The thirds of the images by entropy."""
    return thirds(network, ENTROPIES, images)


@pytest.fixture(scope="session")
def figure_2():
    """`BranchyNetFastInference(x, T)`, line by line, a sample at a time; y averaged where there are shares."""

    @torch.no_grad()
    def run(network, x, thresholds, criteria=ENTROPIES):
        answers = []
        for sample in torch.from_numpy(x):
            z = sample[None]
            before, state = torch.zeros(()), None
            for n in range(network.num_exits):
                z = network.segments[n](z)
                y = network.heads[n](z)
                if network.shares:
                    before = y = (1 - network.shares[n]) * y + network.shares[n] * before
                e, state = judge(criteria[n], y, z, state)
                e = np.float32(e.item())
                if n == network.num_exits - 1 or e < np.float32(thresholds[n]):
                    answers.append((int(y.argmax()), n, e))
                    break
        prediction, exits, uncertainty = zip(*answers, strict=True)
        return np.array(prediction), np.array(exits), np.array(uncertainty)

    return run
