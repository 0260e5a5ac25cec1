"""How unsure an exit is: functions from logits (B, K) to uncertainty (B,) float32, lower is surer, never < 0."""

from collections.abc import Callable

from torch import Tensor

from branchynet.errors import UserError

Criterion = Callable[[Tensor], Tensor]


def entropy(logits: Tensor) -> Tensor:
    """`-Σ p ln p` in nats, 0 … ln K, p the softmax of the logits (Teerapittayanon et al., 2016, eq. of III-C).

    With z = logits - max: ln Σ exp z - Σ p z. No logarithm of a probability is taken, so extreme logits,
    whose probabilities are 0, give 0 and not nan.
    """
    z = logits.float()
    z = z - z.amax(dim=1, keepdim=True)
    weight = z.exp()
    total = weight.sum(dim=1)
    return (total.log() - (weight * z).sum(dim=1) / total).clamp(min=0)


def max_probability(logits: Tensor) -> Tensor:
    """`1 - max p`, 0 … 1 - 1/K: the sum of all other probabilities, so that sure samples keep their digits."""
    z = logits.float()
    weight = (z - z.amax(dim=1, keepdim=True)).exp()
    total = weight.sum(dim=1)
    # The largest weight is exp 0 = 1. What the others sum to is added up without it, not subtracted from it.
    rest = weight.sort(dim=1, descending=True).values[:, 1:].sum(dim=1)
    return rest / total


def margin(logits: Tensor) -> Tensor:
    """`1 - (p_1 - p_2)`, 0 … 1, p_1 and p_2 the two largest probabilities."""
    two = logits.float().softmax(dim=1).topk(k=2, dim=1).values
    return (1 - (two[:, 0] - two[:, 1])).clamp(min=0)


CRITERIA: dict[str, Criterion] = {
    "entropy": entropy,
    "max_probability": max_probability,
    "margin": margin,
}


def get_criterion(name: str) -> Criterion:
    """The criterion of that name; a UserError if there is none."""
    if name not in CRITERIA:
        raise UserError(f"criterion={name}: known are {', '.join(CRITERIA)}")
    return CRITERIA[name]
