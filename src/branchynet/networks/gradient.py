"""A gradient that is scaled on its way back; what goes forward stays as it is, bit for bit."""

from typing import Any, cast

import torch
from torch import Tensor


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        # A copy, because a layer that changes its input in place may not have a view from here.
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """`x`, whose gradient is multiplied by `factor`."""
    if factor == 1 or not x.requires_grad:
        return x
    return cast(Tensor, _Scaled.apply(x, factor))
