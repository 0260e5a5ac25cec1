"""How unsure an exit is: functions from logits (B, K), K ≥ 2, to uncertainty (B,) float32.

Lower is surer, never below 0 and never nan for finite logits, so that a threshold of 0 keeps everybody. They
compute in float32 whatever the logits' type, for float32 is what thresholds and traces are. Each is a handful
of operations, for at batch 1 an operation costs a microsecond and is part of an exit's price.
"""

from collections.abc import Callable

from torch import Tensor

from branchynet.errors import UserError

Criterion = Callable[[Tensor], Tensor]

# Far below any probability that adds to an entropy, and a normal float32: ln of it is finite.
TINY = 1e-37


def entropy(logits: Tensor) -> Tensor:
    """`-Σ p ln p` in nats, 0 … ln K, p the softmax (Teerapittayanon et al., 2016, section III-C).

    A probability that is 0 in float32 adds 0 · ln TINY = 0. The error is some 1e-7 · K, absolute: the
    entropy of very sure samples, below 1e-5 or so, has fewer digits than float32.

    >>> import torch
    >>> entropy(torch.tensor([[0.0, 0.0], [1e4, -1e4]]))
    tensor([0.6931, 0.0000])
    """
    p = logits.float().softmax(dim=1)
    return (p * -p.clamp(min=TINY).log()).sum(dim=1)


def max_probability(logits: Tensor) -> Tensor:
    """`1 - max p`, 0 … 1 - 1/K.

    >>> import torch
    >>> max_probability(torch.tensor([[0.0, 0.0], [20.0, 0.0]]))
    tensor([5.0000e-01, 2.0612e-09])
    """
    return _others(logits).sum(dim=1)


def margin(logits: Tensor) -> Tensor:
    """`1 - (p_1 - p_2)`, 0 … 1, p_1 and p_2 the two largest probabilities.

    >>> import torch
    >>> margin(torch.tensor([[0.0, 0.0], [20.0, 0.0]]))
    tensor([1.0000e+00, 4.1223e-09])
    """
    others = _others(logits)
    return (others.sum(dim=1) + others[:, -1]).clamp(max=1)


def _others(logits: Tensor) -> Tensor:
    """(B, K-1): all probabilities but the largest, rising.

    `1 - p_1` is what they add up to. Added, not subtracted from 1, it keeps its digits: near p_1 = 1 float32
    has steps of 6e-8, and samples surer than that could not be told apart.
    """
    p = logits.float().softmax(dim=1)
    return p.topk(p.shape[1] - 1, dim=1, largest=False).values


CRITERIA: dict[str, Criterion] = {
    "entropy": entropy,
    "max_probability": max_probability,
    "margin": margin,
}


def get_criterion(name: str) -> Criterion:
    """The criterion of that name; a UserError if there is none."""
    if name not in CRITERIA:
        raise UserError(f"criterion={name}: there is no such criterion, take one of {', '.join(CRITERIA)}")
    return CRITERIA[name]
