"""Tracing and gathering: against the network itself, a sample at a time."""

import pytest
import torch

from branchynet.errors import UserError
from branchynet.evaluation.evidence import (
    gather,
    own_trace,
    trace,
    traced_by,
    trunk_answers,
    try_criterion,
)
from branchynet.evaluation.fitting import part_of_validation
from branchynet.evaluation.settings import Measuring
from branchynet.exits.criteria import Criterion, Entropy, Margin
from branchynet.exits.patience import Patience
from branchynet.runtime.catalogue import ENGINES
from branchynet.runtime.costs import Latencies, Latency


@torch.no_grad()
def test_a_trace_is_what_every_exit_says_of_every_sample(bright_network, bright_data):
    network = bright_network().train()
    x, label = next(bright_data.batches("test", 10_000))
    found = trace(network, [Entropy(), Margin()], x, label)
    assert network.training, "it keeps the mode that it had"
    assert torch.equal(found.label, label)
    for s in range(len(x)):
        for n, (logits, unsure) in enumerate(zip(network(x[s : s + 1]), (Entropy(), Margin()), strict=True)):
            assert int(found.prediction[s, n]) == int(logits.argmax())
            assert float(found.uncertainty[s, n]) == pytest.approx(float(unsure(logits)), abs=1e-6)


@torch.no_grad()
def test_a_trace_of_averaged_exits_is_of_their_answers_and_keeps_what_heads_alone_say(
    coarse, bright_network, bright_data
):
    network = bright_network().with_shares((0, 0.9))
    x, label = next(bright_data.batches("test", 10_000))
    own = network(x)
    second = 0.1 * own[1] + 0.9 * own[0]
    found = trace(network, Entropy(), x, label)
    assert torch.equal(found.prediction[:, 1], second.argmax(1))
    assert torch.allclose(found.uncertainty[:, 1], Entropy()(second), atol=1e-6)
    assert torch.equal(found.alone, torch.stack([logits.argmax(1) for logits in own], 1))
    assert not torch.equal(found.alone, found.prediction), "the average matters"
    assert trace(network.with_shares(None), Entropy(), x, label).alone is None
    # An engine whose outputs are its own says both by itself.
    shape = bright_data.input_shape
    theirs = own_trace(coarse, 1, lambda: [x], label, shape, network, (Entropy(), Entropy()))
    assert torch.equal(theirs.prediction, found.prediction) and torch.equal(theirs.alone, found.alone)


def test_one_criterion_is_for_all_exits(bright_network, bright_data):
    network, split = bright_network(), next(bright_data.batches("test", 10_000))
    one, both = (trace(network, each, *split) for each in (Margin(), (Margin(), Margin())))
    assert torch.equal(one.uncertainty, both.uncertainty)
    with pytest.raises(ValueError, match="3 criteria do not fit 2 exits"):
        trace(network, [Margin()] * 3, *split)


@torch.no_grad()
def test_images_in_batches_have_the_same_trace(bright_network, bright_data):
    network, split = bright_network(), next(bright_data.batches("test", 10_000))
    whole, answers = trace(network, Entropy(), *split), trunk_answers(network.trunk(), split[:1])
    parts = trace(network, Entropy(), split[0].split(30), split[1])
    assert torch.equal(parts.prediction, whole.prediction)
    assert torch.allclose(parts.uncertainty, whole.uncertainty, atol=1e-6)
    assert torch.equal(trunk_answers(network.trunk(), split[0].split(30)), answers)
    assert torch.equal(answers, network(split[0])[1].argmax(1))


def test_an_engines_own_trace_is_of_its_own_outputs(coarse, bright_network, bright_data):
    network, split = bright_network(), next(bright_data.batches("test", 10_000))
    exact = trace(network, Entropy(), *split)
    found = own_trace(
        coarse, 1, lambda: split[:1], split[1], bright_data.input_shape, network, (Entropy(), Entropy())
    )
    assert torch.equal(found.uncertainty, (2 * exact.uncertainty).round() / 2)
    assert torch.equal(found.prediction, exact.prediction) and torch.equal(found.label, split[1])


def test_whose_outputs_are_swept(coarse):
    assert traced_by(ENGINES["torch"]) == traced_by(ENGINES["onnxruntime"]) == "torch"
    assert traced_by(coarse) == "coarse"
    assert traced_by(ENGINES["openvino_bf16"]) == "openvino_bf16"


def test_everything_is_gathered(coarse, bright_network, bright_data, monkeypatch):
    """Costs on every engine, the baseline's answers, and the traces of both splits."""
    asked = []
    timed = Latencies(Latency(1.0, 0.1), *[(Latency(1.0, 0.1),) * 2] * 3)

    def measure(*arguments):
        asked.append(arguments)
        return timed

    monkeypatch.setattr("branchynet.evaluation.evidence.measure_latencies", measure)
    network, blind, criteria = bright_network(), bright_network(5.0), (Entropy(), Entropy())
    with torch.no_grad():
        for parameter in blind.heads[-1].parameters():
            parameter.copy_(parameter.roll(1))
    found = gather(
        Measuring((ENGINES["torch"], coarse), threads=1, seconds=0.25), network, criteria, blind, bright_data
    )
    assert found.classes == tuple(bright_data.classes)
    assert dict(found.latencies) == {"torch": timed, "coarse": timed}
    assert [arguments[0].name for arguments in asked] == ["torch", "coarse"]
    x, _ = next(bright_data.batches("test", 10_000))
    for arguments in asked:
        assert (arguments[1], *arguments[3:]) == (network, criteria, (1, 4, 4), 1, 0.25)
        assert torch.equal(arguments[2](x), blind(x)[1])
    # One convolution of 4×4 pixels; exits and heads multiply no matrices.
    assert found.macs.baseline == 16 and found.macs.exits == (16, 16)
    assert found.machine and {"python", "torch"} <= set(found.versions)
    for which in ("val", "test"):
        x, label = next(bright_data.batches(which, 10_000))
        assert torch.equal(found.traces[which].uncertainty, trace(network, criteria, x, label).uncertainty)
        assert torch.equal(found.baseline_correct[which], blind(x)[1].argmax(1) == label)
    assert len(found.inexact_test) == found.inexact_training == 0 and found.fitting is None


def test_what_was_fitted_on_is_not_among_the_evidence(bright_network, bright_data, monkeypatch):
    timed = Latencies(Latency(1.0, 0.1), *[(Latency(1.0, 0.1),) * 2] * 3)
    monkeypatch.setattr("branchynet.evaluation.evidence.measure_latencies", lambda *arguments: timed)
    network, criteria = bright_network(), (Entropy(), Entropy())
    fitting = part_of_validation(bright_data.labels("val"), 0.3)
    measuring = Measuring((ENGINES["torch"],), threads=1, seconds=0.01)
    found = gather(measuring, network, criteria, network, bright_data, fitting)
    x, label = (part[~fitting.val] for part in next(bright_data.batches("val", 10_000)))
    assert found.traces["val"].num_samples == len(found.baseline_correct["val"]) == 70
    assert torch.equal(found.traces["val"].uncertainty, trace(network, criteria, x, label).uncertainty)
    assert found.traces["test"].num_samples == 100 and found.fitting is fitting


class Below(Criterion):
    """A stranger's, with a mistake in it."""

    name, unit = "below", "units"

    def forward(self, logits):
        return logits.float().amax(dim=1) - 1e6


class LearnsBelow(Below):
    learns = True


def test_a_criterion_that_gives_no_uncertainty_is_told_by_its_name(coarse, bright_network, bright_data):
    network, split = bright_network(), next(bright_data.batches("test", 10_000))
    words = r"^the criterion below gives -\d.* at exit 1"
    with pytest.raises(UserError, match=words):
        try_criterion(Below(), network, bright_data)
    with pytest.raises(UserError, match=words.replace("exit 1", "exit 2")):
        trace(network, (Entropy(), Below()), *split)
    try_criterion(Entropy(), network, bright_data)
    try_criterion(LearnsBelow(), network, bright_data)  # it has learned nothing yet


class Forgetting(Patience):
    """What it hands on has no room for a class."""

    def forward(self, logits, state):
        uncertainty, state = super().forward(logits, state)
        return uncertainty, state[:, 0]


@torch.no_grad()
def test_a_criterion_that_looks_back_sees_the_answers_of_all_exits_before(bright_network, bright_data):
    network = bright_network().with_shares((0, 0.9))
    x, label = next(bright_data.batches("test", 10_000))
    found = trace(network, Patience(), x, label)
    agree = found.prediction[:, 0] == found.prediction[:, 1]
    assert 0 < agree.sum() < len(x)
    assert torch.equal(
        found.uncertainty, torch.stack([torch.ones(len(x)), torch.where(agree, 0.5, 1.0)], dim=1)
    )
    theirs = own_trace(
        ENGINES["torch"], 1, lambda: [x], label, bright_data.input_shape, network, (Patience(),) * 2
    )
    assert torch.equal(theirs.uncertainty, found.uncertainty) and torch.equal(theirs.alone, found.alone)
    try_criterion(Patience(), network, bright_data)
    with pytest.raises(UserError, match=r"^the criterion patience hands on \(16,\) float32 from exit 1"):
        try_criterion(Forgetting(), network, bright_data)


def test_outputs_that_are_not_finite_are_not_the_criterions_fault(bright_network, bright_data):
    network = bright_network()
    with torch.no_grad():
        network.heads[1].centres.fill_(float("nan"))
    with pytest.raises(UserError, match="the network's outputs at exit 2 are not finite"):
        trace(network, Entropy(), *next(bright_data.batches("test", 10_000)))
