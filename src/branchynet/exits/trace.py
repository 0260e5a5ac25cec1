"""What every exit says of every sample: all that a sweep needs.

Shapes: B batch, K classes, N exits, S samples.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

# What not every trace has.
OPTIONAL = ("alone", "confidence")


@dataclass(frozen=True, eq=False)
class Trace:
    """Every exit's uncertainty and prediction for every sample, and the labels, in the data set's order.

    Raises:
        ValueError: shapes or types that do not fit, or an uncertainty that is negative or not finite.
    """

    uncertainty: Tensor  # (S, N) float32, ≥ 0
    prediction: Tensor  # (S, N) int64
    label: Tensor  # (S,) int64
    # (S, N) int64: what each head by itself predicts, where exits answer with an average; None: they do not.
    alone: Tensor | None = None
    # (S, N) float32: the largest softmax probability of each answer; None: an engine or an older trace has none.
    confidence: Tensor | None = None

    # Whether an answer may be partly right. Then `correct` is float64, 0 … 1, and its sums are exact.
    partly: ClassVar[bool] = False

    def __post_init__(self) -> None:
        shape = tuple(self.uncertainty.shape)
        self._check(shape)
        for name, expected, dtype in (
            ("prediction", shape, torch.int64),
            ("label", shape[:1], torch.int64),
            ("alone", shape, torch.int64),
            ("confidence", shape, torch.float32),
        ):
            value = getattr(self, name)
            if value is None and name in OPTIONAL:
                continue
            if tuple(value.shape) != expected or value.dtype != dtype:
                raise ValueError(f"{name} is {tuple(value.shape)} {value.dtype}, not {expected} {dtype}")

    def _check(self, shape: tuple[int, ...]) -> None:
        """Of the uncertainty, whose shape this is."""
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"uncertainty is {tuple(shape)}, not (S, N) with at least one sample and exit")
        if self.uncertainty.dtype != torch.float32:
            raise ValueError(
                f"uncertainty is {tuple(shape)} {self.uncertainty.dtype}, not {tuple(shape)} torch.float32"
            )
        if not torch.isfinite(self.uncertainty).all():
            raise ValueError("an uncertainty is not finite: the network's outputs are not")
        if (self.uncertainty < 0).any():
            raise ValueError("an uncertainty is negative: a threshold of 0 could not keep everybody")

    @property
    def num_samples(self) -> int:
        """S."""
        return self.uncertainty.shape[0]

    @property
    def num_exits(self) -> int:
        """N."""
        return self.uncertainty.shape[1]

    def at(self, samples: Tensor) -> "Trace":
        """The trace of some of the samples, by their numbers (int64) or by a mask (S,)."""
        more = {name: getattr(self, name) for name in OPTIONAL}
        return Trace(
            self.uncertainty[samples],
            self.prediction[samples],
            self.label[samples],
            **{name: None if value is None else value[samples] for name, value in more.items()},
        )

    @property
    def correct(self) -> Tensor:
        """(S, N) bool: whether exit n is right about sample s."""
        return self.prediction == self.label[:, None]

    @property
    def good(self) -> Tensor:
        """(S, N) bool: whether leaving at exit n does sample s no harm: whether it is right."""
        return self.correct

    @property
    def correct_alone(self) -> Tensor:
        """(S, N) bool: whether head n by itself is right about sample s: what an exit that stands alone gives."""
        return self.correct if self.alone is None else self.alone == self.label[:, None]


# One exit after another: from features (B, …) and what else the step before hands on, at the first exit nothing, to
# the features after the exit's segment, its answer (B, K), the uncertainty (B,), its head's logits (B, K) if it was
# made to say so, and what else it hands on, any number of (B, …).
Step = Callable[..., Sequence[Tensor]]


# Looks at what exits have said, uncertainty and confidence (S, N) each, and raises what there is to raise.
Check = Callable[[Tensor, Tensor], None]


class Outputs(NamedTuple):
    """What every exit says of every sample."""

    prediction: Tensor  # (S, N) int64; of maps (S, N, H, W)
    uncertainty: Tensor  # (S, N) float32
    confidence: Tensor  # (S, N) float32, the largest softmax probability
    alone: Tensor | None = None  # (S, N) int64: what each head by itself predicts, where the steps say so


def certainty(answer: Tensor) -> Tensor:
    """(B,): the largest softmax probability of each answer (B, K); of maps (B, K, H, W) its pixels' mean."""
    most = answer.float().softmax(dim=1).amax(dim=1)
    return most if most.ndim == 1 else most.flatten(1).mean(dim=1)


def run_all(steps: Sequence[Step], batches: Iterable[Tensor], own: bool = False) -> Outputs:
    """One pass over images (B, …); every exit is run for every sample.

    Args:
        steps: N, see `Step`; in eval mode, if they have one.
        batches: on the steps' device and in the data set's order.
        own: whether the steps also give their heads' logits.

    Returns:
        On the CPU.
    """
    parts = []
    with torch.inference_mode():
        for x in batches:
            exits: list[tuple[Tensor, ...]] = []
            handed: list[Tensor] = []
            for step in steps:
                x, answer, uncertainty, *handed = step(x, *handed)
                confidence = certainty(answer)
                alone = [handed.pop(0).argmax(dim=1)] if own else []
                exits.append((answer.argmax(dim=1), uncertainty, confidence, *alone))
            parts.append([torch.stack(column, dim=1).cpu() for column in zip(*exits, strict=True)])
    # Joined outside of inference mode: plain tensors, usable anywhere.
    return Outputs(*(torch.cat(column) for column in zip(*parts, strict=True)))


def compute_trace(steps: Sequence[Step], images: Iterable[Tensor], label: Tensor, own: bool = False) -> Trace:
    """The trace of S samples, so that any thresholds can be tried afterwards. See `run_all`.

    Args:
        steps: N.
        images: batches that add up to S images.
        label: (S,) int64.
        own: as of `run_all`.
    """
    outputs = run_all(steps, images, own)
    return trace_of(outputs, label)


def trace_of(outputs: Outputs, label: Tensor) -> Trace:
    """With the labels (S,), what a pass over S samples gave is their trace."""
    return Trace(outputs.uncertainty, outputs.prediction, label.cpu(), outputs.alone, outputs.confidence)
