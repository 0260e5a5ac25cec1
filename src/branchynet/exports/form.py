"""The form of manifest.json: which keys there are, what they mean and which values they may have.

`manifest.schema.json`, which lies beside every manifest, is made of it.

Shapes: C channels, H, W, K classes, N exits. Nothing here needs PyTorch.
"""

import math
from collections import Counter
from typing import Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from branchynet.exits import certificate
from branchynet.exports.tensors import MOST
from branchynet.forms import Above0, Name, Part

T = TypeVar("T")
OPTIONAL = ("certificate", "validation")  # in every version
Many = Annotated[list[T], Field(fail_fast=True)]  # a million wrong ones are one mistake
Byte = Annotated[int, Field(ge=0, le=255)]
Whole = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Least0 = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Cost(Part):
    """What one image costs, all heads on the way, the criterion and the decision included."""

    macs: Whole = Field(le=10**18, description="multiply-accumulates")
    latency_us: Above0 = Field(le=1e12, description="microseconds, at batch 1")


class Costs(Part):
    """As the run measured them; the models' normalisation and confidence are not in them."""

    engine: Name
    threads: Whole
    machine: Name
    baseline: Cost
    exits: Many[Cost] = Field(min_length=1, description="N: leaving at exit 1 … N")


class Input(Part):
    """Of the first model."""

    name: Literal["image"] = "image"
    dtype: Literal["uint8"] = Field(description="0 … 255")
    layout: Literal["NCHW"] = Field(description="row-major")
    shape: Many[Whole] = Field(min_length=3, max_length=3, description="C, H, W")
    batch: Literal["any", 1] = "any"


class Normalisation(Part):
    """(x / 255 - mean) / std, which the first model does itself."""

    inside: Literal[True] = True
    mean: Many[float] = Field(description="C, of values / 255")
    std: Many[Above0] = Field(description="C, of values / 255")


class Uncertainty(Part):
    """What thresholds are compared with: the lower, the surer."""

    unit: str = Field(description="also the thresholds'")
    least: Literal[0] = Field(description="nobody is surer; a threshold of 0 takes no image")
    most: float | None = Field(
        description="nobody is less sure, but for rounding; null: not known. A threshold above it takes every image"
    )


class Validation(Part):
    """What the exits said on the validation images, at these thresholds: what a controller goes by."""

    samples: Whole = Field(description="images")
    exit_rates: Many[Share] = Field(min_length=2, description="N, of all images")
    disagreement: Share = Field(
        description="of all images: those that got another class than the last exit gives"
    )
    uncertainty: Many[Many[Least0]] = Field(
        description="of each exit but the last, over all images: its quantiles at 0, 1, … 100 %"
    )
    bins: Many[Many[Least0]] = Field(
        description="N: the uncertainties that part all images into as many equal parts as `right` has, rising"
    )
    right: Many[Many[Share]] = Field(
        description="N: the share of each of these parts that the exit is right about"
    )

    @model_validator(mode="after")
    def _rises(self) -> "Validation":
        if any(len(quantiles) < 2 for quantiles in self.uncertainty):
            raise ValueError("validation.uncertainty has fewer than two quantiles")
        for name in ("uncertainty", "bins"):
            if any(values != sorted(values) for values in getattr(self, name)):
                raise ValueError(f"validation.{name} has numbers that do not rise")
        if [len(edges) + 1 for edges in self.bins] != [len(shares) for shares in self.right]:
            raise ValueError("validation.right does not have one number more than validation.bins")
        return self


class ImageFiles(Part):
    """What becomes of an image file before it is the first model's input."""

    size: Literal["bilinear", "crop", "refuse"] = Field(
        description="one of another size is resized, resized to cover the input and cut to its middle, or refused"
    )
    channels: Literal["convert", "refuse"] = Field(
        description="one of other channels is converted to grey or RGB, or refused"
    )
    background: Many[Byte] | None = Field(
        default=None,
        description="C, below what is transparent, as the network sees it; null refuses transparency",
    )
    invert: bool = Field(default=False, description="whether dark and light are swapped")
    border: Annotated[list[Byte], Field(min_length=2, max_length=2)] | None = Field(
        default=None,
        description="of 100 training images, 99 have outermost pixels whose mean is from the first to the second",
    )
    steps: Many[str] = Field(default=[], description="the same in words, in their order")


class Tensor(Part):
    """An input or output of a model."""

    name: Name = Field(description="format torch: the place in the list counts")
    dtype: Literal["uint8", "int64", "float32"]
    layout: Name = Field(
        description="N batch, C channels, H height, W width, T tokens, K classes; memory is row-major"
    )
    shape: Many[Annotated[int, Field(ge=0)] | Literal["B"]] = Field(description="B: any batch")


class Certificate(Part):
    """A promise about the operating point on new images: the mean of `bounded` is at most `limit`.

    It holds with probability at least 1 - `delta` over the draw of the samples that it was made from, at the
    thresholds beside it, and for images of the same kind as these.
    """

    promise: Name = Field(description="in words")
    bounded: Name = Field(
        description="harmful or net: accuracy lost, a fraction; or a cost, such as latency_us"
    )
    limit: float
    delta: Annotated[float, Field(gt=0, lt=1)]
    samples: Whole = Field(description="that certified")
    ordering: Annotated[int, Field(ge=0)] = Field(description="other samples, which ordered the points")
    observed: float = Field(description="the mean over the samples that certified")
    p_value: Annotated[float, Field(ge=0, le=1)]
    against: str = Field(default="", description="whose accuracy is lost: last or baseline")
    harmful: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="samples answered wrongly where that one is right"
    )
    helpful: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="samples answered rightly where that one is wrong"
    )

    def content(self) -> certificate.Certificate:
        """What a later version says beyond it is left out."""
        return certificate.Certificate(**{name: getattr(self, name) for name in Certificate.model_fields})


class File(Part):
    """A model."""

    name: Annotated[str, Field(pattern=r"^[^/\\\x00]+$")] = Field(description="beside the manifest")
    sha256: Sha256
    bytes: Whole | None = None
    inputs: Many[Tensor] | None = None
    outputs: Many[Tensor] | None = None


class Form(Part):
    """What `branchynet export` writes beside its models: all that a host has to know."""

    format_version: Literal[1, 2, 3, 4, 5] = Field(
        description="2; 3: models hand their answers on, too; 4: and a criterion's state; 5: they give maps; 1: "
        "`exit` of a model.onnx counts from 0, and what is null by default here was not written"
    )
    branchynet: str = Field(default="", description="the version that wrote it")
    format: Literal["segments", "single", "torch"] = Field(
        description="one ONNX model per segment, one with the exits inside, or one torch.export program per segment"
    )
    experiment: Name
    criterion: Name = Field(description="what computes the uncertainty; it is inside the models")
    maps: bool = Field(
        default=False, description="whether a prediction is a class for every pixel, (B, H, W)"
    )
    uncertainty: Uncertainty | None = None
    shares: Many[Annotated[float, Field(ge=0, le=1)]] = Field(
        default=[],
        description="N, where exits average: how much of each one's answer, in log-probabilities, is the answer of "
        "the exit before; it is inside the models",
    )
    state: Annotated[int, Field(ge=0, le=MOST)] = Field(
        default=0,
        description="where the criterion looks back: how many numbers an image a model hands on to the next, as "
        "`state_<n>`; else 0",
    )
    thresholds: Many[float] = Field(description="N-1, of the operating point; a host may take others")
    certificate: Certificate | None = Field(default=None, description="null: nothing is promised")
    validation: Validation | None = Field(
        default=None, description="not there: nothing can be held at run time by what is known of validation"
    )
    stop_rule: str | None = None
    loop: Many[str] | None = Field(default=None, description="what a host does for one image")
    classes: Many[str] = Field(min_length=2, description="K names; a prediction counts into them from 0")
    input: Input
    normalisation: Normalisation
    image_files: ImageFiles
    costs: Costs
    files: Many[File] = Field(min_length=1, description="shallow to deep")
    sha256: Sha256 | None = Field(
        default=None,
        description="of all the rest, as JSON in ASCII, keys sorted, without spaces, numbers as Python writes them",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "Form":
        exits, channels = len(self.costs.exits), self.input.shape[0]
        for place, found, wanted in (
            ("thresholds", len(self.thresholds), exits - 1),
            ("shares", len(self.shares), exits if self.shares else 0),
            *self._of_validation(exits),
            ("files", len({file.name for file in self.files}), 1 if self.format == "single" else exits),
            ("normalisation.mean", len(self.normalisation.mean), channels),
            ("normalisation.std", len(self.normalisation.std), channels),
            ("image_files.background", len(self.image_files.background or range(channels)), channels),
        ):
            if found != wanted:
                raise ValueError(f"{place} has {found} entries where {wanted} belong")
        if math.prod(self.input.shape) > MOST:
            raise ValueError(f"input.shape is {self.input.shape}: more than {MOST:,} values")
        twice = next((name for name, count in Counter(self.classes).items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"classes has {twice[:80]!r} twice")
        border = self.image_files.border
        if border is not None and border[0] > border[1]:
            raise ValueError(f"image_files.border is {border}: it goes from the lower to the higher")
        if any(file.name in (".", "..") for file in self.files):
            raise ValueError("files has a name that is none")
        return self

    def _of_validation(self, exits: int) -> list[tuple[str, int, int]]:
        if self.validation is None:
            return []
        found = self.validation
        return [
            ("validation.exit_rates", len(found.exit_rates), exits),
            ("validation.uncertainty", len(found.uncertainty), exits - 1),
            ("validation.bins", len(found.bins), exits),
        ]

    @model_validator(mode="after")
    def _has_all_of_its_version(self) -> "Form":
        if self.format_version > 1:
            parts = [("", self), *((f"files.{n}.", file) for n, file in enumerate(self.files))]
            for place, part in parts:
                for key in type(part).model_fields:
                    if getattr(part, key) is None and key not in OPTIONAL:
                        raise ValueError(f"it has no {place}{key}")
        return self
