"""Exits inside heads, and the same exits one after the other."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from branchynet.errors import UserError
from branchynet.networks.attach import attach
from branchynet.networks.lenet import lenet5
from branchynet.networks.tree import OnTop, features_in, path_of
from branchynet.training.gradients import Gradients

# A branch of a branch of a branch, on maps and on vectors, and an exit of the trunk behind.
DEEP = [
    {
        "after": "conv1",
        "convs": [4, 6],
        "pool": [2, 0],
        "fc": [16],
        "exits": [
            {"after": "pool1", "convs": [5, 3], "exits": [{"after": "relu1", "global_pool": True}]},
            {"after": "fc1", "before": ["relu"]},
        ],
    },
    {"after": "conv2", "fc": [8]},
]
SHAPE = (1, 28, 28)


@pytest.fixture
def tree():
    torch.manual_seed(0)
    return attach(lenet5(), DEEP, SHAPE, 10).eval()


def test_exits_are_numbered_along_the_path(tree):
    assert tree.num_exits == 6 and tree.places == ("conv1", "conv2")
    assert path_of(tree).places == ("conv1/pool1/relu1", "conv1/pool1", "conv1/fc1", "conv1", "conv2")
    assert tree.feature_shapes(SHAPE) == [(5, 15, 15), (675,), (16,), (16,), (10, 17, 17), (84,)]
    assert len(list(tree.parameters())) == len(set(tree.parameters()))


@torch.no_grad()
def test_every_exit_is_what_its_layers_alone_give(tree):
    """`ways` says which these are; all that is run before an exit on the path is left out."""
    x = torch.randn(3, *SHAPE)
    logits, features = tree.with_features(x)
    path = path_of(tree)
    for n, ((trunk, own), out) in enumerate(zip(tree.ways(), logits, strict=True)):
        assert torch.equal(nn.Sequential(*trunk, *own)(x), out)
        top = path.heads[n]
        packed = path.with_features(x)[1][n]
        seen = features_in(packed, top.stack, top.of) if isinstance(top, OnTop) else packed
        # The end of a head takes the rest of its layers from where the last exit inside hangs.
        if n not in (1, 3):
            assert torch.equal(seen, features[n])
    assert all(torch.equal(a, b) for a, b in zip(path(x), logits, strict=True))
    assert torch.equal(tree.trunk()(x), logits[-1])
    assert path_of(path) is path, "without exits inside it is a path already"


def test_what_heads_share_is_run_once_and_what_nobody_wants_is_not(tree):
    calls = []
    for name, layer in tree.named_modules():
        if not any(layer.children()):
            layer.register_forward_hook(lambda *_, name=name: calls.append(name))
    x = torch.randn(2, *SHAPE)
    tree(x)
    assert len(calls) == len(set(calls))
    calls.clear()
    logits = tree(x, (False, False, False, False, True, False))
    assert [out is None for out in logits] == [True] * 4 + [False, True]
    assert not any(name.startswith("heads.0") for name in calls), "a branch that nobody wants"
    calls.clear()
    tree(x, (False, True, False, False, False, False))
    assert not any("heads.0.heads.0.heads.0" in name or name.startswith("segments.1") for name in calls)


def gradients(tree, x, weights, sharing=None):
    tree.zero_grad()
    losses = [F.cross_entropy(out, torch.arange(3)) for out in tree.with_features(x, sharing=sharing)[0]]
    sum(weight * loss for weight, loss in zip(weights, losses, strict=True)).backward()
    return {name: p.grad.clone() for name, p in tree.named_parameters() if p.grad is not None}


def test_shared_parts_get_the_mean_of_the_exits_behind_them(tree):
    x, weights = torch.randn(3, *SHAPE), (1.0,) * 6
    summed, meant = (
        gradients(tree, x, weights),
        gradients(tree, x, weights, Gradients("mean").sharing(weights)),
    )
    assert set(summed) == {name for name, _ in tree.named_parameters()}
    first = {name: part for name, part in summed.items() if name.startswith("segments.0")}
    assert first and all(torch.allclose(meant[name], part / 6, atol=1e-7) for name, part in first.items())
    # Of the head's first layers four exits; what lies behind one exit alone is that one's, whole.
    for name, part in summed.items():
        count = {"heads.0.segments.0": 4, "heads.0.heads.0.segments.0": 2, "segments.1": 2}
        parts = next((n for start, n in count.items() if name.startswith(start)), None)
        if parts:
            assert torch.allclose(meant[name], part / parts, atol=1e-7), name
        elif name.startswith(("heads.0.heads.0.heads", "heads.1", "heads.2")):
            assert torch.allclose(meant[name], part, atol=1e-7), name


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ([{"after": "conv9"}], "there is no place 'conv9' for an exit: legal are conv1, pool1, relu1"),
        ([{"after": "input"}], "there is no place 'input'"),
        ([{"after": "fc2"}], "'fc2' is the trunk's classifier"),
        ([{"after": "relu1", "convs": [0]}], "convs"),
        (3, "exits=3: it is a list"),
    ],
)
def test_mistakes_inside_a_head_say_in_which(inside, words):
    with pytest.raises(UserError, match=rf"^inside the head of the exit after 'conv1': .*{words}"):
        attach(lenet5(), [{**DEEP[0], "exits": inside}], SHAPE, 10)


def test_a_head_of_one_layer_has_no_place():
    with pytest.raises(UserError, match="no layer before the classifier"):
        attach(lenet5(), [{"after": "fc1", "exits": [{"after": "fc1"}]}], SHAPE, 10)


class Own(nn.Module):
    """A head of somebody's own, with names of its own."""

    def __init__(self, shape, num_classes):
        super().__init__()
        self.squeeze, self.classifier = nn.Conv2d(shape[0], 3, 3), nn.Linear(3, num_classes)

    def forward(self, x):
        return self.classifier(self.squeeze(x).relu().mean((2, 3)))


def test_a_head_of_ones_own_takes_exits_too():
    spec = [{"after": "conv1", "head": Own, "exits": [{"after": "squeeze", "global_pool": True}]}]
    made, x = attach(lenet5(), spec, SHAPE, 10).eval(), torch.randn(2, *SHAPE)
    assert made.num_exits == 3
    assert all(torch.equal(a, b) for a, b in zip(made(x), path_of(made)(x), strict=True))
