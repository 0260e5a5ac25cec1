"""The form of `result.json`, for whoever reads one: `docs/result.schema.json` is made of it.

Shapes: N exits.
"""

import json
import math
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from branchynet.errors import UserError
from branchynet.exports.form import Certificate
from branchynet.forms import Above0, Name, Part, what_is_wrong
from branchynet.regular import read_regular
from branchynet.runs.started_run import RESULT

NAME = RESULT
TRIAL = "trial.json"  # in its place, where a search has judged a network on validation alone
ROUNDING = 1e-6  # of exit rates' sum

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=-1)]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
Macs = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]


class Intervals(Part):
    """95 % intervals of what has the same name beside them; the difference is paired."""

    accuracy: Pair
    accuracy_minus_baseline: Pair
    exit_rates: list[Pair]
    gain_macs: Pair
    gain_latency: Pair
    gain_trunk_only: Pair | None = None
    gain_over_static: Pair | None = None


class Whole(Part):
    """What all images get alike."""

    accuracy: Fraction
    macs: Macs
    latency_us: Above0
    balanced_accuracy: Fraction | None = None
    interval: Pair | None = None


class Baseline(Whole):
    """The network of stage 1."""


class Exit(Whole):
    """What sending every image out at this exit gives; `static_…`: the trunk up to there and its own head alone.

    `static_accuracy` is there where exits average; elsewhere it is `accuracy`.
    """

    static_accuracy: Fraction | None = None
    static_macs: Macs
    static_latency_us: Above0


class Measured(Part):
    """The operating point, run for real."""

    accuracy: Fraction
    latency_us: Above0
    gain_latency: Above0


class Gains(Part):
    """What a point gives on one split."""

    accuracy: Fraction
    gain_macs: Above0
    gain_latency: Above0
    intervals: Intervals | None = None


class Validation(Gains):
    """The operating point on the validation split: what settings may be chosen by."""

    baseline_accuracy: Fraction
    gain_at_no_loss: Annotated[float, Field(ge=0)]


class Point(Gains):
    """The same, with where samples leave and what that costs."""

    exit_rates: list[Fraction]
    macs: Above0
    latency_us: Above0


class Perfect(Point):
    """What a point that no thresholds give would give."""


class Knee(Point):
    """The operating point that the rule picked."""

    rule: Name
    criterion: Name
    thresholds: list[float]
    gain_trunk_only: Above0
    gain_over_static: Above0 | None
    measured: Measured | None
    balanced_accuracy: Fraction | None = None
    certificate: Certificate | None = Field(default=None, description="a promise; null: nothing is promised")


class Overhead(Part):
    """What going to the last exit costs beyond the baseline, as a share of it."""

    macs: Share
    latency: Share


class Headroom(Part):
    """What perfect exits would give, and how well each side exit's uncertainty tells right from wrong answers."""

    perfect_confidence: Perfect
    perfect_knowledge: Perfect
    auroc: list[Fraction | None]


class Quality(Part):
    """How good a side exit's criterion is; null where the samples, the trace or the costs do not tell."""

    auroc: Fraction | None
    calibration_error: Fraction | None
    area: Annotated[float, Field(le=1)] | None = Field(
        description="under accuracy over cost: 0 guesses, 1 is best"
    )
    macs: Count
    latency_us: float | None


class CriterionQuality(Part):
    """Of all side exits."""

    calibrated: str = Field(description="what the calibration error is of; empty where there is none")
    exits: list[Quality]


class ClassRecall(Part):
    """How well each of the K classes is known by one way to answer; null: it has no samples."""

    recall: list[Fraction | None] = Field(
        description="the share of the class's samples that is answered rightly"
    )
    intervals: list[Pair | None]
    balanced_accuracy_interval: Pair = Field(description="of the mean of the recalls")


class Recalls(Part):
    """How well each class is known: K names and numbers of samples, and K recalls in all."""

    classes: list[str]
    samples: list[Count]
    baseline: ClassRecall
    exits: list[ClassRecall]
    knee: ClassRecall


class Iou(Part):
    """How well the maps of one way to answer fit the truth, over all images."""

    mean_iou: Fraction = Field(description="the mean of the classes that are there")
    interval: Pair
    iou: list[Fraction | None] = Field(
        description="K: the pixels of all images that map and truth both give to the class over those that one of "
        "them does; null: the class is nowhere"
    )


class Ious(Part):
    """The same of all ways: K names, and numbers of pixels in the truth."""

    classes: list[str]
    pixels: list[Count]
    baseline: Iou
    exits: list[Iou]
    knee: Iou


class Rival(Part):
    """A small network of others for the same images, as its source says."""

    name: Name
    macs: Macs
    accuracy: Fraction
    source: Name


class Outside(Part):
    """What the exits make of images that the network should not know: N numbers each."""

    source: Name
    samples: Annotated[int, Field(gt=0)]
    auroc: list[Fraction]
    exit_rates: list[Fraction]


class Adaptive(Part):
    """The operating point's thresholds, adapted to the reported images without their labels."""

    thresholds: list[float] = Field(description="N-1")
    accuracy: Fraction
    accuracy_minus_fixed: float = Field(description="less the accuracy at the operating point")
    interval: Pair = Field(description="of that, 95 %, paired")
    exit_rates: list[Fraction]
    macs: Above0
    latency_us: Above0
    disagreement: Fraction = Field(description="images whose answer is not the last exit's")
    allowed: Fraction = Field(description="the same on validation at the operating point")
    estimated_accuracy: Fraction


class WithoutInexact(Part):
    """Accuracies on the test images that are the published ones."""

    baseline_accuracy: Fraction
    accuracy: Fraction


class Fitting(Part):
    """The images that something was fitted on after training, and how many others the thresholds were chosen on."""

    split: Literal["validation", "calibration"]
    images: Annotated[int, Field(gt=0)]
    images_of_choice: Annotated[int, Field(gt=0)]


class Swept(Part):
    """How much of a large grid of threshold vectors was kept, and what that may miss on the split of the choice."""

    vectors: Annotated[int, Field(gt=0)]
    kept: Annotated[int, Field(gt=0)]
    gap: Fraction = Field(
        description="no vector is more accurate, by more than this, than the best one kept that costs no more; 0: "
        "those kept are the frontier"
    )
    gap_at_point: Fraction = Field(
        description="the same of vectors that cost no more than the operating point"
    )


class Result(Part):
    """What `branchynet train` and `evaluate` found. Accuracies are fractions, latencies µs per image at batch 1."""

    experiment: Name
    seed: Count
    protocol: Literal["validation", "paper"]
    engine: Name
    threads: Annotated[int, Field(ge=1, le=4096)]
    machine: str
    versions: dict[str, str]
    noisy: bool | None = None
    noise: list[str] = Field(default=[])
    baseline: Baseline
    exits: Annotated[list[Exit], Field(min_length=1)]
    knee: Knee
    validation: Validation | None = None
    overhead_to_the_end: Overhead | None = None
    headroom: Headroom | None = None
    criterion_quality: CriterionQuality | None = None
    recall: Recalls | None = None
    inexact_test_images: Count = 0
    inexact_training_images: Count = 0
    without_inexact: WithoutInexact | None = None
    rivals: list[Rival] = Field(default=[])
    outside: list[Outside] = Field(default=[])
    adaptive: Adaptive | None = None
    shares: list[Fraction] | None = Field(
        default=None,
        description="N, where exits average: how much of an exit's answer is the answer before it",
    )
    split: Literal["test", "val"] = "test"
    fitting: Fitting | None = None
    task: Name = Field(
        default="classification",
        description="segmentation: an accuracy is the mean over the images of each one's own mean IoU",
    )
    iou: Ious | None = Field(default=None, description="of maps")
    sweep: Swept | None = Field(default=None, description="null: every threshold vector tried was kept")

    @model_validator(mode="after")
    def _of_as_many_exits(self) -> "Result":
        exits, knee = len(self.exits), self.knee
        if len(knee.thresholds) != exits - 1:
            raise ValueError(f"knee.thresholds has {len(knee.thresholds)} numbers for {exits} exits")
        if len(knee.exit_rates) != exits:
            raise ValueError(f"knee.exit_rates has {len(knee.exit_rates)} numbers for {exits} exits")
        if self.shares is not None and (len(self.shares) != exits or self.shares[0] != 0):
            raise ValueError(f"shares are {self.shares} for {exits} exits: one for each, the first one 0")
        if abs(math.fsum(knee.exit_rates) - 1) > ROUNDING:
            raise ValueError(f"knee.exit_rates add up to {math.fsum(knee.exit_rates)}, not to 1")
        return self


def find_result(folder: Path) -> dict[str, Any] | None:
    """What stands in the `result.json` of a run's folder, None where there is none.

    Raises:
        UserError: it is damaged, or something else.
    """
    path = folder / NAME
    try:
        text = read_regular(path)
        Result.model_validate_json(text)
        found: dict[str, Any] = json.loads(text)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({what_is_wrong(error)}): move it away, and `branchynet train "
            f"resume={quote(str(folder))}` makes it again"
        ) from error
    return found


def read_result(folder: Path) -> dict[str, Any]:
    """The same of a finished run.

    Raises:
        UserError: there is none, or it is damaged.
    """
    found = find_result(folder)
    if found is None:
        raise UserError(
            f"the run {folder} is not finished, it has no {NAME}: `branchynet train "
            f"resume={quote(str(folder))}` goes on with it"
        )
    return found
