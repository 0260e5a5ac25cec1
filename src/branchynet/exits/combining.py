"""What an exit answers: what its own head says, or a weighted mean of that and of what the earlier exits answered.

The answer of exit n is r_n = (1 - s_n) z_n + s_n r_{n-1}, r_1 = z_1, with z_n its head's logits and the share s_n,
0 … 1, how much of the answer is the earlier exits'. Logits are log-probabilities but for a constant per sample,
which softmax, argmax and entropy do not see: so this is the weighted mean of the exits' log-probabilities. From
exit to exit goes the last answer alone. Shapes: K classes, N exits, S samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from branchynet.errors import is_number, not_allowed

Shares = tuple[float, ...]  # N, the first one 0
# From nothing to N logits (S, K) of the heads and labels (S,), of samples that neither trained them nor choose.
LogitsAndLabel = Callable[[], tuple[Sequence[Tensor], Tensor]]

STEPS = 100  # shares that are tried: 0, 0.01, … 1
ROUNDING = 1e-12  # of a mean cross-entropy


class Combining(ABC):
    """Where the exits' shares come from. The arguments of its constructor are its settings, plain values."""

    name: ClassVar[str]

    @property
    def fits(self) -> bool:
        """Whether it asks for outputs: then images are set aside for it, which choose no thresholds."""
        return False

    def check(self, num_exits: int) -> None:  # noqa: B027 - most have nothing to look at
        """An ArgumentError where its settings do not fit a network of N exits."""

    @abstractmethod
    def find(self, num_exits: int, outputs: LogitsAndLabel) -> Shares | None:
        """The shares of N exits; None: every exit answers with what its own head says."""


@dataclass(frozen=True)
class Separate(Combining):
    """Every exit answers with what its own head says, as in the paper."""

    name: ClassVar = "none"

    def find(self, num_exits: int, outputs: LogitsAndLabel) -> None:
        return None


@dataclass(frozen=True)
class Average(Combining):
    """Every exit answers with the mean of its own head and of the answer before it.

    Args:
        shares: N numbers; None fits them, see `fit_shares`.

    Raises:
        ArgumentError: numbers that are no shares.
    """

    name: ClassVar = "average"
    shares: Sequence[float] | None = None

    def __post_init__(self) -> None:
        shares = self.shares
        if shares is None:
            return
        if (
            isinstance(shares, str)
            or not isinstance(shares, Sequence)
            or not all(is_number(share) and 0 <= share <= 1 for share in shares)
            or not shares
            or shares[0] != 0
        ):
            raise not_allowed(
                "shares", shares, "null for fitted ones, or one number for each exit, 0 … 1, the first one 0"
            )

    @property
    def fits(self) -> bool:
        return self.shares is None

    def check(self, num_exits: int) -> None:
        if self.shares is not None and len(self.shares) != num_exits:
            raise not_allowed("shares", list(self.shares), f"{num_exits} numbers, one for each exit")

    def find(self, num_exits: int, outputs: LogitsAndLabel) -> Shares:
        self.check(num_exits)
        if self.shares is not None:
            return tuple(map(float, self.shares))
        return fit_shares(*outputs())


def average(own: Tensor, previous: Tensor, share: float) -> Tensor:
    """An exit's answer (S, K) from its head's logits (S, K) and the answer before it (S, K)."""
    return torch.add(own * (1 - share), previous, alpha=share)


def answers(logits: Sequence[Tensor], shares: Shares | None) -> list[Tensor]:
    """N answers (S, K) from the N heads' logits (S, K)."""
    if shares is None:
        return list(logits)
    found: list[Tensor] = []
    for own, share in zip(logits, shares, strict=True):
        found.append(average(own, found[-1], share) if share else own)
    return found


def fit_shares(logits: Sequence[Tensor], label: Tensor) -> Shares:
    """From shallow to deep, each exit's share with the least mean cross-entropy of its answer, earlier ones kept.

    That is convex in the share, for the answer is linear in it; of equal ones the smallest is taken.

    Args:
        logits: N, (S, K).
        label: (S,) int64.
    """
    shares = [0.0]
    before = logits[0].double()
    for own in logits[1:]:
        own = own.double()

        def loss(step: int, own: Tensor = own, before: Tensor = before) -> float:
            return torch.nn.functional.cross_entropy(average(own, before, step / STEPS), label).item()

        low, high = 0, STEPS
        while low < high:  # the first one that the next is no better than
            middle = (low + high) // 2
            if loss(middle + 1) < loss(middle) - ROUNDING:
                low = middle + 1
            else:
                high = middle
        shares.append(low / STEPS)
        before = average(own, before, low / STEPS)
    return tuple(shares)
