"""Every engine against the slow loop of the paper's Figure 2, and against each other."""

import copy
import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from branchynet.errors import UserError
from branchynet.exits.beem import Beem
from branchynet.exits.criteria import Entropy, Margin, MaxProbability
from branchynet.networks.attach import attach
from branchynet.networks.branched import undivided
from branchynet.networks.lenet import lenet5
from branchynet.runtime.base import forced
from branchynet.runtime.catalogue import ENGINES, make_engine
from branchynet.runtime.compiled import CompiledEngine, CompiledTorch

SHAPE = (1, 12, 12)


class Captured(CompiledTorch):
    """Captured by the compiler and run as captured: the same graphs, and no code made of them."""

    def check(self):
        """It needs no C++ compiler."""

    def engine(self, network, criteria, thresholds, input_shape, threads):
        return CompiledEngine(network, criteria, thresholds, backend="eager")


@pytest.mark.parametrize("size", [1, 2, 5, 33, 257])
def test_every_batch_size_is_the_slow_loop(size, engine, network, images, middling, figure_2):
    engine.thresholds = middling
    prediction, exits, uncertainty = figure_2(network, images, middling)
    assert np.bincount(exits).min() > 60, "all three exits are taken"
    outcomes = [engine.run(images[i : i + size]) for i in range(0, len(images), size)]
    assert np.array_equal(np.concatenate([o.exit_index for o in outcomes]), exits)
    assert np.array_equal(np.concatenate([o.prediction for o in outcomes]), prediction)
    np.testing.assert_allclose(np.concatenate([o.uncertainty for o in outcomes]), uncertainty, atol=1e-5)


@pytest.mark.parametrize("name", ["captured", "torch", "onnxruntime", "openvino"])
def test_criteria_of_the_exits_own_are_the_slow_loop(name, own_criteria, network, images, thirds, figure_2):
    """They have parameters, other ones at every exit, look at the features, and one of them back."""
    if name == "openvino":
        pytest.importorskip("openvino")
    thresholds = thirds(network, own_criteria, images)
    prediction, exits, uncertainty = figure_2(network, images, thresholds, own_criteria)
    assert np.bincount(exits).min() > 60, "all three exits are taken"
    mine = copy.deepcopy(own_criteria)
    engine = make_engine(Captured() if name == "captured" else name, network, mine, thresholds, SHAPE)
    for criterion in mine:  # what is fitted again later does not reach an engine
        for tensor in criterion.state_dict().values():
            tensor.zero_()
    for size in (1, 33, 257):
        outcomes = [engine.run(images[i : i + size]) for i in range(0, len(images), size)]
        assert np.array_equal(np.concatenate([o.exit_index for o in outcomes]), exits)
        assert np.array_equal(np.concatenate([o.prediction for o in outcomes]), prediction)
        np.testing.assert_allclose(np.concatenate([o.uncertainty for o in outcomes]), uncertainty, atol=1e-5)


# At the first exit, on the image, the segment is the identity: then the answer goes on and no features do.
@pytest.mark.parametrize(
    ("name", "shares", "criterion"),
    [
        *((name, (0, 0.4, 0.7), Beem()) for name in ("captured", "torch", "onnxruntime", "openvino")),
        ("torch", (0, 0, 0.6), Beem()),
        ("torch", (0, 0.4, 0.7), Entropy()),
        ("captured", (0, 0, 0.6), Entropy()),
    ],
)
def test_averaged_exits_are_the_slow_loop(name, shares, criterion, network, images, thirds, figure_2):
    """Answers are handed on beside the features, or answers and the state of a criterion that looks back."""
    if name == "openvino":
        pytest.importorskip("openvino")
    averaged, criteria = network.with_shares(shares), [criterion] * 3
    thresholds = thirds(averaged, criteria, images)
    prediction, exits, uncertainty = figure_2(averaged, images, thresholds, criteria)
    plain = figure_2(network, images, thresholds, criteria)
    assert np.bincount(exits).min() > 60 and (plain[0] != prediction).sum() > 5, "all are taken; it matters"
    engine = make_engine(Captured() if name == "captured" else name, averaged, criterion, thresholds, SHAPE)
    for size in (1, 33, 257):
        outcomes = [engine.run(images[i : i + size]) for i in range(0, len(images), size)]
        assert np.array_equal(np.concatenate([o.exit_index for o in outcomes]), exits)
        assert np.array_equal(np.concatenate([o.prediction for o in outcomes]), prediction)
        np.testing.assert_allclose(np.concatenate([o.uncertainty for o in outcomes]), uncertainty, atol=1e-5)


@pytest.mark.parametrize("name", ["captured", "torch", "openvino"])
def test_a_tree_leaves_where_its_own_logits_say(name, images):
    """A head that carries an exit: the trunk goes on below it. Of ONNX Runtime: tests/exports/test_backbones.py."""
    if name == "openvino":
        pytest.importorskip("openvino")
    torch.manual_seed(0)
    head = {"after": "conv1", "convs": [4, 4], "pool": 2, "exits": [{"after": "relu1", "global_pool": True}]}
    tree = attach(lenet5(1, 10, 12), [head], SHAPE, 10).eval()
    with torch.no_grad():
        logits = tree(torch.from_numpy(images))
    uncertainty = torch.stack([Entropy()(each) for each in logits], dim=1).numpy()
    first = float(np.quantile(uncertainty[:, 0], 0.3))
    second = float(np.quantile(uncertainty[uncertainty[:, 0] >= first, 1], 0.5))
    exits = np.where(uncertainty[:, 0] < first, 0, np.where(uncertainty[:, 1] < second, 1, 2))
    prediction = np.stack([each.argmax(dim=1) for each in logits], axis=1)[np.arange(len(images)), exits]
    assert np.bincount(exits).min() > 60 and len(np.unique(prediction)) > 1, "all three exits are taken"

    backend = Captured() if name == "captured" else name
    engine = make_engine(backend, tree, Entropy(), (first, second), SHAPE)
    for size in (1, 33):
        outcomes = [engine.run(images[i : i + size]) for i in range(0, len(images), size)]
        differs = np.concatenate([o.exit_index for o in outcomes]) != exits
        assert (np.abs(uncertainty[differs, :2] - (first, second)).min(axis=1) < 1e-5).all()
        assert np.array_equal(
            np.concatenate([o.prediction for o in outcomes])[~differs], prediction[~differs]
        )


@pytest.mark.parametrize("exit", [0, 1, 2])
def test_forced_exits_give_the_networks_own_answers(exit, engine, network, images):
    engine.thresholds = forced(exit, 3)
    with torch.no_grad():
        expected = network(torch.from_numpy(images))[exit].argmax(1).numpy()
    for batch in (images, images[:1]):
        outcome = engine.run(batch)
        assert (outcome.exit_index == exit).all()
        assert np.array_equal(outcome.prediction, expected[: len(batch)])


def test_the_comparison_is_strict_and_in_float32(engine, images):
    one = images[:1]
    engine.thresholds = forced(0, 3)
    uncertainty = engine.run(one).uncertainty[0]
    for threshold, exit in ((uncertainty, 2), (np.nextafter(uncertainty, np.float32(9)), 0)):
        engine.thresholds = (float(threshold), 0.0)
        assert engine.run(one).exit_index[0] == exit
    # In float64 a little above, in float32 the same number: not below it.
    engine.thresholds = (float(uncertainty) * (1 + 1e-9), 0.0)
    assert engine.run(one).exit_index[0] == 2


def test_results_are_the_callers_own(engine, images):
    engine.thresholds = forced(1, 3)
    for size in (1, 5):
        first = engine.run(images[:size])
        kept = [array.copy() for array in first]
        engine.run(images[size : 2 * size])
        assert all(np.array_equal(a, b) for a, b in zip(first, kept, strict=True))


def test_results_have_their_types(engine, images, middling):
    engine.thresholds = middling
    for size in (1, 5):
        assert [array.dtype for array in engine.run(images[:size])] == [np.int64, np.int64, np.float32]


def test_a_copy_has_thresholds_of_its_own(engine, images):
    engine.thresholds = forced(0, 3)
    other = copy.copy(engine)
    other.thresholds = forced(2, 3)
    for size in (1, 5):
        assert (engine.run(images[:size]).exit_index == 0).all() and (
            other.run(images[:size]).exit_index == 2
        ).all()


def test_the_baseline_runs_through_the_same_protocol(backend, network, images):
    engine = make_engine(backend, undivided(network.trunk()), Entropy(), (), SHAPE)
    with torch.no_grad():
        logits = network(torch.from_numpy(images))[-1]
    for size in (1, 64, 257):
        found = engine.run(images[:size])
        assert np.array_equal(found.prediction, logits[:size].argmax(1).numpy())
        assert (found.exit_index == 0).all()
        np.testing.assert_allclose(found.uncertainty, Entropy()(logits[:size]).numpy(), atol=1e-5)


def test_the_network_keeps_its_mode_and_is_not_shared(backend, network, images):
    network.train()
    try:
        engine = make_engine(backend, network, Entropy(), forced(2, 3), SHAPE)
        assert network.training
        with torch.no_grad():
            expected = network.eval()(torch.from_numpy(images))[2].argmax(1).numpy()
        # Batch norm and dropout are those of evaluation, whatever the network's mode was.
        assert np.array_equal(engine.run(images).prediction, expected)
    finally:
        network.eval()


@pytest.mark.parametrize("criterion", [Entropy(), Margin(), MaxProbability()], ids=lambda c: c.name)
def test_engines_agree_on_every_criterion(criterion, backend, network, images):
    engines = [
        make_engine(each, network, criterion, forced(1, 3), SHAPE) for each in (ENGINES["torch"], backend)
    ]
    first, second = (engine.run(images) for engine in engines)
    np.testing.assert_allclose(first.uncertainty, second.uncertainty, atol=1e-5)
    assert np.array_equal(first.prediction, second.prediction)


def test_the_undivided_classifier_is_the_trunk(backend, network, images):
    classify = backend.classifier(network.trunk(), SHAPE, 1)
    with torch.no_grad():
        expected = network(torch.from_numpy(images))[-1].argmax(1).tolist()
    assert [classify(images[i : i + 1]) for i in range(50)] == expected[:50]


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [((1.0,), ["1 thresholds", "give 2"]), ((1.0, 1.0, 1.0), ["3 thresholds"]), ((1.0, math.nan), ["nan"])],
)
def test_wrong_thresholds_get_one_line(thresholds, words, engine):
    with pytest.raises(UserError) as caught:
        engine.thresholds = thresholds
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words)


class Several(nn.Module):
    """Logits, their maximum and where it is; what it gives is kept."""

    given: ClassVar = []  # of the class: engines copy modules

    def forward(self, x):
        if isinstance(x, torch.fx.Proxy):
            raise TypeError("traced, it would keep nothing")
        outputs = [x.flatten(1), x.flatten(1).amax(dim=1), x.flatten(1).argmax(dim=1)]
        self.given.append(outputs)
        return outputs


@torch.compiler.set_stance("force_eager")  # compiling takes its time
@pytest.mark.parametrize("name", [name for name in ENGINES if not name.endswith("_cuda")])
def test_the_last_of_a_chain_may_give_several_tensors(name, images):
    if "openvino" in name:
        pytest.importorskip("openvino")
    run = ENGINES[name].chain([nn.ReLU(), nn.MaxPool2d(2), Several()], SHAPE, 1)
    for i in range(2):
        run(images[i : i + 1])
    if name.startswith("torch"):
        expected = nn.functional.max_pool2d(torch.from_numpy(images[1:2]).relu(), 2)
        assert torch.equal(Several.given[-1][0], expected.flatten(1))
