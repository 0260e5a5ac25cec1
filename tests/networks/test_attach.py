"""Any backbone becomes a branched network, and impossible exits get one line."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18
from trunks import small_vgg11

from branchynet.errors import UserError
from branchynet.networks.attach import attach, legal_places
from branchynet.networks.lenet import lenet5


def attached(case):
    trunk, places, shape, classes = case
    return attach(trunk, [{"after": place, "global_pool": True} for place in places], shape, classes)


def test_the_last_exit_and_the_baseline_are_the_trunk(case):
    trunk, places, shape, classes = case
    network, x = attached(case).eval(), torch.randn(3, *shape)
    with torch.no_grad():
        logits, expected = network(x), trunk(x)
        assert [tuple(out.shape) for out in logits] == [(3, classes)] * (len(places) + 1)
        assert torch.equal(logits[-1], expected) and torch.equal(network.trunk()(x), expected)
    assert all(out.isfinite().all() for out in logits)
    assert network.places == tuple(places)


def test_the_trunks_names_and_parameters_are_its_own_wherever_it_is_cut(case):
    trunk = case[0]
    network = attached(case)
    state = network.trunk_state_dict()
    assert set(state) == set(trunk.state_dict())
    assert all(tensor.data_ptr() == state[name].data_ptr() for name, tensor in trunk.state_dict().items())


def test_every_parameter_gets_a_gradient(case):
    network = attached(case).train()
    x = torch.randn(4, *case[2])
    sum(out.square().sum() for out in network(x)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    # ReLUs and hard activations may shut a layer off; most of them are alive.
    alive = [bool(p.grad.abs().sum() > 0) for p in network.parameters()]
    assert sum(alive) > 0.9 * len(alive)


def test_lenet_cut_by_hand():
    torch.manual_seed(0)
    trunk = lenet5()
    exit_1 = {"after": "conv1", "before": ["pool2", "relu"], "convs": [10], "pool": 2}
    network, x = attach(trunk, [exit_1], (1, 28, 28), 10), torch.randn(2, 1, 28, 28)
    first, last = network(x)
    conv, linear = (m for m in network.heads[0].modules() if isinstance(m, nn.Conv2d | nn.Linear))
    tapped = F.conv2d(x, trunk.conv1.weight, trunk.conv1.bias, padding=3)
    y = F.relu(F.max_pool2d(tapped, 2, 2, ceil_mode=True))
    # As released: convolution, pooling, ReLU, classifier.
    y = F.relu(F.max_pool2d(F.conv2d(y, conv.weight, conv.bias, padding=1), 2, 2, ceil_mode=True))
    torch.testing.assert_close(first, linear(y.flatten(1)))
    z = F.relu(F.max_pool2d(tapped, 2, 2, ceil_mode=True))
    for layer in (trunk.conv2, trunk.conv3):
        z = F.relu(F.max_pool2d(F.conv2d(z, layer.weight, layer.bias, padding=3), 2, 2, ceil_mode=True))
    torch.testing.assert_close(last, trunk.fc2(trunk.fc1(z.flatten(1))))


def test_trunk_weights_do_not_depend_on_the_exits():
    states = []
    for exits in ([{"after": "input", "fc": [7]}], [{"after": "conv1"}, {"after": "relu3", "convs": [4]}]):
        torch.manual_seed(5)
        states.append(attach(lenet5(), exits, (1, 28, 28), 10).trunk_state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_legal_places_are_the_layers_before_the_classifier():
    assert legal_places(lenet5()) == (
        [
            "input",
            "conv1",
            "pool1",
            "relu1",
            "conv2",
            "pool2",
            "relu2",
            "conv3",
            "pool3",
            "relu3",
            "flatten",
            "fc1",
        ]
    )
    for place in legal_places(lenet5()):
        network = attach(lenet5(), [{"after": place}], (1, 28, 28), 10)
        assert [tuple(out.shape) for out in network(torch.randn(2, 1, 28, 28))] == [(2, 10)] * 2


def test_attaching_leaves_the_trunk_as_it_was(case):
    trunk = case[0].train()  # the mode in which batch norm would note what it sees
    before = copy.deepcopy(trunk)
    attached(case).train()
    assert [name for name, _ in trunk.named_modules()] == [name for name, _ in before.named_modules()]
    own = trunk.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in before.state_dict().items())


@pytest.mark.parametrize(
    "place", ["input", "features.5", "features", "avgpool", "classifier.0", "classifier.5"]
)
def test_the_last_head_is_the_last_layer_wherever_the_cut_is(place):
    trunk = small_vgg11().eval()
    network = attach(trunk, [{"after": place}], (3, 32, 32), 5)
    assert set(network.heads[-1].state_dict()) == {"classifier.6.weight", "classifier.6.bias"}


def test_a_container_is_the_place_of_its_last_layer():
    trunk = resnet18(weights=None, num_classes=5).eval()
    x, logits = torch.randn(2, 3, 32, 32), []
    for places in (["layer1.0", "layer1"], ["layer1.0", "layer1.1"]):
        torch.manual_seed(3)
        exits = [{"after": place, "global_pool": True} for place in places]
        logits.append(attach(trunk, exits, (3, 32, 32), 5).eval()(x))
    assert all(torch.equal(a, b) for a, b in zip(*logits, strict=True))


def test_legal_places_of_a_trunk_with_blocks_are_those_where_one_tensor_crosses(case):
    trunk, _, shape, classes = case
    legal = legal_places(trunk)
    for place in legal:
        network = attach(trunk, [{"after": place}], shape, classes)
        assert network.places == (place,)
    if hasattr(trunk, "left"):
        assert legal == ["input", "stem", "norm"]  # not `left`, nor in `right`: they run side by side


class Scaled(nn.Module):
    """A layer after the classifier, which takes its input by keyword."""

    def __init__(self):
        super().__init__()
        self.fc, self.scale = nn.Linear(784, 10), nn.Hardtanh()

    def forward(self, x):
        return self.scale(self.fc(input=x.flatten(1)))


def test_what_follows_the_classifier_belongs_to_the_last_head():
    trunk, x = Scaled(), torch.randn(2, 1, 28, 28) * 9
    network = attach(trunk, [{"after": "input"}], (1, 28, 28), 10)
    assert torch.equal(network(x)[-1], trunk(x)) and trunk(x).abs().max() <= 1


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(784, 10)

    def forward(self, x):
        return self.fc(x.flatten(1)) if x.sum() > 0 else self.fc(-x.flatten(1))


def test_a_head_of_ones_own_hangs_at_its_place_beside_others():
    got = []

    def head(shape, num_classes):
        got.append((shape, num_classes))
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(shape[0], num_classes))

    exits = [
        {"after": "conv1", "head": head},
        {"after": "relu2", "convs": [4]},
        {"after": "relu3", "head": head},
    ]
    network, x = attach(lenet5(), exits, (1, 28, 28), 10), torch.randn(2, 1, 28, 28)
    assert got == [((5, 30, 30), 10), ((20, 6, 6), 10)]
    own = network.heads[0]
    features = network.segments[0](x)
    assert torch.equal(network(x)[0], own[2](features.mean((2, 3))))
    with pytest.raises(UserError, match="the exit after 'relu3' has a head that"):
        attach(lenet5(), [{"after": "relu3", "head": lambda **_: nn.Linear(3, 10)}], (1, 28, 28), 10)


@pytest.mark.parametrize(
    ("exits", "words"),
    [
        ([], ["at least one", "input, conv1"]),
        (None, ["at least one", "input, conv1"]),
        (5, ["at least one", "input, conv1"]),
        ({"after": "conv1"}, ["list", "input, conv1"]),
        (["conv1"], ["'conv1'", "after: <place>", "input, conv1"]),
        ([{"after": "conv1.weight"}], ["conv1.weight", "input, conv1"]),
        ([{"after": "conv9"}], ["conv9", "input, conv1, pool1"]),
        ([{"after": "fc2"}], ["fc2", "classifier", "input, conv1"]),
        ([{"convs": [3]}], ["after"]),
        ([{"after": "conv1"}, {"after": "conv1"}], ["conv1", "input"]),
        ([{"after": "conv2"}, {"after": "conv1"}], ["conv2, conv1", "order"]),
    ],
)
def test_impossible_exits_get_one_line_that_names_the_legal_places(exits, words):
    with pytest.raises(UserError) as caught:
        attach(lenet5(), exits, (1, 28, 28), 10)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


@pytest.mark.parametrize(
    ("trunk", "place", "shape", "classes", "word"),
    [
        (
            lambda: resnet18(weights=None),
            "layer1.0.conv1",
            (3, 32, 32),
            1000,
            "one",
        ),
        (lambda: resnet18(weights=None), "layer1.0.relu", (3, 32, 32), 1000, "more than once"),
        (Scaled, "scale", (1, 28, 28), 10, "comes after it: legal are input"),
        (lambda: nn.Sequential(nn.BatchNorm1d(1), nn.Linear(28, 10)), "0", (1, 28, 28), 10, "model and data"),
        (Branching, "fc", (1, 28, 28), 10, "nn.Sequential"),
        (lenet5, "conv1", (3, 28, 28), 10, "model and data"),
        (lenet5, "conv1", (1, 28, 28), 7, "num_classes=7"),
    ],
)
def test_trunks_that_do_not_fit_get_one_line(trunk, place, shape, classes, word):
    with pytest.raises(UserError, match=word) as caught:
        attach(trunk(), [{"after": place}], shape, classes)
    assert "\n" not in str(caught.value)
