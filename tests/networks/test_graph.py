"""Cutting and joining: every cut is checked against what it means, and no cut changes the numbers."""

from typing import NamedTuple

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from branchynet.errors import UserError
from branchynet.networks.graph import clean_cuts, join, split, traced


def crossing(graph, cut):
    """By the definition: the values made up to `cut` that something after it takes."""
    nodes = list(graph.nodes)
    made = nodes[: nodes.index(cut) + 1]
    return {node for node in made if any(user not in made for user in node.users)}


def test_a_cut_is_clean_exactly_where_nothing_but_its_own_value_crosses(case):
    blocks = {name for name, module in case[0].named_modules() if name and any(module.children())}
    graph, _ = traced(case[0], blocks)
    inner = [node for node in graph.nodes if node.op != "output"]
    expected = [node for node in inner if crossing(graph, node) <= {node}]
    assert [node for node in clean_cuts(graph) if node.op != "output"] == expected
    assert expected[0].op == "placeholder"


def test_parts_in_a_row_and_parts_joined_give_what_the_whole_gives(case):
    trunk, _, shape, _ = case
    graph, _ = traced(trunk)
    cuts = [node for node in clean_cuts(graph) if node.op != "output"]
    parts, x = split(trunk, graph, cuts), torch.randn(2, *shape)
    assert len(parts) == len(cuts) + 1
    with torch.no_grad():
        y = x
        for part in parts:
            y = part(y)
        assert torch.equal(y, trunk(x)) and torch.equal(join(parts)(x), trunk(x))
    assert set(join(parts).state_dict()) == set(trunk.state_dict())


def test_outputs_name_layers_containers_and_every_call():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(self.block(self.relu(x)))

    _, outputs = traced(Twice())
    assert list(outputs) == ["relu", "block.0", "block.1", "block"]
    assert len(outputs["relu"]) == 2 and outputs["block"] == outputs["block.1"]


def test_joining_leaves_the_mode_of_the_layers_alone():
    trunk = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten()).train()
    trunk[1].eval()  # as when its statistics are frozen
    graph, outputs = traced(trunk)
    join(split(trunk, graph, outputs["0"]))
    assert trunk[0].training and not trunk[1].training


def test_two_inputs_get_one_line():
    with pytest.raises(UserError, match="one tensor") as caught:
        traced(nn.Bilinear(2, 2, 1))
    assert "\n" not in str(caught.value)


class Auxiliary(nn.Module):
    """As GoogLeNet and Inception are: in training they give the auxiliary classifiers' logits, too."""

    def __init__(self, aux_logits):
        super().__init__()
        self.aux_logits = aux_logits
        self.layer, self.aux = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        if self.training and self.aux_logits:
            return self.given(self.layer(x), self.aux(x))
        return self.layer(x)


class Outputs(NamedTuple):
    """As torchvision's."""

    logits: torch.Tensor
    aux: torch.Tensor


@pytest.mark.parametrize("given", [Outputs, lambda *both: both])
def test_auxiliary_classifiers_get_one_line(given, monkeypatch):
    monkeypatch.setattr(Auxiliary, "given", staticmethod(given), raising=False)
    with pytest.raises(UserError, match=r"Auxiliary gives several tensors in training.*aux_logits=False"):
        traced(Auxiliary(True))
    assert "layer" in traced(Auxiliary(False))[1]


class Optional(nn.Module):
    """Arguments with defaults, one of which it looks at; and dropout as a function."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 50), nn.Linear(50, 3)

    def forward(self, x, mask=None, twice: bool = False, scale: float = 2.0):
        x = self.first(x) * scale
        if mask is not None:
            x = x * mask
        if twice:
            x = x + x
        return self.last(F.dropout(x, 0.5, self.training))


@pytest.mark.parametrize("training", [True, False])
def test_arguments_with_defaults_have_them_and_dropout_follows_the_mode(training):
    module, x = Optional().train(training), torch.randn(2, 4)
    graph, _ = traced(module)
    assert [node.op for node in graph.nodes].count("placeholder") == 1
    made = fx.GraphModule(module, graph)
    assert torch.equal(made.eval()(x), module.eval()(x))
    made.train()
    assert not torch.equal(made(x), made(x))
    assert set(module.state_dict()) == {"first.weight", "first.bias", "last.weight", "last.bias"}
