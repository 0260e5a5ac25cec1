"""How unsure an exit is: modules from its logits (B, K), K ≥ 2, to its uncertainty (B,) float32.

Lower is surer, never below 0 and never nan for finite logits, so that a threshold of 0 keeps everybody. They
compute in float32 whatever the logits' type, since float32 is what thresholds and traces are. Each is a handful
of operations: at batch 1 an operation costs a microsecond and is part of an exit's price.

A criterion belongs to an exit as its head does: it runs on every engine and in every export, and its cost counts.
"""

import copy
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from branchynet.errors import UserError

# Far below any probability that adds to an entropy, and a normal float32: ln of it is finite.
TINY = 1e-37
# Where exp gives 0 in float32. Below it a logit says no more, and -inf · 0 would be nan.
LEAST = -104.0


class Criterion(nn.Module):
    """What every criterion is. The arguments of its constructor are its settings, plain values.

    Attributes:
        name: in results, tables and figures.
        unit: of the uncertainty, such as `nats` or `0 to 1`.
        learns: whether it has something to learn. Then every exit gets a copy of its own, which is prepared,
            and fitted once training has ended; its state dict lies in the run. Others are shared by all exits.
        of_features: whether `forward` also takes the features (B, …) at the exit's place on the trunk.
        of_history: whether it looks back. Then `forward` also takes the state (B, W) float32 that it gave at the
            exit before, as its last argument, at exit 1 None; and gives (uncertainty, state). W, the same at all
            exits, numbers an image go from exit to exit on every engine and in every export. Exits are passed one
            after the other, so a state may know of all of them.
        of_probability: whether 1 - uncertainty is said to be the probability that the exit is right. Then that is
            what a report calibrates, and not the largest softmax probability.
    """

    name: ClassVar[str]
    unit: str
    learns: bool = False  # of an instance, where its settings say so
    of_features: bool = False  # likewise
    of_history: ClassVar[bool] = False
    of_probability: bool = False  # likewise

    def largest(self, num_classes: int) -> float | None:
        """The largest uncertainty that there can be among K classes, but for rounding; None: not known."""
        return None

    def prepare(self, num_classes: int, shape: tuple[int, ...]) -> None:
        """Make room for what is to be learned: parameters and buffers, at their initial values.

        Args:
            num_classes: K.
            shape: of the features at the exit's place, without the batch: (C, H, W), or (features,).
        """

    def least(self, num_classes: int) -> int:
        """The fewest samples that it can learn from, S; fewer are refused before training begins."""
        return 1

    def note(self) -> str:
        """What is to be told of what it has learned, in some words; empty: nothing."""
        return ""

    def kept(self, features: Tensor) -> Tensor:
        """What of the features (B, …) is kept for `fit`, (B, …); maps of all samples are more than memory bears.

        `forward` takes it in their place, too, where `of_history`. All of them, where it is not said otherwise.
        """
        return features

    def fit(
        self, logits: Tensor, label: Tensor, features: Tensor | None = None, state: Tensor | None = None
    ) -> None:
        """Learn from what one exit said of S samples that neither trained the network nor choose thresholds.

        Args:
            logits: (S, K) float32.
            label: (S,) int64.
            features: (S, …) where it is `of_features`, what is `kept` of them, else None.
            state: (S, W) where it is `of_history`, from the exit before, fitted already; given to no other.
        """


class Entropy(Criterion):
    """`-Σ p ln p` in nats, 0 … ln K, p the softmax (Teerapittayanon et al., 2016, section III-C).

    A probability that is 0 in float32 adds 0 · ln TINY = 0. The error is some 1e-7 · K, absolute: the
    entropy of very sure samples, below 1e-5 or so, has fewer digits than float32.

    >>> import torch
    >>> Entropy()(torch.tensor([[0.0, 0.0], [1e4, -1e4]]))
    tensor([0.6931, 0.0000])
    """

    name = "entropy"
    unit = "nats"

    def largest(self, num_classes: int) -> float:
        return math.log(num_classes)

    def forward(self, logits: Tensor) -> Tensor:
        """(B, K) to (B,); (B, K, H, W) to (B, H, W)."""
        if logits.ndim > 2:
            shifted, weights, total = _weights(logits)
            return total.log() - (weights * shifted).sum(dim=1) / total
        p = logits.float().softmax(dim=1)
        if not torch.compiler.is_exporting():
            return torch.special.entr(p).sum(dim=1)
        # The same in operations that other engines have; there they cost less than `entr` taken apart.
        return (p * -p.clamp(min=TINY).log()).sum(dim=1)


class MaxProbability(Criterion):
    """`1 - max p`, 0 … 1 - 1/K.

    >>> import torch
    >>> MaxProbability()(torch.tensor([[0.0, 0.0], [20.0, 0.0]]))
    tensor([5.0000e-01, 2.0612e-09])
    """

    name = "max_probability"
    unit = "0 to 1"
    of_probability = True

    def largest(self, num_classes: int) -> float:
        return 1 - 1 / num_classes

    def forward(self, logits: Tensor) -> Tensor:
        """(B, K) to (B,); (B, K, H, W) to (B, H, W)."""
        if logits.ndim > 2:
            _, _, total = _weights(logits)
            return 1 - 1 / total
        return _others(logits).sum(dim=1)


class Margin(Criterion):
    """`1 - (p_1 - p_2)`, 0 … 1, p_1 and p_2 the two largest probabilities.

    >>> import torch
    >>> Margin()(torch.tensor([[0.0, 0.0], [20.0, 0.0]]))
    tensor([1.0000e+00, 4.1223e-09])
    """

    name = "margin"
    unit = "0 to 1"

    def largest(self, num_classes: int) -> float:
        return 1.0

    def forward(self, logits: Tensor) -> Tensor:
        """(B, K) to (B,); (B, K, H, W) to (B, H, W)."""
        if logits.ndim > 2:
            _, weights, total = _weights(logits)
            return 1 - (1 - weights.topk(2, dim=1).values[:, 1]) / total
        others = _others(logits)
        return (others.sum(dim=1) + others[:, -1]).clamp(max=1)


def for_exits(
    criterion: Criterion, shapes: Sequence[tuple[int, ...]], num_classes: int
) -> tuple[Criterion, ...]:
    """One criterion for each of N exits: the very same for all, or, where it learns, a copy each, prepared.

    Args:
        criterion: as its settings made it.
        shapes: N, of the features at the exits' places, without the batch.
        num_classes: K.
    """
    if not criterion.learns:
        return (criterion,) * len(shapes)
    made = tuple(copy.deepcopy(criterion) for _ in shapes)
    for own, shape in zip(made, shapes, strict=True):
        own.prepare(num_classes, shape)
        own.eval()
    return made


def judge(
    criterion: Criterion, answer: Tensor, features: Tensor | None, state: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The uncertainty (R,) of an exit's answers (R, K) and, where the criterion looks back, its state (R, W).

    Args:
        features: (R, …) at the exit's place; None will do where it does not look at them.
        state: from the exit before; None at the first exit.
    """
    given = [answer, features] if criterion.of_features else [answer]
    if criterion.of_history:
        return criterion.forward(*given, state)
    return criterion.forward(*given), None


def check_state(
    criterion: Criterion, exit: int, state: Tensor | None, samples: int, width: int | None = None
) -> None:
    """A UserError unless this is what a criterion that looks back may hand on.

    Args:
        criterion: who gave it.
        exit: where, from 1.
        state: should be (S, W) float32.
        samples: S.
        width: W, as at the exit before; None: there is none.
    """
    fits = state is not None and state.ndim == 2 and len(state) == samples and state.dtype == torch.float32
    if not fits or width not in (None, state.shape[1]):  # type: ignore[union-attr]
        raise UserError(
            f"{_who(criterion)} hands on {_kind(state)} from exit {exit}: for {samples} images it is "
            f"({samples}, {'W' if width is None else width}) float32, the same at all exits"
        )


def check_uncertainty(criterion: Criterion, exit: int, uncertainty: Tensor, samples: int) -> None:
    """A UserError unless this is what a criterion may give: a threshold has to compare with all of it.

    Args:
        criterion: who gave it.
        exit: where, from 1.
        uncertainty: should be (S,) float32, finite and 0 or more.
        samples: S.
    """
    who = _who(criterion)
    if uncertainty.shape != (samples,) or uncertainty.dtype != torch.float32:
        raise UserError(
            f"{who} gives {_kind(uncertainty)} at exit {exit}: for {samples} images it is ({samples},) float32"
        )
    wrong = uncertainty[~(uncertainty.isfinite() & (uncertainty >= 0))]
    if len(wrong):
        raise UserError(
            f"{who} gives {wrong[0].item():g} at exit {exit}, for {len(wrong)} of {samples} images: an uncertainty "
            "is finite and 0 or more"
        )


def one_per_exit(criteria: Criterion | Sequence[Criterion], num_exits: int) -> tuple[Criterion, ...]:
    """N criteria from N of them, or from one that all exits share."""
    if isinstance(criteria, nn.Module):
        return (criteria,) * num_exits
    if len(criteria) != num_exits:
        raise ValueError(f"{len(criteria)} criteria do not fit {num_exits} exits")
    return tuple(criteria)


def _who(criterion: Criterion) -> str:
    return f"the criterion {getattr(criterion, 'name', type(criterion).__name__)}"


def _kind(tensor: Tensor | None) -> str:
    if tensor is None:
        return "nothing"
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _others(logits: Tensor) -> Tensor:
    """(B, K-1): all probabilities but the largest, rising.

    `1 - p_1` is what they add up to. Added, not subtracted from 1, it keeps its digits: near p_1 = 1 float32
    has steps of 6e-8, and samples surer than that could not be told apart.
    """
    p = logits.float().softmax(dim=1)
    return p.topk(p.shape[1] - 1, dim=1, largest=False).values


def _weights(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of maps (B, K, H, W): logits less the pixel's largest, their exp (its largest is 1), and the sum of those.

    What probabilities are made of, in operations along the classes that every engine does at once for all pixels.
    A softmax along a dimension that is not the last takes several times as long, in PyTorch and in ONNX Runtime. A
    pixel surer than 1 - 6e-8 counts as 0; for one answer an image `_others` keeps such digits, at more operations.
    """
    logits = logits.float()
    shifted = (logits - logits.amax(dim=1, keepdim=True)).clamp(min=LEAST)
    weights = shifted.exp()
    return shifted, weights, weights.sum(dim=1)
