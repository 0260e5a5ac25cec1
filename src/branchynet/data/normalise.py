"""Bytes to what networks see: (x / 255 - mean) / std, per channel. S samples, B batch, C channels, H, W pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from branchynet.data.mapped import walk


def channel_statistics(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of bytes x (S, C, H, W), values / 255; exact, by counting.

    A channel that never changes gets deviation 1, so that normalisation makes it 0 and not NaN.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for counts in byte_counts(x).to(torch.float64):
        weights = counts / counts.sum()
        mean = weights @ values
        deviation = (weights @ (values - mean) ** 2).sqrt()
        means.append(mean.item())
        deviations.append(deviation.item() if torch.count_nonzero(counts) > 1 else 1.0)
    return tuple(means), tuple(deviations)


def byte_counts(x: Tensor) -> Tensor:
    """How often each byte is there, per channel of x (S, C, H, W) uint8: (C, 256) int64."""
    counts = torch.zeros(x.shape[1], 256, dtype=torch.int64, device=x.device)
    for part in walk(x):
        for channel, values in zip(counts, part.unbind(1), strict=True):
            channel += torch.bincount(values.reshape(-1), minlength=256)
    return counts


def normalisation(
    mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Factor and offset, (C, 1, 1) float32 each: factor · x - offset = (x / 255 - mean) / std."""
    centre, scale = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
    factor, offset = 1 / (255 * scale), centre / scale
    return factor[:, None, None].to(device, torch.float32), offset[:, None, None].to(device, torch.float32)


def normalise(x: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    """Bytes (B, C, H, W) to float32 of the same shape, with `normalisation`'s factor and offset."""
    return x.to(torch.float32).mul_(factor).sub_(offset)
