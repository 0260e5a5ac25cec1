"""What is fitted after training, and on which images: none that trained the network, and none that chooses.

A threshold that is chosen on the images that a criterion has learned from flatters itself, and no promise made
with them holds. So they are calibration images, held out of training for this (`data.calibration`); where a run has
none, a share of validation is set aside, and the thresholds are chosen on the rest. No cross-fitting: that would
judge the samples by several criteria, none of which is the one that ships.

Shapes: K classes, N exits, S samples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from branchynet.data.batches import at_once
from branchynet.data.mapped import forget, rows
from branchynet.data.shares import by_shares
from branchynet.errors import ArgumentError, UserError, settings_of
from branchynet.exits.combining import Combining, Shares, answers
from branchynet.exits.criteria import Criterion, check_state, for_exits, judge
from branchynet.networks.branched import BranchedNetwork

SHARE = 0.5  # of validation that is set aside, if nothing else is said


@dataclass(frozen=True, eq=False)
class Fitting:
    """The images that something was fitted on.

    Args:
        images: how many.
        val: (S,) bool, which of the S validation images they are; None: they are the calibration images.
        share: of validation, as it was asked for; None: they are the calibration images.
        notes: what the exits' criteria tell of what they have learned, see `Criterion.note`.
    """

    images: int
    val: Tensor | None = None
    share: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def split(self) -> str:
        """`calibration` or `validation`."""
        return "calibration" if self.val is None else "validation"

    def labels(self, data: Any) -> Tensor:
        """(S,) int64."""
        label: Tensor = data.labels("calibration" if self.val is None else "val")
        return label if self.val is None else label[self.val]

    def normalised(self, data: Any) -> Iterator[Tensor]:
        """The images as a network is given them, in batches (B, C, H, W) float32."""
        which = "calibration" if self.val is None else "val"
        part = None if self.val is None else self.val.nonzero()[:, 0]
        return (x for x, _ in data.batches(which, at_once(data.input_shape), part))


def images_to_fit_on(
    criterion: Criterion, combining: Combining, data: Any, share: float = SHARE
) -> Fitting | None:
    """The images for what `criterion` and `combining` fit; None where they fit nothing.

    Args:
        criterion, combining: as their settings made them.
        data: has `labels`, `images` and `classes`, as `branchynet.data.module.ImageData` has.
        share: of validation, where there are no calibration images.

    Raises:
        UserError: they are fewer than are needed.
    """
    if not (criterion.learns or combining.fits):
        return None
    count = len(data.images("calibration"))
    fitting = Fitting(count) if count else part_of_validation(data.labels("val"), share)
    least = criterion.least(len(data.classes))
    if fitting.images < least:
        more = "data.calibration" if count else "data.calibration, data.validation_size or sweep.fit_share"
        raise UserError(
            f"the criterion {criterion.name} has {fitting.images} {fitting.split} images to be fitted on and needs "
            f"{least}: more by {more}, or another criterion"
        )
    return fitting


def part_of_validation(label: Tensor, share: float) -> Fitting:
    """Validation images to fit on, always the same ones, with an equal share of each class.

    Args:
        label: (S,) of the validation images.
        share: of them, between 0 and 1.
    """
    images = round(share * len(label))
    if not 0 < images < len(label):
        raise ArgumentError(
            "fit_share",
            f"={share}: of {len(label)} validation images some are to be fitted on and some to choose on",
        )
    # RandomState: NumPy's policy keeps its numbers for ever.
    order = by_shares(np.random.RandomState(0).permutation(len(label)), label.numpy())
    mask = torch.zeros(len(label), dtype=torch.bool)
    mask[torch.from_numpy(order[:images])] = True
    return Fitting(images, mask, share)


def same_images(one: Fitting | None, other: Fitting | None) -> bool:
    """Whether what the one was of may stay where the other is wanted."""
    if one is None or other is None:
        return one is other
    if one.val is None or other.val is None:
        return one.val is other.val and one.images == other.images
    return torch.equal(one.val, other.val)


class Unseen:
    """A run's data without the validation images that something was fitted on: what may choose and be reported.

    Args:
        data: has `labels`, `batches`, `images`, `inexact`, `input_shape` and `classes`, as
            `branchynet.data.module.ImageData` has.
        fitting: None where nothing was fitted.
    """

    def __init__(self, data: Any, fitting: Fitting | None) -> None:
        self.input_shape, self.classes, self.inexact = data.input_shape, data.classes, data.inexact
        self._data, self._fitted = data, None if fitting is None else fitting.val

    def _part(self, which: str) -> Tensor | None:
        """The numbers of those of `val` or `test` that are unseen; None: all."""
        return None if self._fitted is None or which != "val" else (~self._fitted).nonzero()[:, 0]

    def labels(self, which: str) -> Tensor:
        """(S,) int64, of `val` or `test`."""
        label, part = self._data.labels(which), self._part(which)
        return label if part is None else label[part]

    def normalised(self, which: str, size: int | None = None) -> Iterator[Tensor]:
        """Their images as a network is given them, in batches (B, C, H, W) float32; None: as many as fit."""
        batches = self._data.batches(which, size or at_once(self.input_shape), self._part(which))
        return (x for x, _ in batches)

    def images(self, which: str) -> Tensor:
        """Their bytes, (S, C, H, W) uint8."""
        x, part = self._data.images(which), self._part(which)
        return x if part is None else rows(x, part)

    def image(self, which: str, sample: int) -> Tensor:
        """The bytes of one of them, (C, H, W) uint8; of many images no more is read."""
        x, part = self._data.images(which), self._part(which)
        image = x[sample if part is None else int(part[sample])].clone()
        forget(x)
        return image


@torch.no_grad()
def find_shares(
    combining: Combining, network: BranchedNetwork, data: Any, fitting: Fitting | None
) -> Shares | None:
    """How much of each exit's answer is the answer before it, as `combining` says or fits it.

    Args:
        combining: as its settings made it.
        network: N exits, in eval mode, on the CPU.
        data: as of `fit_criteria`.
        fitting: what it is fitted on.
    """

    def outputs() -> tuple[list[Tensor], Tensor]:
        assert fitting is not None  # `fits` says so
        parts = zip(*map(network, fitting.normalised(data)), strict=True)
        return [torch.cat(logits).float() for logits in parts], fitting.labels(data)

    with settings_of("combine"):
        combining.check(network.num_exits)
        return combining.find(network.num_exits, outputs)


@torch.no_grad()
def fit_criteria(
    criterion: Criterion, network: BranchedNetwork, data: Any, fitting: Fitting | None
) -> tuple[Criterion, ...]:
    """A criterion for each of N exits. What has something to learn learns it from what its exit answers.

    Args:
        criterion: as its settings made it.
        network: N exits, in eval mode, on the CPU.
        data: has `labels`, `batches`, `input_shape` and `classes`, as `branchynet.data.module.ImageData` has.
        fitting: what it is fitted on.
    """
    criteria = for_exits(criterion, network.feature_shapes(data.input_shape), len(data.classes))
    if not criterion.learns:
        return criteria
    assert fitting is not None  # `learns` says so
    label = fitting.labels(data)
    said: list[list[Tensor]] = [[] for _ in criteria]
    seen: list[list[Tensor]] = [[] for _ in criteria]
    for x in fitting.normalised(data):
        for n, (own, logits, features) in enumerate(zip(criteria, *network.with_features(x), strict=True)):
            assert logits is not None and features is not None  # all exits are run
            said[n].append(logits)
            if own.of_features:
                seen[n].append(own.kept(features))
    heads = [torch.cat(parts) for parts in said]
    state: Tensor | None = None
    for n, (own, logits) in enumerate(zip(criteria, answers(heads, network.shares), strict=True)):
        features = torch.cat(seen[n]) if own.of_features else None
        with torch.enable_grad():
            own.fit(logits.float(), label, features, **({"state": state} if own.of_history else {}))
        own.requires_grad_(False)
        if own.of_history:
            width = None if state is None else state.shape[1]
            _, state = judge(own, logits.float(), features, state)
            check_state(own, n + 1, state, len(logits), width)
    return criteria
