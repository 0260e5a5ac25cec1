"""A criterion that adds up: the confidences of neighbouring exits, as long as they agree.

Source: Bajpai and Hanawal, 2025, "BEEM: Boosting Performance of Early Exit DNNs using Multi-Exit Classifiers as
Experts", arXiv:2502.00745. Shapes: B batch, K classes, S samples.
"""

import torch
from torch import Tensor

from branchynet.errors import check_choice
from branchynet.exits.criteria import Criterion, MaxProbability

WEIGHTS = ("depth", "accuracy")


class Beem(Criterion):
    """1 - s / (w_1 + … + w_n), 0 … 1: how far exit n's score s falls short of the largest that there can be.

    With c_n the exit's largest probability and w_n its weight, s_n = w_n c_n + s_{n-1} where it predicts what exit
    n-1 does, and w_n c_n where not: then the earlier ones count no more. The paper leaves where s_n reaches a
    threshold, the same at all exits; here each exit has one of its own, so that the division by the weights changes
    nothing but the unit.

    Args:
        weights: `depth`, w_n = n (the paper's BEEM-C, but for a factor), or `accuracy`, how often exit n is right
            on the images that are fitted on (BEEM-A).

    Raises:
        ArgumentError: neither.
    """

    name = "beem"
    unit = "0 to 1"
    of_history = True

    weight: Tensor

    def __init__(self, weights: str = "depth") -> None:
        super().__init__()
        check_choice("weights", weights, WEIGHTS)
        self.learns = weights == "accuracy"
        self.doubt = MaxProbability()

    def largest(self, num_classes: int) -> float:
        return 1.0

    def prepare(self, num_classes: int, shape: tuple[int, ...]) -> None:
        self.register_buffer("weight", torch.ones(()))

    def fit(
        self, logits: Tensor, label: Tensor, features: Tensor | None = None, state: Tensor | None = None
    ) -> None:
        """The weight has to be above 0: an exit that is never right gets that of half a sample."""
        right = (logits.argmax(dim=1) == label).sum()
        self.weight.fill_(max(float(right), 0.5) / len(label))

    def forward(self, logits: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, K), and (B, 4) from the exit before, to (B,) and (B, 4).

        A state is what was predicted, what s falls short by, the sum of the weights and the last of them. Not s
        itself: near the largest score there is, what it falls short by would be lost in float32.
        """
        prediction, doubt = logits.argmax(dim=1).float(), self.doubt(logits)
        if state is None:
            weight = total = self.weight.expand_as(doubt) if self.learns else torch.ones_like(doubt)
            short = weight * doubt
        else:
            said, short, total, weight = state.unbind(dim=1)
            weight = self.weight.expand_as(doubt) if self.learns else weight + 1
            short = torch.where(prediction == said, short, total) + weight * doubt
            total = total + weight
        return short / total, torch.stack([prediction, short, total, weight], dim=1)
