"""MACs by hand, and what a measurement consists of. No times are asserted."""

import math
from typing import ClassVar

import pytest
import torch
from torch import nn

from branchynet.exits.criteria import Criterion, Entropy, Margin, MaxProbability, for_exits
from branchynet.exits.learned import Logistic, Mlp
from branchynet.exits.openmax import OpenMax
from branchynet.exits.patience import Patience
from branchynet.exits.temperature import Temperature
from branchynet.networks.attach import attach
from branchynet.networks.lenet import lenet5
from branchynet.runtime.catalogue import ENGINES
from branchynet.runtime.costs import (
    Latency,
    count_macs,
    describe_machine,
    in_turns,
    measure_latencies,
    summary,
)
from branchynet.runtime.early_exit import EagerTorch


def test_b_lenets_macs_by_hand():
    exit_1 = {"after": "conv1", "before": ["pool2", "relu"], "convs": [10], "pool": 2}
    network = attach(lenet5(), [exit_1], (1, 28, 28), 10)
    conv1, head, trunk = 112_500, 107_650, 1_140_070
    macs = count_macs(network, (1, 28, 28))
    assert macs.baseline == trunk
    assert macs.exits == (conv1 + head, trunk + head)
    assert macs.static == (conv1 + head, trunk)
    assert macs.trunk_only == (conv1, trunk)
    assert next(network.parameters()).device.type == "cpu" and network.training


def test_an_exit_on_the_input_costs_its_head_alone():
    network = attach(lenet5(), [{"after": "input"}, {"after": "conv1"}], (1, 28, 28), 10)
    macs = count_macs(network, (1, 28, 28))
    first, second = 784 * 10, 5 * 900 * 10
    assert macs.exits == (first, first + 112_500 + second, first + second + 1_140_070)
    assert macs.static == (first, 112_500 + second, 1_140_070)
    assert macs.trunk_only == (0, 112_500, 1_140_070)


class OfLogits(Criterion):
    """A hidden layer of seven on the logits."""

    name, unit, learns = "of logits", "none", True

    def prepare(self, num_classes, shape):
        self.layers = nn.Sequential(nn.Linear(num_classes, 7), nn.ReLU(), nn.Linear(7, 1))

    def forward(self, logits):
        return self.layers(logits)[:, 0].exp()


class OfFeatures(Criterion):
    """A layer on the features."""

    name, unit = "of features", "none"
    learns = of_features = True

    def prepare(self, num_classes, shape):
        self.layer = nn.Linear(math.prod(shape), 1)

    def forward(self, logits, features):
        return self.layer(features.flatten(1))[:, 0].exp()


class OfState(Criterion):
    """Five numbers, of the logits at the first exit, later of five numbers."""

    name, unit = "of state", "none"
    learns = of_history = True

    def prepare(self, num_classes, shape):
        self.first, self.later = nn.Linear(num_classes, 5), nn.Linear(5, 5)

    def forward(self, logits, state):
        state = self.first(logits) if state is None else self.later(state)
        return state.exp().sum(dim=1), state


@pytest.mark.parametrize(
    ("criterion", "decisions"),
    [
        (OfState(), (50, 25, 25)),
        (Patience(), (0, 0, 0)),
        (OfLogits(), (77, 77, 77)),
        (OfFeatures(), (784, 4500, 84)),  # the image, 5 channels of 30 × 30, the last hidden layer
        (Logistic(), (12, 12, 12)),  # ln entropy by itself, and beside ten logits
        (Mlp(hidden=5), (61, 61, 61)),
        (OpenMax(), (100, 100, 100)),
        (Temperature(), (0, 0, 0)),
        (Entropy(), (0, 0, 0)),
        (Margin(), (0, 0, 0)),
        (MaxProbability(), (0, 0, 0)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_criterions_matrix_products_count_at_every_exit_on_the_way(criterion, decisions):
    """The last exit's are counted, too: users ask for its uncertainty, and so it is computed."""
    network = attach(lenet5(), [{"after": "input"}, {"after": "conv1"}], (1, 28, 28), 10)
    shapes = network.feature_shapes((1, 28, 28))
    criteria = for_exits(criterion, shapes, 10)
    if criterion.of_features:
        assert decisions == tuple(math.prod(shape) for shape in shapes)
    without, macs = count_macs(network, (1, 28, 28)), count_macs(network, (1, 28, 28), criteria)
    assert macs.exits == tuple(exit + sum(decisions[: n + 1]) for n, exit in enumerate(without.exits))
    # Nothing of it is the baseline's, nor of a network that has no decision to take.
    assert (macs.baseline, macs.static, macs.trunk_only) == (
        without.baseline,
        without.static,
        without.trunk_only,
    )
    assert all(tensor.device.type == "cpu" for each in criteria for tensor in each.parameters())


def test_an_exit_that_averages_costs_a_multiplication_for_every_class():
    network = attach(lenet5(), [{"after": "input"}, {"after": "conv1"}], (1, 28, 28), 10)
    without, macs = (count_macs(each, (1, 28, 28)) for each in (network, network.with_shares((0, 0, 0.5))))
    assert macs.exits == (*without.exits[:2], without.exits[2] + 10)
    assert count_macs(network.with_shares((0, 0.1, 0.5)), (1, 28, 28)).exits[2] == without.exits[2] + 20
    assert (macs.baseline, macs.static) == (without.baseline, without.static)


def test_a_measurement_has_every_exit_every_way(backend, network):
    found = measure_latencies(backend, network, network.trunk(), [Entropy()] * 3, (1, 12, 12), seconds=0.02)
    for kind in (found.exits, found.static, found.trunk_only):
        assert len(kind) == 3
    for latency in (found.baseline, *found.exits, *found.static, *found.trunk_only):
        assert 0 < latency.median_us < math.inf and latency.iqr_us >= 0


def test_candidates_take_turns_and_each_starts_once():
    calls = []
    found = in_turns(
        {name: (lambda name=name: calls.append(name)) for name in "abc"}, threads=1, seconds=0.01
    )
    assert set(found) == set("abc")
    order = [name for i, name in enumerate(calls) if i == 0 or calls[i - 1] != name]
    starts = {tuple(order[i : i + 3]) for i in range(len(order) - 2)}
    # In the rounds every candidate follows every neighbour's: a b c, then b c a, then c a b.
    assert {("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b")} <= starts


def test_threads_are_set_while_measuring_and_restored():
    before, seen = torch.get_num_threads(), set()
    in_turns({"f": lambda: seen.add(torch.get_num_threads())}, threads=before + 1, seconds=0.01)
    assert seen == {before + 1} and torch.get_num_threads() == before


def test_summary_by_hand():
    assert summary([1.0, 2.0, 3.0, 4.0, 5.0]) == Latency(median_us=3.0, iqr_us=2.0)


def test_the_machine_is_named_with_its_versions():
    machine, versions = describe_machine([ENGINES["onnxruntime"]])
    assert machine.endswith("cores") and versions["torch"].startswith(torch.__version__.split("+")[0])
    assert {"python", "onnxruntime", "branchynet"} <= set(versions)


def test_packages_are_those_of_the_engines_that_are_installed():
    class Mine(EagerTorch):
        packages: ClassVar = {"numpy": "the package numpy", "no_such_package": "another"}

    usual = set(describe_machine()[1])
    assert not usual & {"onnxruntime", "onnx", "onnxscript"}
    assert set(describe_machine([Mine(), ENGINES["torch"]])[1]) == {*usual, "numpy"}
