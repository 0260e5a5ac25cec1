"""Segment, head and criterion as one step: the network's own numbers, and what a model hands out of them."""

import pytest
import torch
from torch import nn

from branchynet.exits.criteria import Entropy, judge
from branchynet.runtime.steps import ExitStep, ModelStep, exit_steps, steps_for_inference


@pytest.fixture
def x(images):
    return torch.from_numpy(images[:8])


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def check_chain(steps, network, criteria, x, check):
    """The steps, one after the other, against what the network and the criteria say."""
    with torch.no_grad():
        logits, features = network.with_features(x)
        handed, state = [], None
        for step, out, at, criterion in zip(steps, logits, features, criteria, strict=True):
            x, found, uncertainty, *handed = step(x, *handed)
            check(x, at)
            check(found, out)
            expected, state = judge(criterion, out, at, state)
            check(uncertainty, expected)
            for ours in handed:
                check(ours, state)
        assert not handed, "nobody reads what the last exit remembers"


def test_steps_one_after_the_other_are_the_network(network, own_criteria, x):
    steps = exit_steps(network, own_criteria)
    check_chain(
        steps, network, own_criteria, x, lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=0)
    )
    check_chain(
        [step.function() for step in steps],
        network,
        own_criteria,
        x,
        lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=0),
    )


def test_they_share_the_networks_parts_and_change_nothing(network):
    criterion = Entropy()
    steps = exit_steps(network, [criterion] * 3)
    for n, step in enumerate(steps):
        assert step.segment is network.segments[n] and step.head is network.heads[n]
        assert step.criterion is criterion
    network.train()
    try:
        assert all(step.segment.training for step in exit_steps(network, [criterion] * 3))
    finally:
        network.eval()


def test_every_exit_needs_a_criterion(network):
    with pytest.raises(ValueError, match="zip"):
        exit_steps(network, [Entropy()] * 2)
    with pytest.raises(ValueError, match="zip"):
        steps_for_inference(network, [Entropy()] * 2)


def called_norms(steps):
    """How many normalisations the steps run."""
    count = 0

    def hook(*_):
        nonlocal count
        count += 1

    for step in steps:
        for layer in step.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.register_forward_hook(hook)
    return lambda: count


def test_for_inference_they_are_copies_in_its_form(network, own_criteria, x):
    network.train()
    try:
        steps = steps_for_inference(network, own_criteria)
        assert network.training
    finally:
        network.eval()
    assert not any(step.segment.training or step.head.training or step.criterion.training for step in steps)
    ran = called_norms(steps)
    check_chain(steps, network, own_criteria, x, close)
    assert ran() == 0, "they are in the convolutions"
    theirs = {id(tensor) for module in (network, *own_criteria) for tensor in tensors(module)}
    assert not theirs & {id(tensor) for step in steps for tensor in tensors(step)}
    assert not any(parameter.requires_grad for step in steps for parameter in step.parameters())


def tensors(module):
    return [*module.parameters(), *module.buffers()]


@pytest.mark.parametrize("forwards", [False, True])
@pytest.mark.parametrize("confidence", [False, True])
def test_a_model_hands_out_what_is_asked_of_it(forwards, confidence, x):
    torch.manual_seed(0)
    step = ExitStep(nn.Flatten(), nn.Linear(144, 10), Entropy())
    with torch.no_grad():
        features, logits, uncertainty = step(x)
        found = ModelStep(step, forwards, confidence)(x)
    expected = [logits.argmax(dim=1), uncertainty]
    expected += [logits.softmax(dim=1).max(dim=1).values] if confidence else []
    expected += [features] if forwards else []
    assert isinstance(found, tuple)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@torch.no_grad()
def test_a_step_averages_with_the_answer_before(network, x):
    shares = (0, 0.25, 0.5)
    own = network(x)
    second = 0.75 * own[1] + 0.25 * own[0]
    expected = [own[0], second, 0.5 * own[2] + 0.5 * second]
    steps = exit_steps(network.with_shares(shares), [Entropy()] * 3)
    for own_too in (False, True):
        features, handed = x, []
        for n, step in enumerate(steps):
            features, answer, uncertainty, *handed = step.function(own=own_too)(features, *handed)
            torch.testing.assert_close(answer, expected[n])
            torch.testing.assert_close(uncertainty, Entropy()(answer))
            assert not own_too or torch.equal(handed.pop(0), own[n])
            assert len(handed) == (n < 2) and all(each is answer for each in handed)
    with pytest.raises(ValueError, match=r"0 tensors beside the features, where this exit takes 1"):
        steps[1](network.segments[0](x))
    *_, answer = ModelStep(steps[1], forwards=True)(network.segments[0](x), own[0])
    torch.testing.assert_close(answer, second)
