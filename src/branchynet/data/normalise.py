"""Bytes to what networks see: (x / 255 - mean) / std, per channel. S samples, B batch, C channels, H, W pixels."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from branchynet.data.mapped import walk
from branchynet.errors import ArgumentError, check_choice, counted, is_number, not_allowed

# Mean and standard deviation per channel that published weights were trained with: of ImageNet's photographs, as
# those of torchvision; and what brings bytes to -1 … 1, as some of timm. One number is for any number of channels.
READY: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5,), (0.5,)),
}
NORMALISATIONS = ("train", *READY)
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


def fixed_normalisation(
    normalise: str = "train", mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Normalisation | None:
    """The mean and standard deviation that images are normalised by, None where they are the training split's.

    Args:
        normalise: `train`, or a name of READY.
        mean, std: numbers, of values 0 … 1: one per channel, or one for all; in place of a name.

    Raises:
        ArgumentError: anything else.
    """
    check_choice("normalise", normalise, NORMALISATIONS)
    if mean is None and std is None:
        return READY.get(normalise)
    if normalise != "train":
        raise ArgumentError("normalise", f"={normalise}: mean and std are given, too; leave it or them out")
    for name, values in (("mean", mean), ("std", std)):
        numbers = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
        if (
            values is None
            or not numbers
            or not all(is_number(each) and math.isfinite(each) for each in values)
        ):
            other = "std" if name == "mean" else "mean"
            raise not_allowed(
                name, values, f"a list of one number per channel, of values 0 … 1, as {other} is"
            )
    assert mean is not None and std is not None
    if any(each <= 0 for each in std):
        raise not_allowed("std", list(std), "of numbers above 0")
    if max(map(abs, mean)) > 1 or max(std) > 1:
        name, values = ("mean", mean) if max(map(abs, mean)) > 1 else ("std", std)
        raise not_allowed(name, list(values), "of values 0 … 1: bytes are divided by 255 first")
    return tuple(map(float, mean)), tuple(map(float, std))


def for_channels(fixed: Normalisation, channels: int) -> Normalisation:
    """The same with a number for each channel.

    Raises:
        ArgumentError: it is for another number of channels.
    """
    mean, std = (values * channels if len(values) == 1 else values for values in fixed)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise not_allowed(
                name, list(values), f"of {counted(channels, 'number')}: so many channels the images have"
            )
    return mean, std


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
