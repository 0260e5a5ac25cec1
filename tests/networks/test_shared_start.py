"""Layers that a head and the trunk behind its exit both begin with."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

from branchynet.exits.criteria import Criterion, Entropy
from branchynet.networks.attach import attach
from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.shared_start import with_shared_starts
from branchynet.runtime.steps import without_repeats

SHAPE = (3, 8, 8)


def trunk(*behind: nn.Module) -> nn.Sequential:
    """conv1, what is given, then a convolution and a classifier."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 4, 3, padding=1),
            **{f"layer{n}": layer for n, layer in enumerate(behind)},
            conv2=nn.Conv2d(4, 4, 3, padding=1),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(4, 5),
        )
    )


def network(behind: list[nn.Module], before: list[str], after: str = "conv1") -> BranchedNetwork:
    torch.manual_seed(0)
    exits = [{"after": after, "before": before, "convs": [4], "global_pool": True}]
    return attach(trunk(*behind), exits, SHAPE, 5).eval()


def layers(module: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in module.modules() if not list(layer.children())]


POOL3 = nn.MaxPool2d(3, 2, ceil_mode=True)


@pytest.mark.parametrize(
    ("behind", "before", "shared"),
    [
        ([nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)], ["relu", "pool2"], ["ReLU", "MaxPool2d"]),
        ([nn.ReLU(), POOL3], ["relu", "pool2"], ["ReLU"]),
        ([nn.ReLU(), nn.BatchNorm2d(4)], ["relu", "batch"], ["ReLU"]),
        ([nn.MaxPool2d(2, ceil_mode=True)], ["relu", "pool2"], []),
        ([], ["relu"], []),
        ([nn.ReLU()], [], []),
    ],
    ids=["all", "another-window", "weights", "another-order", "head-only", "trunk-only"],
)
def test_what_both_begin_with_is_run_once_and_outputs_stay(behind, before, shared):
    given = network(behind, before)
    made = with_shared_starts(given.with_shares((0, 0.5))).eval()
    assert made.shares == (0, 0.5) and with_shared_starts(given).shares is None
    assert layers(made.segments[0]) == ["Conv2d", *shared]
    x = torch.randn(4, *SHAPE)
    for ours, theirs in zip(made(x), given(x), strict=True):
        assert torch.equal(ours, theirs)
    runs = []
    for layer in {*made.modules()}:
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda *_: runs.append(1))
    made(x)
    # One in the head behind its convolution; before it and on the trunk each its own, or one for both.
    assert len(runs) == 1 + ("relu" in before) + any(isinstance(b, nn.ReLU) for b in behind) - (
        "ReLU" in shared
    )


def test_the_network_given_is_left_alone():
    given = network([nn.ReLU()], ["relu"])
    before = copy.deepcopy(given)
    with_shared_starts(given)
    assert layers(given) == layers(before)
    assert given.state_dict().keys() == before.state_dict().keys()


def test_a_place_on_the_image_and_a_segment_that_goes_whole():
    torch.manual_seed(0)
    backbone = nn.Sequential(
        OrderedDict(relu=nn.ReLU(), conv=nn.Conv2d(3, 4, 1), flatten=nn.Flatten(), fc=nn.Linear(256, 5))
    )
    exits = [
        {"after": "input", "before": ["relu"], "convs": [4], "global_pool": True},
        {"after": "relu", "convs": [4], "global_pool": True},
    ]
    given = attach(backbone, exits, SHAPE, 5).eval()
    made = with_shared_starts(given)
    assert layers(made.segments[0]) == ["ReLU"]
    assert isinstance(made.segments[1], nn.Identity)
    x = torch.randn(2, *SHAPE)
    for ours, theirs in zip(made(x), given(x), strict=True):
        assert torch.equal(ours, theirs)


def test_a_layer_beside_which_a_shortcut_runs_stays():
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.fc = nn.ReLU(), nn.Linear(3, 5)

        def forward(self, x):
            return self.fc((x + self.relu(x)).mean(dim=(2, 3)))

    head = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(192, 5))
    given = BranchedNetwork([nn.Conv2d(3, 3, 1), Shortcut()], [head, nn.Identity()], ["conv"]).eval()
    made = with_shared_starts(given)
    assert made.segments[0] is given.segments[0]
    x = torch.randn(2, *SHAPE)
    for ours, theirs in zip(made(x), given(x), strict=True):
        assert torch.equal(ours, theirs)


def test_a_head_that_cannot_be_traced_stays():
    class Own(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :5] if x.sum() > 0 else x.flatten(1)[:, 5:10]

    given = BranchedNetwork([nn.Identity(), nn.Flatten()], [Own(), nn.Linear(192, 5)], ["input"])
    assert with_shared_starts(given).heads[0] is given.heads[0]


def test_features_that_a_criterion_looks_at_are_those_of_the_place():
    class OfFeatures(Criterion):
        name, unit, of_features = "own", "", True

    given = network([nn.ReLU()], ["relu"])
    assert without_repeats(given, [Entropy(), OfFeatures()]) is given
    assert layers(without_repeats(given, [Entropy(), Entropy()]).segments[0]) == ["Conv2d", "ReLU"]
