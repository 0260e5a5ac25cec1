"""Loaders: batches by index from tensors, in an order that depends on (seed, epoch) and on nothing else.

`DeviceLoader` keeps the bytes on the training device; `WorkerLoader` leaves them in the host's memory, or on the
disk, and fetches them through torch's DataLoader. Both give the same batches.

S samples, B batch, C channels, H, W pixels.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from branchynet.data.augment import Augmentation, Draws, augment, cutout, draw
from branchynet.data.checked import ImageSet
from branchynet.data.mapped import is_mapped
from branchynet.data.normalise import normalisation, normalise
from branchynet.errors import UserError


def shares(samples: int, batch_size: int, rank: int = 0, ranks: int = 1) -> list[slice]:
    """The part of every batch of an epoch that one of several processes takes, as slices of 0 … samples.

    All ranks have equally many parts, none of them empty; together they are every sample once. The parts of
    one batch differ by one sample at most. A last batch of fewer samples than ranks, or of a single one, which
    batch norm cannot train on, joins the one before it.

    Raises:
        UserError: fewer samples in a batch, or in all, than ranks.
    """
    if min(samples, batch_size) < ranks:
        raise UserError(
            f"{ranks} processes cannot share batches of {min(samples, batch_size)}: raise data.batch_size, "
            f"data.eval_batch_size and data.validation_size to {ranks} or more, or lower trainer.devices"
        )
    starts = list(range(0, samples, batch_size))
    if len(starts) > 1 and samples - starts[-1] < max(ranks, 2):
        starts.pop()
    return [
        slice(start + (stop - start) * rank // ranks, start + (stop - start) * (rank + 1) // ranks)
        for start, stop in pairwise([*starts, samples])
    ]


class DeviceLoader:
    """Yields (x float32 (B, C, H, W) normalised, y int64 (B,)); the last batch may be smaller.

    `numbered` and with nothing drawn: (x, y, their numbers in the set, int64 (B,)). Who meets a number again meets
    the very same image.

    Args:
        images: the set, on the device.
        batch_size: images per batch, at least 1; over all ranks together.
        mean, std: per channel, of values / 255.
        shuffle: a new order each epoch; else the set's own order.
        augmentation: what may happen to an image.
        seed: of order and draws, together with the epoch given to `set_epoch` (0 at first).
        device: where batches are wanted; default is where the set is.
        rank, ranks: which of how many processes this is; each gets its part of every batch, see `shares`.
        numbered: whether batches have numbers, too.
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
        device: torch.device | str | None = None,
        rank: int = 0,
        ranks: int = 1,
        numbered: bool = False,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.device = torch.device(device if device is not None else images.x.device)
        self._shares = shares(len(images), batch_size, rank, ranks)
        self._normalisation = normalisation(mean, std, self.device)
        self.shuffle = shuffle
        self.augmentation = augmentation or Augmentation()
        self.numbered = numbered and not self.augmentation.draws
        self.seed = seed
        self.epoch = 0
        self._given = 0  # batches given in this epoch
        self._skip = 0  # batches that a resumed epoch has had already

    def __len__(self) -> int:
        return len(self._shares)

    def set_epoch(self, epoch: int) -> None:
        """The epoch whose order and draws the next iteration has."""
        if epoch != self.epoch:
            self.epoch, self._given, self._skip = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        """Where training is, for a checkpoint inside an epoch; Lightning calls this and the next."""
        return {"epoch": self.epoch, "batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next iteration over `state["epoch"]` goes on after the batches it has had."""
        self.epoch, self._given, self._skip = state["epoch"], state["batches"], state["batches"]

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        # A generator: nothing below runs before the first next(), because on resuming Lightning
        # makes the iterator first and sets the epoch after.
        first, self._skip = self._skip, 0
        order, draws = self.plan(self.epoch)
        draws = draws.to(self.device)
        batches = self._fetch([order[part] for part in self._shares[first:]])
        for number, (x, y) in enumerate(batches, start=first):
            self._given = number + 1
            drawn = draws.at(self._shares[number])
            x = normalise(augment(x, drawn, self.augmentation), *self._normalisation)
            if drawn.centres is not None:
                x = cutout(x, drawn.centres, self.augmentation.cutout)
            yield (x, y, order[self._shares[number]].to(self.device)) if self.numbered else (x, y)

    def plan(self, epoch: int) -> tuple[Tensor, Draws]:
        """Order (S,) and draws of an epoch, on the CPU; the i-th sample of the epoch gets the i-th draw.

        The same for every rank: with several of them an image meets the same draws as with one.
        """
        # spawn_key keeps all pairs (seed, epoch) apart. A sum of the two would not, nor would torch's CPU
        # generator, which uses 32 bits of its seed.
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch,)))
        samples = len(self.images)
        order = torch.from_numpy(rng.permutation(samples)) if self.shuffle else torch.arange(samples)
        return order, draw(self.augmentation, samples, rng)

    def _fetch(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Bytes and labels on the device, batch by batch."""
        for index in indices:
            batch = self.images.at(index.to(self.device))
            yield batch.x, batch.y


class WorkerLoader(DeviceLoader):
    """The same batches for a set that does not fit on the device: it stays where it is, worker
    processes gather the bytes (torch's DataLoader), and only the batch goes to the device, still as bytes.
    """

    def __init__(self, *args: Any, num_workers: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_workers = num_workers

    def _is_mapped_and_forks(self) -> bool:
        return is_mapped(self.images.x) and "fork" in multiprocessing.get_all_start_methods()

    def _fetch(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        batches: DataLoader = DataLoader(
            _Rows(self.images),
            batch_sampler=[index.tolist() for index in indices],
            collate_fn=_as_they_are,
            num_workers=self.num_workers,
            # A process that begins anew would be sent a copy of the whole file.
            multiprocessing_context="fork" if self.num_workers and self._is_mapped_and_forks() else None,
            pin_memory=self.device.type == "cuda",
            # Its own generator: the global one is to be in the same state as with DeviceLoader.
            generator=torch.Generator(),
        )
        for x, y in batches:
            yield x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)


class _Rows(torch.utils.data.Dataset):
    """A set whose items are fetched a batch at a time."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __getitems__(self, index: list[int]) -> tuple[Tensor, Tensor]:
        batch = self.images.at(torch.tensor(index))
        return batch.x, batch.y


def _as_they_are(batch: Any) -> Any:
    return batch
