"""OpenMax: softmax with one class more, for what is like none of the known ones.

Shapes: B batch, K classes, S samples.
"""

import torch
from torch import Tensor

from branchynet.errors import check_whole
from branchynet.exits.criteria import Criterion

FEW = 5  # right answers of a class: with fewer, its distances say nothing


class OpenMax(Criterion):
    """1 - the largest probability of a known class, after Bendale and Boult (2016), Algorithms 1 and 2.

    A class is the mean of the logits that are rightly answered with it. How far the farthest of these are from it
    is a Weibull distribution, whose F says how surely a distance is too large for the class. The `alpha` largest
    logits lose the share F of their value, the largest one most, and the unknown class gets what they lose; then
    comes the softmax over K + 1. Logits have no zero of their own: here it is their mean, and below it none loses.

    Fitted on samples that trained nothing, where the paper takes the training samples.

    Args:
        tail: how many of a class's farthest answers the Weibull distribution is of.
        alpha: how many of the largest logits are changed; at most K.
    """

    name = "openmax"
    unit = "0 to 1"
    learns = True
    of_probability = True

    mean: Tensor
    start: Tensor
    scale: Tensor
    shape: Tensor
    known: Tensor
    weight: Tensor

    def __init__(self, tail: int = 20, alpha: int = 1) -> None:
        super().__init__()
        check_whole("tail", tail, FEW)
        check_whole("alpha", alpha)
        self.tail, self.alpha = tail, alpha

    def largest(self, num_classes: int) -> float:
        return 1.0

    def least(self, num_classes: int) -> int:
        return 10 * num_classes

    def prepare(self, num_classes: int, shape: tuple[int, ...]) -> None:
        self.register_buffer("mean", torch.zeros(num_classes, num_classes))
        for name in ("start", "known"):
            self.register_buffer(name, torch.zeros(num_classes))
        for name in ("scale", "shape"):
            self.register_buffer(name, torch.ones(num_classes))
        rank = torch.arange(num_classes, dtype=torch.float32)
        self.register_buffer("weight", (1 - rank / min(self.alpha, num_classes)).clamp(min=0))

    def fit(
        self, logits: Tensor, label: Tensor, features: Tensor | None = None, state: Tensor | None = None
    ) -> None:
        from scipy.stats import weibull_min  # only here: it takes a while to import

        right = logits.argmax(dim=1) == label
        logits = (logits - logits.mean(dim=1, keepdim=True)).double()
        for k in range(len(self.known)):
            own = logits[right & (label == k)]
            if len(own) < FEW:
                continue
            mean = own.mean(dim=0)
            rising = (own - mean).norm(dim=1).sort().values
            tail = rising[-self.tail :]
            # Up to where the tail begins nothing is too far.
            start = rising[-self.tail - 1] if len(rising) > self.tail else rising.new_zeros(())
            if (tail[-1] - start) <= 1e-6 * tail[-1].clamp(min=1e-6):
                continue  # all are at one place
            beyond = (tail - start).clamp(min=1e-3 * float(tail[-1] - start)).numpy()
            shape, _, scale = weibull_min.fit(beyond, floc=0)
            self.mean[k], self.start[k], self.known[k] = mean.float(), start.float(), 1
            self.shape[k], self.scale[k] = float(shape), float(scale)

    def note(self) -> str:
        without = int((self.known == 0).sum())
        return (
            f"{without} of {len(self.known)} classes have too few right answers to be unlike"
            if without
            else ""
        )

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, 1 + K): of the unknown class, then of the known ones, by the size of their logits, largest first."""
        logits = logits.float()
        logits = logits - logits.mean(dim=1, keepdim=True)
        apart = logits[:, None] - self.mean
        # As a matrix product, so that it counts.
        distance = (apart[:, :, None] @ apart[..., None])[:, :, 0, 0].sqrt()
        beyond = ((distance - self.start) / self.scale).clamp(min=0)
        too_far = self.known * (1 - (-(beyond**self.shape)).exp())
        largest, index = logits.topk(logits.shape[1], dim=1)
        lost = largest.clamp(min=0) * self.weight * too_far.gather(1, index)
        return torch.cat([lost.sum(dim=1, keepdim=True), largest - lost], dim=1).softmax(dim=1)

    def forward(self, logits: Tensor) -> Tensor:
        """(B, K) to (B,)."""
        p = self.probabilities(logits)
        known = p[:, 1:]
        # Added, not subtracted from 1: so it keeps its digits where that is near 0.
        others = known.topk(known.shape[1] - 1, dim=1, largest=False).values
        return p[:, 0] + others.sum(dim=1)
