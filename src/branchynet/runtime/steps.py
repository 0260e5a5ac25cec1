"""What happens between one exit and the next: segment, head, the average with the answer before, and criterion.

Shapes: K classes, N exits, R rows.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from branchynet.exits.combining import average
from branchynet.exits.criteria import Criterion
from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.shared_start import with_shared_starts
from branchynet.runtime.for_inference import for_inference, frozen

# From features (R, …) and the answer before, (R, K), to the features after the segment, the answer (R, K) and the
# uncertainty (R,).
TensorStep = Callable[..., tuple[Tensor, ...]]


class ExitStep(nn.Module):
    """From features (R, …) to those after the segment, the exit's answer (R, K) and uncertainty (R,).

    Args:
        share: how much of the answer is the one before, see `branchynet.exits.combining`. Above 0 the step takes
            that as a second argument, (R, K); at 0 the answer is what the head says, and that is not read.
    """

    def __init__(self, segment: nn.Module, head: nn.Module, criterion: Criterion, share: float = 0.0) -> None:
        super().__init__()
        self.segment, self.head, self.criterion, self.share = segment, head, criterion, share

    def forward(self, x: Tensor, previous: Tensor | None = None) -> tuple[Tensor, ...]:
        return self.function()(x, previous)

    def function(
        self, form: Callable[[nn.Module], Callable[[Tensor], Tensor]] | None = None, own: bool = False
    ) -> TensorStep:
        """The same without what a module's attributes and hooks cost at batch 1: two microseconds an exit.

        Args:
            form: what segment and head are called as, such as `branchynet.runtime.flat.flat`; None: as modules.
            own: whether it also gives the head's logits, before they are averaged.
        """
        segment: Callable[[Tensor], Tensor] = form(self.segment) if form else self.segment
        head: Callable[[Tensor], Tensor] = form(self.head) if form else self.head
        criterion, share = self.criterion, self.share
        of_features, unsure = criterion.of_features, criterion.forward
        if share or own:

            def averaged(x: Tensor, previous: Tensor | None) -> tuple[Tensor, ...]:
                features = segment(x)
                logits = answer = head(features)
                if share:
                    if previous is None:
                        raise ValueError("this exit averages: it takes the answer of the exit before, too")
                    answer = average(logits, previous, share)
                uncertainty = criterion(answer, features) if of_features else unsure(answer)
                return (features, answer, uncertainty, logits) if own else (features, answer, uncertainty)

            return averaged
        if not of_features:

            def step(x: Tensor, previous: Tensor | None = None) -> tuple[Tensor, ...]:
                features = segment(x)
                logits = head(features)
                return features, logits, unsure(logits)

            return step

        def step_of_features(x: Tensor, previous: Tensor | None = None) -> tuple[Tensor, ...]:
            features = segment(x)
            logits = head(features)
            return features, logits, criterion(logits, features)

        return step_of_features


class ModelStep(nn.Module):
    """A step as an exported model has it: (prediction, uncertainty[, confidence][, features][, answer]).

    Args:
        step: what it does; it says whether the model takes the answer before.
        forwards: whether the features are given, for the next step.
        confidence: whether the largest softmax probability is.
        answers: whether the answer is, for the next step.
    """

    def __init__(
        self, step: ExitStep, forwards: bool, confidence: bool = False, answers: bool = False
    ) -> None:
        super().__init__()
        self.step, self.forwards, self.confidence, self.answers = step, forwards, confidence, answers

    def forward(self, x: Tensor, previous: Tensor | None = None) -> tuple[Tensor, ...]:
        features, answer, uncertainty = self.step(x, previous)
        outputs = [answer.argmax(dim=1), uncertainty]
        if self.confidence:
            outputs.append(answer.float().softmax(dim=1).amax(dim=1))
        if self.forwards:
            outputs.append(features)
        if self.answers:
            outputs.append(answer)
        return tuple(outputs)


def without_repeats(network: BranchedNetwork, criteria: Sequence[Criterion]) -> BranchedNetwork:
    """The network as engines and exports run it: what a head and the trunk behind it begin with is run once.

    Not where a criterion looks at the features at an exit's place: they have to be those that it was fitted on.
    """
    if any(criterion.of_features for criterion in criteria):
        return network
    return with_shared_starts(network)


def exit_steps(network: BranchedNetwork, criteria: Sequence[Criterion]) -> list[ExitStep]:
    """N steps that, one after the other, are the network; they share its parameters, in its mode."""
    parts = zip(network.segments, network.heads, criteria, _shares(network), strict=True)
    return [ExitStep(*each) for each in parts]


def steps_for_inference(
    network: BranchedNetwork, criteria: Sequence[Criterion], device: str | torch.device = "cpu"
) -> list[ExitStep]:
    """Copies on the device in eval mode, as PyTorch's engines run them: other forms round otherwise."""
    network = without_repeats(network, criteria)
    return [
        ExitStep(
            for_inference(step.segment, device),
            for_inference(step.head, device),
            frozen(step.criterion, device),
            step.share,
        )
        for step in exit_steps(network, criteria)
    ]


def read_on(steps: Sequence[ExitStep]) -> list[bool]:
    """N flags: whether the next step takes this one's answer."""
    return [*(bool(behind.share) for _, behind in pairwise(steps)), False]


def _shares(network: BranchedNetwork) -> tuple[float, ...]:
    return network.shares or (0.0,) * network.num_exits
