"""Local response normalisation that is fast, in training and in inference.

Shapes: B batch, C channels, H, W.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class LocalResponseNorm(nn.LocalResponseNorm):
    """`torch.nn.LocalResponseNorm`, written out for images.

    y = x · d^-β with d = k + α/size · Σ x² over the window of channels (Krizhevsky et al., 2012, section 3.3).

    PyTorch's own pads and pools in five dimensions and raises to a power: a fifth of AlexNet's time in training on
    a CPU, and a third of it on ONNX Runtime. Here the window's sum is one of shifted channels, and d^-¾ comes from
    square roots; in training the backward pass is written out, too, but for windows of even size, which are not
    symmetric. benchmarks/lrn.py compares the two.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape and dtype, computed in float32 or better."""
        if input.ndim != 4:
            return super().forward(input)
        if self.training and self.size % 2:
            return _Normalise.apply(input, self.size // 2, self.alpha / self.size, self.beta, self.k)
        x = _wide(input)
        square = x * x
        before, behind = self.size // 2, (self.size - 1) // 2
        padded = F.pad(square, (0, 0, 0, 0, before, behind))
        d = square  # the window's middle; the others are added in place, which costs no memory
        for shift in range(self.size):
            if shift != before:
                d = d.add_(padded[:, shift : shift + x.shape[1]])
        d = d.mul_(self.alpha / self.size).add_(self.k)
        if self.beta != 0.75:
            return (x / d.pow(self.beta)).to(input.dtype)
        root = d.sqrt_()
        return (x / (root * root.sqrt())).to(input.dtype)


def released_lrn() -> LocalResponseNorm:
    """With the constants of the paper's authors, who do not divide α by the window: 5e-5 × 3."""
    return LocalResponseNorm(3, alpha=1.5e-4, beta=0.75, k=2.0)


class _Normalise(torch.autograd.Function):
    """x (B, C, H, W), the window's reach to each side in channels, α/size, β, k."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, reach: int, alpha: float, beta: float, k: float) -> Tensor:
        wide = _wide(x)
        d = _window_sum(wide * wide, reach).mul_(alpha).add_(k)
        scale = _negative_power(d, beta)
        ctx.save_for_backward(x, d, scale)
        ctx.reach, ctx.factor = reach, -2 * alpha * beta
        return (wide * scale).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # ∂y_j/∂x_i = δ_ij d_j^-β - 2 α/size β x_j x_i d_j^(-β-1) within the window, which is symmetric.
        x, d, scale = ctx.saved_tensors
        wide, scaled = _wide(x), grad * scale
        spread = _window_sum((scaled * wide).div_(d), ctx.reach)
        return scaled.addcmul_(wide, spread, value=ctx.factor).to(x.dtype), None, None, None, None


def _wide(x: Tensor) -> Tensor:
    """In float32 at least: half precision would round d, which lies near k, to k itself."""
    return x if x.dtype.itemsize >= 4 else x.float()


def _window_sum(x: Tensor, reach: int) -> Tensor:
    """For each channel the sum over it and its neighbours up to `reach` away."""
    total = x.clone()
    for step in range(1, reach + 1):
        total[:, step:].add_(x[:, :-step])
        total[:, :-step].add_(x[:, step:])
    return total


def _negative_power(d: Tensor, beta: float) -> Tensor:
    """d^-β, which for the usual β = ¾ is twice as fast by square roots."""
    if beta != 0.75:
        return d.pow(-beta)
    root = d.rsqrt()
    return root * root.sqrt()
