"""MACs by hand, and what a measurement consists of. No times are asserted."""

import math

import torch

from branchynet.exits.criteria import entropy
from branchynet.networks.attach import attach
from branchynet.networks.lenet import lenet5
from branchynet.runtime.costs import count_macs, describe_machine, in_turns, measure_latencies, summary


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


def test_a_measurement_has_every_exit_every_way(engine_name, network):
    found = measure_latencies(engine_name, network, network.trunk(), entropy, (1, 12, 12), seconds=0.02)
    for kind in (found.exits, found.static, found.trunk_only):
        assert len(kind) == 3
    for latency in (found.baseline, *found.exits, *found.static, *found.trunk_only):
        assert 0 < latency.median_us < math.inf and latency.iqr_us >= 0 and latency.runs > 0


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
    found = summary([1.0, 2.0, 3.0, 4.0, 5.0], runs=50)
    assert (found.median_us, found.iqr_us, found.runs) == (3.0, 2.0, 50)


def test_the_machine_is_named_with_its_versions():
    machine, versions = describe_machine()
    assert machine.endswith("cores") and versions["torch"].startswith(torch.__version__.split("+")[0])
    assert {"python", "onnxruntime", "branchynet"} <= set(versions)
