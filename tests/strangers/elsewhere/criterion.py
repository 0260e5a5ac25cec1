"""A criterion with something to learn: the entropy at a temperature of the exit's own."""

import torch
from torch import Tensor
from torch.nn import functional as F

from branchynet import Criterion, Entropy


class CalibratedEntropy(Criterion):
    """Entropy of softmax(logits / t), t the one of so many temperatures with the least cross-entropy."""

    name = "calibrated_entropy"
    unit = "nats"
    learns = True

    temperature: Tensor

    def __init__(self, temperatures: int = 20) -> None:
        super().__init__()
        self.temperatures = temperatures
        self.entropy = Entropy()

    def prepare(self, num_classes: int, shape: tuple[int, ...]) -> None:
        """Nothing here depends on either."""
        self.register_buffer("temperature", torch.ones(()))

    def fit(self, logits: Tensor, label: Tensor, features: Tensor | None = None) -> None:
        """Try them all."""
        tried = torch.logspace(-1, 1, self.temperatures)
        losses = [F.cross_entropy(logits / t, label).item() for t in tried]
        self.temperature.copy_(tried[losses.index(min(losses))])

    def forward(self, logits: Tensor) -> Tensor:
        """(B, K) to (B,)."""
        return self.entropy(logits.float() / self.temperature)
