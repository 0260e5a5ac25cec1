"""Answers that are maps, a class for every pixel: how right they are, how unsure an exit is, and their trace.

A map is partly right. What counts of it is the image's IoU: the mean, over the classes that map or truth has, of
the pixels that both give to the class over those that one of them does. It is rounded to a multiple of STEP, so
that sums over images are exact in double precision, in any order: equal points have equal sums, as with counts.

Shapes: B batch, H, W pixels, K classes, N exits, S samples.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from branchynet.errors import UserError
from branchynet.exits.criteria import Criterion
from branchynet.exits.sweep import ROUNDED
from branchynet.exits.trace import Check, Step, Trace, certainty

STEP = 2.0**-20


@dataclass(frozen=True, eq=False)
class MapTrace(Trace):
    """A trace of maps: of every map, how many pixels each class has, and how many of them rightly.

    So the IoU of an image, and of the data set whatever exit each image takes, are known without the maps.

    Args:
        prediction: (S, N, K) int64: pixels that an exit gives to each class.
        label: (S, K) int64: pixels that are of each class.
        overlap: (S, N, K) int64: pixels that are both.
    """

    overlap: Tensor = field(kw_only=True)

    partly: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._check(self.uncertainty.shape)
        shape = self.prediction.shape
        for name, expected in (
            ("prediction", (*self.uncertainty.shape, *shape[2:3])),
            ("label", (*shape[:1], *shape[2:3])),
            ("overlap", tuple(shape)),
        ):
            value = getattr(self, name)
            if value.shape != expected or value.dtype != torch.int64:
                raise ValueError(f"{name} is {tuple(value.shape)} {value.dtype}, not {expected} torch.int64")
        most = torch.minimum(self.prediction, self.label[:, None])
        if (self.overlap < 0).any() or (self.overlap > most).any():
            raise ValueError("an overlap is below 0, or above what the map or the truth has of a class")
        sizes = self.label.sum(dim=1)
        if (sizes < 1).any() or (self.prediction.sum(dim=2) != sizes[:, None]).any():
            raise ValueError("the pixels of a map and of the truth are not as many")

    def at(self, samples: Tensor) -> "MapTrace":
        return MapTrace(
            self.uncertainty[samples],
            self.prediction[samples],
            self.label[samples],
            overlap=self.overlap[samples],
        )

    @property
    def correct(self) -> Tensor:
        """(S, N) float64: how right exit n is about sample s, the image's IoU, 0 … 1, a multiple of STEP."""
        return image_iou(self.prediction, self.label[:, None], self.overlap)

    @property
    def good(self) -> Tensor:
        """(S, N) bool: whether exit n is as right about sample s as the last exit is."""
        correct = self.correct
        return correct >= correct[:, -1:]

    def class_iou(self, taken: Tensor) -> tuple[Tensor, Tensor]:
        """Over all images, the pixels that map and truth both give to a class, and those that one of them does.

        Args:
            taken: (S,) int64, 0-based: the exit that each sample takes.

        Returns:
            (S, K) int64 each, not added up.
        """
        rows = torch.arange(self.num_samples)
        both, given = self.overlap[rows, taken], self.prediction[rows, taken]
        return both, given + self.label - both


def image_iou(given: Tensor, label: Tensor, overlap: Tensor) -> Tensor:
    """Of pixels by class, (…, K) each, the mean IoU of the classes that are there (…,), float64.

    >>> image_iou(torch.tensor([3, 1, 0]), torch.tensor([2, 2, 0]), torch.tensor([2, 1, 0]))
    tensor(0.5833, dtype=torch.float64)
    """
    either = given + label - overlap
    share = overlap.double() / either.clamp(min=1)
    mean = share.sum(dim=-1) / (either > 0).sum(dim=-1).clamp(min=1)
    return (mean / STEP).round() * STEP


def mean_iou(both: Tensor, either: Tensor) -> float:
    """The mean IoU over the data set, from what `class_iou` gives: of the classes that are there."""
    shares = [share for share in by_class(both, either) if share is not None]
    return sum(shares) / len(shares)


def by_class(both: Tensor, either: Tensor) -> list[float | None]:
    """K, over the data set; None for a class that is nowhere."""
    pairs = zip(both.sum(dim=0).tolist(), either.sum(dim=0).tolist(), strict=True)
    return [a / b if b else None for a, b in pairs]


def pixels(maps: Tensor, classes: int, among: Tensor | None = None) -> Tensor:
    """(B, K) int64: how many pixels of each map (B, H, W) are of each class.

    Args:
        among: (B, H, W) bool: those that count; None: all.
    """
    rows = torch.arange(len(maps), device=maps.device)[:, None]
    cells = rows * classes + maps.flatten(1).long()
    counted = cells.flatten() if among is None else cells[among.flatten(1)]
    return torch.bincount(counted, minlength=len(maps) * classes).reshape(len(maps), classes)


def compared(prediction: Tensor, label: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of maps and the truth, (B, H, W) each, the pixels by class, (B, K) each, and those that are both.

    Pixels whose truth is no class, K or more, do not count.
    """
    counting = label < classes
    among = None if counting.all() else counting
    return (
        pixels(prediction, classes, among),
        pixels(label, classes, among),
        pixels(prediction, classes, among=prediction.long() == label.long()),
    )


def otherwise(given: Tensor, expected: Tensor) -> Tensor:
    """(S,) bool: whether two maps' pixels by class, (S, K) each, differ by more than rounding explains."""
    return (given - expected).abs().sum(dim=1) > 2 * ROUNDED * expected.sum(dim=1)


def map_trace(
    steps: Sequence[Step],
    batches: Iterable[Tensor],
    label: Tensor,
    check: Check = lambda uncertainty, confidence: None,
) -> MapTrace:
    """One pass over S images; every exit is run for every sample. No map outlives its batch.

    Args:
        steps: N, from features to features, the map's logits (B, K, H, W) and the uncertainty (B,).
        batches: that add up to S images.
        label: (S, H, W) unsigned bytes.
        check: is shown uncertainty and confidence, (S, N) each, before there is a trace of them.
    """
    parts: list[tuple[Tensor, ...]] = []
    start = 0
    with torch.inference_mode():
        for x in batches:
            truth = label[start : start + len(x)]
            start += len(x)
            exits = []
            for step in steps:
                x, answer, uncertainty = step(x)
                given, size, both = compared(answer.argmax(dim=1), truth, answer.shape[1])
                exits.append((uncertainty, certainty(answer), given, both))
            parts.append((size, *(torch.stack(column, dim=1) for column in zip(*exits, strict=True))))
    # Joined outside of inference mode: plain tensors, usable anywhere.
    sizes, uncertainties, confidence, given, both = (torch.cat(column) for column in zip(*parts, strict=True))
    check(uncertainties, confidence)
    return MapTrace(uncertainties, given, sizes, overlap=both)


class MeanOverPixels(Criterion):
    """The mean over a map's pixels of what a criterion gives for each of them.

    Args:
        criterion: from the logits (B, K, H, W) to (B, H, W): one that computes along the classes, dimension 1.

    Raises:
        UserError: a criterion that learns, or that looks at features or back.
    """

    def __init__(self, criterion: Criterion) -> None:
        super().__init__()
        if criterion.learns or criterion.of_features or criterion.of_history:
            raise UserError(
                f"the criterion {criterion.name} judges one answer for an image, and a map has one for every "
                "pixel: take entropy, max_probability or margin"
            )
        self.criterion = criterion
        self.name, self.unit = criterion.name, criterion.unit  # type: ignore[misc]

    def largest(self, num_classes: int) -> float | None:
        return self.criterion.largest(num_classes)

    def forward(self, logits: Tensor) -> Tensor:
        """(B, K, H, W) to (B,)."""
        return self.criterion(logits).flatten(1).mean(dim=1)
