"""Temperature scaling: logits are divided by one number per exit before they are judged.

Shapes: B batch, K classes, S samples.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from branchynet.errors import not_allowed
from branchynet.exits.criteria import Criterion, Entropy

LEAST, MOST = 0.05, 20.0  # temperatures


class Temperature(Criterion):
    """What another criterion says of softmax(logits / t), t with the least cross-entropy (Guo et al., 2017).

    It changes which of two samples is the surer one a little, and makes probabilities mean what they say.

    Args:
        of: how unsure that is: a criterion of one exit's logits alone that learns nothing; None: the entropy.
    """

    name = "temperature"
    learns = True

    temperature: Tensor
    wrong: Tensor

    def __init__(self, of: Criterion | None = None) -> None:
        super().__init__()
        self.of = Entropy() if of is None else of
        own = self.of
        if not isinstance(own, Criterion) or own.learns or own.of_features or own.of_history:
            allowed = "a criterion of logits alone that learns nothing, or null for the entropy"
            raise not_allowed("of", getattr(own, "name", own), allowed)
        self.unit, self.of_probability = own.unit, own.of_probability

    def largest(self, num_classes: int) -> float | None:
        return self.of.largest(num_classes)

    def least(self, num_classes: int) -> int:
        return 20

    def prepare(self, num_classes: int, shape: tuple[int, ...]) -> None:
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("wrong", torch.zeros((), dtype=torch.int64))

    def fit(
        self, logits: Tensor, label: Tensor, features: Tensor | None = None, state: Tensor | None = None
    ) -> None:
        self.wrong.copy_((logits.argmax(dim=1) != label).sum())
        if not self.wrong:
            return  # the surer, the better: nothing ends that but a wrong answer
        logits = logits.double()
        # The loss is convex in 1 / t.
        inverse = torch.ones((), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([inverse], max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(logits * inverse, label)
            value.backward()
            return value

        optimizer.step(loss)
        # Below 0 where the answers are worse than guesses.
        self.temperature.copy_(1 / inverse.detach().clamp(1 / MOST, 1 / LEAST))

    def note(self) -> str:
        if not self.wrong:
            return "temperature 1, for no answer is wrong"
        return f"temperature {self.temperature.item():.3g}"

    def forward(self, logits: Tensor) -> Tensor:
        """(B, K) to (B,)."""
        uncertainty: Tensor = self.of(logits.float() / self.temperature)
        return uncertainty
