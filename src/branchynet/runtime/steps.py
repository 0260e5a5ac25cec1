"""What happens between one exit and the next: segment, head, the average with the answer before, and criterion.

What an exit hands on stands in one order everywhere: features, then the answer where the next exit averages, then
the criterion's state where it looks back. Shapes: K classes, N exits, R rows, W numbers of a state.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from branchynet.exits.combining import average
from branchynet.exits.criteria import Criterion, judge
from branchynet.exits.trace import certainty
from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.shared_start import with_shared_starts
from branchynet.networks.tree import OnTop, features_in, path_of
from branchynet.runtime.for_inference import for_inference, frozen

# From features (R, …), and what else the step before hands on, to the features after the segment, the answer
# (R, K), the uncertainty (R,) and what else this step hands on.
TensorStep = Callable[..., tuple[Tensor, ...]]


class HandsOn(NamedTuple):
    """What goes from one exit to the next beside the features."""

    answer: bool = False  # (R, K), where the next exit averages with it
    state: bool = False  # (R, W), where the next exit's criterion looks back


NOTHING = HandsOn()


class ExitStep(nn.Module):
    """From features (R, …) to those after the segment, the exit's answer (R, K) and uncertainty (R,).

    Args:
        share: how much of the answer is the one before, see `branchynet.exits.combining`; at 0 the answer is what
            the head says.
        takes: what the exit before hands on: one more argument each. The answer is there where `share` is above 0.
        gives: what this one hands on: one more result each.
    """

    def __init__(
        self,
        segment: nn.Module,
        head: nn.Module,
        criterion: Criterion,
        share: float = 0.0,
        takes: HandsOn = NOTHING,
        gives: HandsOn = NOTHING,
    ) -> None:
        super().__init__()
        self.segment, self.head, self.criterion, self.share = segment, head, criterion, share
        self.takes, self.gives = takes, gives

    def of(self, segment: nn.Module, head: nn.Module, criterion: Criterion) -> "ExitStep":
        """The same step of these parts."""
        return ExitStep(segment, head, criterion, self.share, self.takes, self.gives)

    def forward(self, x: Tensor, *handed: Tensor) -> tuple[Tensor, ...]:
        return self.function()(x, *handed)

    def function(
        self, form: Callable[[nn.Module], Callable[[Tensor], Tensor]] | None = None, own: bool = False
    ) -> TensorStep:
        """The same without what a module's attributes and hooks cost at batch 1: two microseconds an exit.

        Args:
            form: what segment and head are called as, such as `branchynet.runtime.flat.flat`; None: as modules.
            own: whether it also gives the head's logits, before they are averaged: right after the uncertainty.
        """
        segment: Callable[[Tensor], Tensor] = form(self.segment) if form else self.segment
        head: Callable[[Tensor], Tensor] = form(self.head) if form else self.head
        criterion, share, takes, gives = self.criterion, self.share, self.takes, self.gives
        of_features, unsure = criterion.of_features, criterion.forward
        if own or criterion.of_history or any(takes) or any(gives):
            wanted = sum(takes)

            def handing(x: Tensor, *handed: Tensor) -> tuple[Tensor, ...]:
                if len(handed) != wanted:
                    raise ValueError(
                        f"{len(handed)} tensors beside the features, where this exit takes {wanted}: what the "
                        "step before gives after its uncertainty"
                    )
                features = segment(x)
                logits = answer = head(features)
                if takes.answer:
                    answer = average(logits, handed[0], share)
                uncertainty, state = judge(criterion, answer, features, handed[-1] if takes.state else None)
                found = (features, answer, uncertainty, *((logits,) if own else ()))
                if gives.answer:
                    found += (answer,)
                if gives.state and state is not None:
                    found += (state,)
                return found

            return handing
        if not of_features:

            def step(x: Tensor) -> tuple[Tensor, ...]:
                features = segment(x)
                logits = head(features)
                return features, logits, unsure(logits)

            return step

        def step_of_features(x: Tensor) -> tuple[Tensor, ...]:
            features = segment(x)
            logits = head(features)
            return features, logits, unsure(logits, features)

        return step_of_features


class ModelStep(nn.Module):
    """A step as an exported model has it: (prediction, uncertainty[, confidence][, features][, answer][, state]).

    Args:
        step: what it does; it says what goes from model to model beside the features.
        forwards: whether the features are given, for the next step.
        confidence: whether the largest softmax probability is.
    """

    def __init__(self, step: ExitStep, forwards: bool, confidence: bool = False) -> None:
        super().__init__()
        self.step, self.forwards, self.confidence = step, forwards, confidence

    # Two arguments and no star: exporters know inputs by their names.
    def forward(
        self, x: Tensor, first: Tensor | None = None, second: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        handed = [each for each in (first, second) if each is not None]
        features, answer, uncertainty, *behind = self.step(x, *handed)
        outputs = [answer.argmax(dim=1), uncertainty]
        if self.confidence:
            outputs.append(certainty(answer))
        if self.forwards:
            outputs.append(features)
        return (*outputs, *behind)


def without_repeats(network: BranchedNetwork, criteria: Sequence[Criterion]) -> BranchedNetwork:
    """The network as engines and exports run it: what a head and the trunk behind it begin with is run once.

    Not where a criterion looks at the features at an exit's place: they have to be those that it was fitted on.
    """
    network = path_of(network)
    if any(criterion.of_features for criterion in criteria):
        return network
    return with_shared_starts(network)


def exit_steps(network: BranchedNetwork, criteria: Sequence[Criterion]) -> list[ExitStep]:
    """N steps that, one after the other, are the network; they share its parameters, in its mode."""
    network = path_of(network)
    criteria = [_at_head(*each) for each in zip(network.heads, criteria, strict=True)]
    shares = network.shares or (0.0,) * network.num_exits
    behind = [
        HandsOn(answer=share > 0, state=criterion.of_history and following.of_history)
        for share, (criterion, following) in zip(shares[1:], pairwise(criteria), strict=True)
    ]
    parts = (network.segments, network.heads, criteria, shares, [NOTHING, *behind], [*behind, NOTHING])
    return [ExitStep(*each) for each in zip(*parts, strict=True)]


class AtHead(Criterion):
    """A criterion that looks at the features of an exit inside a head, where they lie on top of a stack."""

    def __init__(self, criterion: Criterion, head: OnTop) -> None:
        super().__init__()
        self.criterion, self.stack, self.of = criterion, head.stack, head.of
        self.name, self.unit = criterion.name, criterion.unit  # type: ignore[misc]
        self.of_features, self.of_history = True, criterion.of_history  # type: ignore[misc]

    def forward(self, logits: Tensor, features: Tensor, *state: Tensor | None) -> object:
        return self.criterion.forward(logits, features_in(features, self.stack, self.of), *state)


def _at_head(head: nn.Module, criterion: Criterion) -> Criterion:
    return AtHead(criterion, head) if isinstance(head, OnTop) and criterion.of_features else criterion


def steps_for_inference(
    network: BranchedNetwork, criteria: Sequence[Criterion], device: str | torch.device = "cpu"
) -> list[ExitStep]:
    """Copies on the device in eval mode, as PyTorch's engines run them: other forms round otherwise."""
    network = without_repeats(network, criteria)
    return [
        step.of(
            for_inference(step.segment, device),
            for_inference(step.head, device),
            frozen(step.criterion, device),
        )
        for step in exit_steps(network, criteria)
    ]
