"""The LightningDataModule: a named data set, split, on the training device.

S samples, C channels, H, W pixels, K classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from branchynet.data.augment import parse_augmentation
from branchynet.data.batches import at_once, in_batches
from branchynet.data.checked import Dataset, ImageSet
from branchynet.data.datasets import NAMES, check_path, decodes, given, load_dataset, own_settings
from branchynet.data.decode import cores
from branchynet.data.files import class_names
from branchynet.data.loader import DeviceLoader, WorkerLoader
from branchynet.data.mapped import forgetting, is_mapped, walk
from branchynet.data.normalise import (
    channel_statistics,
    fixed_normalisation,
    for_channels,
    normalisation,
    normalise,
)
from branchynet.data.shares import by_shares
from branchynet.errors import (
    ArgumentError,
    check_choice,
    check_flag,
    check_whole,
    is_number,
    is_whole,
    not_allowed,
)

LOADERS = ("device", "dataloader")
SPLITS = ("train", "val", "test", "calibration")
FEW = 100  # training images of a class: fewer are divided class by class
AUTO, MOST_VALIDATION = "auto", 5000  # images for validation: a tenth, if nothing is said
MOST_WORKERS = 512  # processes
FETCHING = 4  # of them, that read images from the disk for a GPU, if nothing is said


class ImageData(pl.LightningDataModule):
    """Training, validation and test split of a data set, and loaders over them.

    Args:
        name, root, download, path: see `load_dataset`.
        batch_size: training images per step, over all processes; the last step of an epoch takes the rest.
        validation_size: images taken out of the training set for validation; None for the set's own validation
            images; `auto`: these, or where there are none a tenth of the training images, 5,000 at most.
        calibration: training images that neither train nor validate, for what is fitted after training: how many,
            or below 1 which share of the set's training images.
        split_seed: which ones these are; apart from `seed`, so that all seeds share one split.
        stratify: whether each class gives an equal share of its images: True, False, or `auto`: where a class has
            fewer than 100.
        augment: such as `{shift: 4, flip: true}`, see `Augmentation`; None for none. Training only.
        loader: `device` keeps the set on the training device, unless it lies on the disk; `dataloader` leaves it in
            the host's memory and fetches through torch's DataLoader. Same batches.
        num_workers: processes of `dataloader`, and that decode a folder's files, see `FolderSettings`; 0 = none;
            None: of `dataloader` none, or a few where the images lie on the disk.
        seed: of training order and augmentation.
        eval_batch_size: images per batch in validation and test; `auto`: 1,000 small ones, of larger ones fewer.
        classes: the classes' names, in place of the set's own, see `class_names`.
        normalise, mean, std: see `fixed_normalisation`.
        source: of a set that is none of ours, see `given`; then `name` is what it is called.
        own: the settings that this kind of set has of its own, see `own_settings`.

    After `setup()`: `input_shape` (C, H, W), `num_classes` K, `classes` (K names), and per channel the `mean` and
    `std` that images are normalised by, values / 255. Set `numbered`, and batches come with the images' numbers
    where nothing is drawn, see `DeviceLoader`.

    Raises:
        UserError: an argument that is not allowed (at once); data that cannot be read (in `setup`).
    """

    input_shape: tuple[int, int, int]
    num_classes: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    numbered: bool = False
    own: Any = None  # the settings that this kind of set has of its own
    decodes: bool = False  # whether one of these is how many processes decode it

    @property
    def files_size(self) -> str | None:
        """How image files are brought to the images' size, see `ImageFiles.size`; None where there are none."""
        rule = getattr(self.own, "rule", None)
        return None if rule is None else rule.size

    def __init__(
        self,
        name: str,
        root: str | None = None,
        download: bool = False,
        path: str | None = None,
        batch_size: int = 512,
        validation_size: int | str | None = 5000,
        calibration: int | float = 0,
        split_seed: int = 0,
        # As runs were split that do not know of it.
        stratify: bool | str = False,
        augment: Mapping[str, Any] | None = None,
        loader: str = "device",
        num_workers: int | None = None,
        seed: int = 0,
        eval_batch_size: int | str = AUTO,
        classes: Sequence[str] | str | None = None,
        normalise: str = "train",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        source: Any = None,
        **own: Any,
    ) -> None:
        super().__init__()
        if num_workers is not None:
            check_whole("num_workers", num_workers, 0, MOST_WORKERS)
        if source is None:
            check_choice("name", name, NAMES)
            self.decodes = decodes(name)
            self.own = own_settings(name, own | ({"num_workers": num_workers} if self.decodes else {}))
            check_path(name, path)
        elif own or path is not None:
            key, value = next(iter((own or {"path": path}).items()))
            raise ArgumentError(
                key, f"={value}: with data.source there is no such setting; give it to the source"
            )
        check_flag("download", download)
        check_choice("loader", loader, LOADERS)
        check_whole("batch_size", batch_size)
        if eval_batch_size != AUTO:
            check_whole("eval_batch_size", eval_batch_size, hint=", or auto")
        if validation_size not in (None, AUTO):
            check_whole("validation_size", validation_size, hint=", auto or null")
        if not is_whole(calibration, 0) and not (is_number(calibration) and 0 < calibration < 1):
            allowed = "a number of images, 0 or more, or a share of the training images below 1"
            raise not_allowed("calibration", calibration, allowed)
        if stratify != "auto" and not isinstance(stratify, bool):
            raise not_allowed("stratify", stratify, "auto, true or false")
        check_whole("split_seed", split_seed, 0, 2**32 - 1)
        check_whole("seed", seed, 0)
        if num_workers and loader != "dataloader" and not self.decodes:
            raise ArgumentError("num_workers", f"={num_workers} needs loader=dataloader")
        self.fixed = fixed_normalisation(normalise, mean, std)
        self.names, self.source = class_names(classes), source
        self.data_name, self.root, self.download, self.path = name, root, download, path
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.validation_size, self.split_seed, self.seed = validation_size, split_seed, seed
        self.stratify, self.calibration = stratify, calibration
        self.augmentation = parse_augmentation(augment)
        self.loader, self.num_workers = loader, num_workers
        self._sets: dict[str, ImageSet] = {}
        self._inexact: dict[str, Tensor] = {}
        self._on_device: dict[tuple[str, torch.device], ImageSet] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without the images: another process reads them itself, instead of a copy in shared memory."""
        return {**self.__dict__, "_sets": {}, "_inexact": {}, "_on_device": {}}

    def setup(self, stage: str | None = None) -> None:
        """Load, check and split, once."""
        if self._sets:
            return
        data = self._loaded()
        channels, height, width = data.train.x.shape[1:]
        side = min(height, width)
        for name, pixels in (("shift", self.augmentation.shift), ("cutout", self.augmentation.cutout)):
            if pixels >= side:
                raise not_allowed(f"augment.{name}", pixels, f"below the image's side of {side} pixels")
        if data.train.y.ndim > 1 and self.augmentation.moves:
            raise ArgumentError(
                "augment",
                f": {self.data_name} has a label for every pixel, which would not move along: only cutout",
            )
        parts = self._divided(data)
        self._sets = {
            which: data.train if len(part) == len(data.train) else data.train.part(part)
            for which, part in parts.items()
        } | {"test": data.test}
        if data.val is not None:
            self._sets["val"] = data.val
        self._inexact = {
            which: torch.isin(part, data.inexact_train).nonzero()[:, 0] for which, part in parts.items()
        } | {"test": data.inexact_test}
        self.input_shape = (channels, height, width)
        self.classes, self.num_classes = data.classes, len(data.classes)
        if self.fixed is None:
            self.mean, self.std = channel_statistics(self._sets["train"].x)
        else:
            self.mean, self.std = for_channels(self.fixed, channels)

    def _loaded(self) -> Dataset:
        if self.source is not None:
            return given(self.data_name, self.source, self.names)
        return load_dataset(
            self.data_name, self.root, self.download, self.path, self.own, self.split_seed, self.names
        )

    def _divided(self, data: Dataset) -> dict[str, Tensor]:
        """By split, `train`, `val` and `calibration`: the numbers of the set's training images, each rising."""
        count, own = len(data.train), data.val is not None
        validation = self.validation_size
        if validation == AUTO:
            validation = None if own else min(MOST_VALIDATION, max(1, count // 10))
        if own and validation is not None:
            allowed = f"null: {self.data_name} has {len(data.val or ())} validation images of its own"
            raise not_allowed("validation_size", validation, allowed)
        if not own and (validation is None or int(validation) >= count):
            allowed = f"below {count}, the number of training images of {self.data_name}"
            raise not_allowed("validation_size", validation, allowed)
        validation = int(validation or 0)
        calibration = round(self.calibration * count) if self.calibration < 1 else int(self.calibration)
        if validation + calibration >= count:
            left = (
                f"below {count - validation}, the number of training images of {self.data_name} that are left"
            )
            raise not_allowed("calibration", self.calibration, f"{left} by validation")
        if self.calibration and not calibration:
            raise not_allowed("calibration", self.calibration, f"at least one of the {count} training images")
        if not validation + calibration:
            order = np.arange(count)
        else:
            # RandomState: NumPy's policy keeps its numbers for ever, so a published split stays what it was.
            order = np.random.RandomState(self.split_seed).permutation(count)
            label = data.train.y.numpy()
            one = label.ndim == 1  # for an image
            few = one and np.bincount(label, minlength=len(data.classes)).min() < FEW
            if one and (self.stratify is True or (self.stratify == "auto" and few)):
                order = by_shares(order, label)
        # Validation first: its images are the same with and without others for calibration.
        cuts = np.split(order, [validation, validation + calibration])
        names = ("val", "calibration", "train")
        return {name: torch.from_numpy(np.sort(part)) for name, part in zip(names, cuts, strict=True)}

    def labels(self, which: str) -> Tensor:
        """Of `train`, `val`, `test` or `calibration`, which may be empty: (S,) int64, or of every pixel, (S, H, W)
        uint8, in the data set's order."""
        return self._set(which).y

    def batches(self, which: str, size: int, part: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The same split's images and labels on the CPU: normalised, not augmented, (B, C, H, W) float32; (B, …).

        Args:
            size: B, `branchynet.data.batches.at_once` says how many are not too many; the last batch may be
                smaller.
            part: (P,) int64, the numbers of those that are wanted; None: all.
        """
        images, factors = self._set(which), normalisation(self.mean, self.std)
        found = forgetting(images.x, in_batches(images.x, images.y, size, part))
        return ((normalise(x, *factors), y) for x, y in found)

    def images(self, which: str) -> Tensor:
        """The bytes of a split, (S, C, H, W) uint8 on the CPU, in the data set's order."""
        return self._set(which).x

    def inexact(self, which: str) -> Tensor:
        """The numbers, (I,) int64, of the images of a split that differ from the published ones."""
        self._set(which)
        return self._inexact[which]

    def fingerprint(self, splits: Sequence[str] = ("train", "val")) -> str:
        """sha256 (hex) over images and labels of some splits."""
        digest = hashlib.sha256()
        for which in splits:
            images = self._set(which)
            digest.update(str(tuple(images.x.shape)).encode())
            for part in walk(images.x):
                digest.update(part.numpy().data)
            digest.update(images.y.numpy().data)
        return digest.hexdigest()

    def train_dataloader(self) -> DeviceLoader:
        return self._loader(
            "train", self.batch_size, shuffle=True, augmentation=self.augmentation, seed=self.seed
        )

    def val_dataloader(self) -> DeviceLoader:
        return self._loader("val", self._eval_batch())

    def test_dataloader(self) -> DeviceLoader:
        return self._loader("test", self._eval_batch())

    def _eval_batch(self) -> int:
        self.setup()
        size = self.eval_batch_size
        return at_once(self.input_shape) if isinstance(size, str) else size

    def _loader(self, which: str, batch_size: int, **options: Any) -> DeviceLoader:
        device = torch.device("cpu")
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            options.update(rank=self.trainer.global_rank, ranks=self.trainer.world_size)
        images = self._set(which)
        options.update(mean=self.mean, std=self.std, device=device, numbered=self.numbered)
        on_disk = is_mapped(images.x)
        if self.loader == "dataloader" or (on_disk and device.type != "cpu"):
            few = min(FETCHING, cores()) if on_disk and device.type != "cpu" else 0
            workers = few if self.num_workers is None else self.num_workers
            return WorkerLoader(images, batch_size, num_workers=workers, **options)
        key = (which, device)
        if key not in self._on_device:
            self._on_device[key] = images.to(device)
        return DeviceLoader(self._on_device[key], batch_size, **options)

    def _set(self, which: str) -> ImageSet:
        if which not in SPLITS:
            raise ValueError(f"split {which!r}: there are {', '.join(SPLITS)}")
        self.setup()
        return self._sets[which]
