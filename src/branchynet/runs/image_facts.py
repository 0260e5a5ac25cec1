"""What a network has to know of the images it was trained on: `data.json` in a run's folder.

So a trained network can be built and fed without its data set. Shapes: C channels, H, W, K classes.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, FiniteFloat, PositiveInt, TypeAdapter

from branchynet.data.image_files import SIZES, Border, border_of
from branchynet.data.mapped import walk
from branchynet.errors import UserError
from branchynet.forms import what_is_wrong
from branchynet.regular import read_regular
from branchynet.runs.atomic import replacing

if TYPE_CHECKING:
    from branchynet.data.module import ImageData

NAME = "data.json"
MAX_VALUES = 100_000_000  # of one image


@dataclass(frozen=True)
class ImageFacts:
    """The images' shape, the classes' names, and the normalisation: (bytes / 255 - mean) / std."""

    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt]  # (C, H, W)
    classes: Annotated[tuple[str, ...], Field(min_length=1)]  # K
    mean: tuple[FiniteFloat, ...]  # C, of the training split, of values 0 … 1
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...]  # C, the same
    fingerprint: str | None = None  # sha256 of all images and labels; None where a run did not keep it
    border: Border | None = None  # of the training split; None where a run did not keep it
    # How image files were brought to the size, as `ImageFiles.size`; None: not known, or there were no files.
    files_size: str | None = None

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)


def facts_of(data: "ImageData") -> ImageFacts:
    """What `data`, set up, says of its images."""
    data.setup()
    calibration = ("calibration",) if len(data.images("calibration")) else ()
    fingerprint = data.fingerprint(("train", "val", "test", *calibration))
    border = border_of(part.numpy() for part in walk(data.images("train")))
    return ImageFacts(
        data.input_shape,
        tuple(data.classes),
        tuple(data.mean),
        tuple(data.std),
        fingerprint,
        border,
        data.files_size,
    )


def check_same_images(folder: Path, facts: ImageFacts) -> None:
    """A UserError if the run in `folder` was started with other images than these."""
    before = read_facts(folder)
    if before is not None and before.fingerprint not in (None, facts.fingerprint):
        raise UserError(
            f"the data set is another one than {folder} was started with: put the images back that it was, or "
            "train in another folder"
        )


def write_facts(folder: Path, facts: ImageFacts) -> None:
    """Write `data.json` into a run's folder."""
    with replacing(folder / NAME) as temporary:
        temporary.write_text(json.dumps(asdict(facts), ensure_ascii=False) + "\n", encoding="utf-8")


def read_facts(folder: Path) -> ImageFacts | None:
    """What `write_facts` wrote, None where there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / NAME
    try:
        facts = TypeAdapter(ImageFacts).validate_json(read_regular(path), strict=True)
        channels, height, width = facts.input_shape
        if channels * height * width > MAX_VALUES:
            raise ValueError(f"images have at most {MAX_VALUES:,} values")
        if not len(facts.mean) == len(facts.std) == channels:
            raise ValueError("mean and std are not of as many channels as the images")
        if facts.border is not None and len(facts.border.colour) != channels:
            raise ValueError("the border is not of as many channels as the images")
        if facts.files_size not in (None, *SIZES):
            raise ValueError(f"files_size is {facts.files_size!r}, must be one of {', '.join(SIZES)}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({what_is_wrong(error)}): delete it, and it is taken from the data set"
        ) from error
    return facts
