"""What a network is asked for: one class for an image, or a map of them. A task is one object that knows all of it.

Shapes: B batch, C channels, H, W pixels, K classes, N exits, S samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

from torch import Tensor

from branchynet.errors import UserError
from branchynet.exits.criteria import Criterion
from branchynet.exits.maps import MapTrace, MeanOverPixels, compared, image_iou, map_trace, otherwise
from branchynet.exits.trace import Check, Step, Trace, run_all, trace_of


class Task(ABC):
    """What every task is.

    Its loss is the objective's: a mean over all that an answer says, of classes along dimension 1.

    Attributes:
        name: in settings and results.
        score: in tables and figures: what of an answer counts, a fraction. Whatever it is, `result.json` and
            TensorBoard call its mean accuracy.
        explained: the same in a sentence; empty: accuracy, which everybody knows.
        good, bad: an answer that does no harm, and one that does, see `Trace.good`.
        ranked: what a criterion should see to, in a sentence.
        reaches: what stands before a score in a sentence, and before a second one.
        perfect, known: the exits that perfect confidence and perfect knowledge leave at.
        partly: whether an answer may be partly right.
    """

    name: ClassVar[str]
    score: ClassVar[str]
    explained: ClassVar[str] = ""
    good: ClassVar[str] = "right"
    bad: ClassVar[str] = "wrong"
    ranked: ClassVar[str] = "a right answer is surer than a wrong one"
    reaches: ClassVar[tuple[str, str]] = ("is right on", "on")
    perfect: ClassVar[str] = "the first exit that agrees with the last one"
    known: ClassVar[str] = "the first exit that is right, where none is the first"
    partly: ClassVar[bool] = False

    @abstractmethod
    def answer(self, num_classes: int, input_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """The shape of an exit's logits, without the batch."""

    @abstractmethod
    def label(self, input_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """The shape of an image's label."""

    @abstractmethod
    def judging(self, criterion: Criterion) -> Criterion:
        """What judges an exit's answers by a criterion.

        Raises:
            UserError: it cannot judge these.
        """

    @abstractmethod
    def right(self, prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
        """(B,): whether each answer is right, bool, or how right it is, 0 … 1."""

    @abstractmethod
    def trace(
        self,
        steps: Sequence[Step],
        batches: Iterable[Tensor],
        label: Tensor,
        own: bool = False,
        check: Check = lambda uncertainty, confidence: None,
    ) -> Trace:
        """What every exit says of S images.

        Args:
            steps: N.
            batches: images (B, C, H, W) float32 that add up to S.
            label: of S images.
            own: whether the steps give their heads' own logits, too, see `branchynet.exits.trace.run_all`.
            check: is shown uncertainty and confidence, (S, N) each, before there is a trace of them.
        """

    @abstractmethod
    def answered(self, uncertainty: Tensor, prediction: Tensor, label: Tensor, num_classes: int) -> Trace:
        """The trace of answers that S images have got, as if there were one exit.

        Args:
            uncertainty: (S,) float32.
            prediction: (S, …): classes.
            label: of S images.
            num_classes: K.
        """

    @staticmethod
    def otherwise(given: Tensor, expected: Tensor) -> Tensor:
        """(S,) bool: whether what a trace has as predictions differs, by more than rounding explains."""
        return given != expected

    def check(self, label: Tensor, input_shape: tuple[int, int, int], data: str) -> None:
        """A UserError where the labels of a data set are of another task.

        Args:
            label: of S images.
            data: the set's name.
        """
        if tuple(label.shape[1:]) != self.label(input_shape):
            other = "a class for an image" if label.ndim == 1 else "maps"
            raise UserError(
                f"task={self.name}: the labels of data={data} are {other}; take another data set or another task"
            )


class Classification(Task):
    """One class for an image."""

    name = "classification"
    score = "accuracy"

    def answer(self, num_classes: int, input_shape: tuple[int, int, int]) -> tuple[int, ...]:
        return (num_classes,)

    def label(self, input_shape: tuple[int, int, int]) -> tuple[int, ...]:
        return ()

    def judging(self, criterion: Criterion) -> Criterion:
        return criterion

    def right(self, prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
        return prediction == label

    def trace(
        self,
        steps: Sequence[Step],
        batches: Iterable[Tensor],
        label: Tensor,
        own: bool = False,
        check: Check = lambda uncertainty, confidence: None,
    ) -> Trace:
        outputs = run_all(steps, batches, own)
        check(outputs.uncertainty, outputs.confidence)
        return trace_of(outputs, label)

    def answered(self, uncertainty: Tensor, prediction: Tensor, label: Tensor, num_classes: int) -> Trace:
        return Trace(uncertainty[:, None], prediction[:, None], label)


class Segmentation(Task):
    """A class for every pixel. A map is partly right, by its IoU; an exit is as unsure as its mean pixel."""

    name = "segmentation"
    score = "IoU"
    explained = (
        "IoU is the mean over the images of each one's own: of its classes, the mean of the pixels that map and "
        "truth both give to the class over those that one of them does; result.json and TensorBoard say accuracy."
    )
    good = "as good as the last exit"
    bad = "worse"
    ranked = "a map that is as good as the last exit's is surer than a worse one"
    reaches = ("has an IoU of", "one of")
    perfect = "the first exit whose map is no worse than the last one's"
    known = "the first exit with the best map"
    partly = True

    def answer(self, num_classes: int, input_shape: tuple[int, int, int]) -> tuple[int, ...]:
        return (num_classes, *input_shape[1:])

    def label(self, input_shape: tuple[int, int, int]) -> tuple[int, ...]:
        return input_shape[1:]

    def judging(self, criterion: Criterion) -> Criterion:
        return MeanOverPixels(criterion)

    def right(self, prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
        given, size, both = compared(prediction, label, num_classes)
        return image_iou(given, size, both)

    def trace(
        self,
        steps: Sequence[Step],
        batches: Iterable[Tensor],
        label: Tensor,
        own: bool = False,
        check: Check = lambda uncertainty, confidence: None,
    ) -> Trace:
        return map_trace(steps, batches, label, check)

    def answered(self, uncertainty: Tensor, prediction: Tensor, label: Tensor, num_classes: int) -> Trace:
        given, size, both = compared(prediction, label, num_classes)
        return MapTrace(uncertainty[:, None], given[:, None], size, overlap=both[:, None])

    @staticmethod
    def otherwise(given: Tensor, expected: Tensor) -> Tensor:
        return otherwise(given, expected)


CLASSIFICATION = Classification()
