"""What happens between one exit and the next: segment, head and criterion.

Shapes: K classes, N exits, R rows.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from branchynet.exits.criteria import Criterion
from branchynet.networks.branched import BranchedNetwork
from branchynet.networks.shared_start import with_shared_starts
from branchynet.runtime.for_inference import for_inference, frozen

# From features (R, …) to those after the segment, logits (R, K) and uncertainty (R,).
TensorStep = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


class ExitStep(nn.Module):
    """From features (R, …) to those after the segment, logits (R, K) and uncertainty (R,)."""

    def __init__(self, segment: nn.Module, head: nn.Module, criterion: Criterion) -> None:
        super().__init__()
        self.segment, self.head, self.criterion = segment, head, criterion

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.function()(x)

    def function(self, form: Callable[[nn.Module], Callable[[Tensor], Tensor]] | None = None) -> TensorStep:
        """The same without what a module's attributes and hooks cost at batch 1: two microseconds an exit.

        Args:
            form: what segment and head are called as, such as `branchynet.runtime.flat.flat`; None: as modules.
        """
        segment: Callable[[Tensor], Tensor] = form(self.segment) if form else self.segment
        head: Callable[[Tensor], Tensor] = form(self.head) if form else self.head
        criterion = self.criterion
        if not criterion.of_features:
            unsure = criterion.forward

            def step(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
                features = segment(x)
                logits = head(features)
                return features, logits, unsure(logits)

            return step

        def step_of_features(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            features = segment(x)
            logits = head(features)
            return features, logits, criterion(logits, features)

        return step_of_features


class ModelStep(nn.Module):
    """A step as an exported model has it: (prediction, uncertainty[, confidence][, features]).

    Args:
        step: what it does.
        forwards: whether the features are given, for the next step.
        confidence: whether the largest softmax probability is.
    """

    def __init__(self, step: ExitStep, forwards: bool, confidence: bool = False) -> None:
        super().__init__()
        self.step, self.forwards, self.confidence = step, forwards, confidence

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features, logits, uncertainty = self.step(x)
        outputs = [logits.argmax(dim=1), uncertainty]
        if self.confidence:
            outputs.append(logits.float().softmax(dim=1).amax(dim=1))
        return (*outputs, features) if self.forwards else tuple(outputs)


def without_repeats(network: BranchedNetwork, criteria: Sequence[Criterion]) -> BranchedNetwork:
    """The network as engines and exports run it: what a head and the trunk behind it begin with is run once.

    Not where a criterion looks at the features at an exit's place: they have to be those that it was fitted on.
    """
    if any(criterion.of_features for criterion in criteria):
        return network
    return with_shared_starts(network)


def exit_steps(network: BranchedNetwork, criteria: Sequence[Criterion]) -> list[ExitStep]:
    """N steps that, one after the other, are the network; they share its parameters, in its mode."""
    return [ExitStep(*parts) for parts in zip(network.segments, network.heads, criteria, strict=True)]


def steps_for_inference(
    network: BranchedNetwork, criteria: Sequence[Criterion], device: str | torch.device = "cpu"
) -> list[ExitStep]:
    """Copies on the device in eval mode, as PyTorch's engines run them: other forms round otherwise."""
    network = without_repeats(network, criteria)
    return [
        ExitStep(for_inference(segment, device), for_inference(head, device), frozen(criterion, device))
        for segment, head, criterion in zip(network.segments, network.heads, criteria, strict=True)
    ]
