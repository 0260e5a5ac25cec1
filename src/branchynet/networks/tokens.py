"""From the tokens of a vision transformer to one vector.

Shapes: B batch, T tokens, D numbers each.
"""

import math

import torch
from torch import Tensor, nn


class ClassToken(nn.Module):
    """The first token: in a ViT the one that stands for the class (Dosovitskiy et al., 2021)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, D)."""
        return x[:, 0]


class MeanToken(nn.Module):
    """The mean over all tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, D)."""
        return x.mean(dim=1)


class AttentionPool(nn.Module):
    """A weighted mean of the tokens; the weights are a softmax over T of each token's product with a learned query.

    It begins as the plain mean, with a query of zeros.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, D)."""
        weights = ((x * self.query).sum(dim=2, keepdim=True) / math.sqrt(x.shape[2])).softmax(dim=1)
        return (weights * x).sum(dim=1)


def token_pool(kind: str, width: int) -> nn.Module:
    """One of `POOLS` for tokens of `width` numbers."""
    return AttentionPool(width) if kind == "attention" else {"class": ClassToken, "mean": MeanToken}[kind]()


POOLS = ("mean", "class", "attention")
