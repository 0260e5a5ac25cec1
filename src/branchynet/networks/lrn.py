"""Local response normalisation that trains fast.

B batch, C channels, H, W pixels.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LocalResponseNorm(nn.LocalResponseNorm):
    """`torch.nn.LocalResponseNorm` for windows of odd size, with a backward pass written out for training.

    PyTorch's own takes nearly half of AlexNet's training time on a CPU: it pads and pools in five dimensions.
    Here the sum over the window is a 1×1 convolution with a band of ones. In evaluation, and so in every
    export, it is PyTorch's own. benchmarks/lrn.py compares the two.

    y = x · d^-β with d = k + α/size · Σ x² over the window (Krizhevsky et al., 2012, section 3.3).
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        if not self.training or self.size % 2 == 0 or input.ndim != 4:
            return super().forward(input)
        channel = torch.arange(input.shape[1], device=input.device)
        near = (channel[:, None] - channel[None]).abs() <= self.size // 2
        band = (near.to(input.dtype) * (self.alpha / self.size))[:, :, None, None]
        return _Normalise.apply(input, band, self.beta, self.k)


class _Normalise(torch.autograd.Function):
    """x, band (C, C, 1, 1) with α/size where channels are near, β, k."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, band: Tensor, beta: float, k: float) -> Tensor:
        d = F.conv2d(x * x, band).add_(k)
        scale = d.pow(-beta)
        ctx.save_for_backward(x, d, scale, band)
        ctx.beta = beta
        return x * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, d, scale, band = ctx.saved_tensors
        scaled = grad * scale
        # ∂y_j/∂x_i = δ_ij d_j^-β - 2 α/size β x_j x_i d_j^(-β-1) within the window, which is symmetric.
        spread = F.conv2d((scaled * x).div_(d), band)
        return scaled.addcmul_(x, spread, value=-2 * ctx.beta), None, None, None
