"""Loaders: batches by index from tensors, in an order that depends on (seed, epoch) and on nothing else.

`DeviceLoader` keeps the bytes on the training device; `WorkerLoader` leaves them in the host's memory and
fetches them through torch's DataLoader. Both give the same batches. S samples, B batch, C channels, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from branchynet.data.augment import Augmentation, Draws, draw, flip, shift
from branchynet.data.datasets import ImageSet


def channel_statistics(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of bytes x (S, C, H, W), values / 255; exact, by counting.

    A channel that never changes gets deviation 1, so that normalisation makes it 0 and not NaN.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in range(x.shape[1]):
        counts = torch.bincount(x[:, channel].reshape(-1), minlength=256).to(torch.float64)
        weights = counts / counts.sum()
        mean = weights @ values
        deviation = (weights @ (values - mean) ** 2).sqrt()
        means.append(mean.item())
        deviations.append(deviation.item() if torch.count_nonzero(counts) > 1 else 1.0)
    return tuple(means), tuple(deviations)


def normalise(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x / 255 - mean) / std per channel: bytes (B, C, H, W) to float32 of the same shape."""
    centre = torch.tensor(mean, dtype=torch.float64)
    scale = torch.tensor(std, dtype=torch.float64)
    factor = (1 / (255 * scale)).to(x.device, torch.float32)[:, None, None]
    offset = (centre / scale).to(x.device, torch.float32)[:, None, None]
    return x.to(torch.float32).mul_(factor).sub_(offset)


class DeviceLoader:
    """Yields (x float32 (B, C, H, W) normalised, y int64 (B,)) on the set's device; the last batch may be smaller.

    Args:
        images: the set; batches come from its device.
        batch_size: images per batch, at least 1.
        mean, std: per channel, of values / 255.
        shuffle: a new order each epoch; else the set's own order.
        augmentation: what may happen to an image.
        seed: of order and draws, together with the epoch given to `set_epoch` (0 at first).
    """

    # Lightning looks for these two: it calls `loader.sampler.set_epoch` before each training epoch.
    batch_sampler = None

    @property
    def sampler(self) -> DeviceLoader:
        return self

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        shuffle: bool = False,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.mean, self.std = mean, std
        self.shuffle = shuffle
        self.augmentation = augmentation or Augmentation()
        self.seed = seed
        self.epoch = 0
        self._given = 0  # batches given in this epoch
        self._skip = 0  # batches that a resumed epoch has had already

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """The epoch whose order and draws the next iteration has."""
        if epoch != self.epoch:
            self.epoch, self._given, self._skip = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        """Where training is, for a checkpoint in the middle of an epoch; Lightning calls this and the next."""
        return {"epoch": self.epoch, "batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next iteration over `state["epoch"]` goes on after the batches it has had."""
        self.epoch, self._given, self._skip = state["epoch"], state["batches"], state["batches"]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # A generator: nothing below runs before the first next(), because on resuming Lightning
        # makes the iterator first and sets the epoch after.
        first, self._skip = self._skip, 0
        order, draws = self.plan(self.epoch)
        batches = range(first, len(self))
        for number, (x, y) in zip(batches, self._fetch(order[first * self.batch_size :]), strict=True):
            part = slice(number * self.batch_size, (number + 1) * self.batch_size)
            self._given = number + 1
            yield normalise(self._augment(x, draws, part), self.mean, self.std), y

    def plan(self, epoch: int) -> tuple[Tensor, Draws]:
        """Order (S,) and draws of an epoch, on the device; sample i of the epoch has draw i.

        The one place that knows which samples an epoch has: a rank of several would take its share here.
        """
        # spawn_key keeps (seed, epoch) pairs apart for good; a sum of them, or torch's CPU generator, which
        # uses 32 bits of its seed, would not.
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch,)))
        samples = len(self.images)
        order = torch.from_numpy(rng.permutation(samples)) if self.shuffle else torch.arange(samples)
        draws = draw(self.augmentation, samples, rng)
        return order, draws

    def _fetch(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Bytes and labels, batch by batch, on the device."""
        for index in order.to(self.images.x.device).split(self.batch_size):
            batch = self.images.at(index)
            yield batch.x, batch.y

    def _augment(self, x: Tensor, draws: Draws, part: slice) -> Tensor:
        if draws.offsets is not None:
            x = shift(x, draws.offsets[part].to(x.device), self.augmentation.shift)
        if draws.flips is not None:
            x = flip(x, draws.flips[part].to(x.device))
        return x
