"""What a network has to know of the images it was trained on: `data.json` in a run's folder.

So a trained network can be built and fed without its data set. Shapes: C channels, H, W, K classes.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from branchynet.data.image_files import Border, border_of
from branchynet.errors import UserError
from branchynet.runs.atomic import replacing

if TYPE_CHECKING:
    from branchynet.data.module import ImageData

NAME = "data.json"


@dataclass(frozen=True)
class ImageFacts:
    """The images' shape, the classes' names, and the normalisation: (bytes / 255 - mean) / std."""

    input_shape: tuple[int, int, int]  # (C, H, W)
    classes: tuple[str, ...]  # K
    mean: tuple[float, ...]  # C, of the training split, of values 0 … 1
    std: tuple[float, ...]  # C, the same
    fingerprint: str | None = None  # sha256 of all images and labels; None where a run did not keep it
    border: Border | None = None  # of the training split; None where a run did not keep it

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)


def facts_of(data: "ImageData") -> ImageFacts:
    """What `data`, set up, says of its images."""
    data.setup()
    fingerprint = data.fingerprint(("train", "val", "test"))
    border = border_of(data.images("train").numpy())
    return ImageFacts(
        data.input_shape, tuple(data.classes), tuple(data.mean), tuple(data.std), fingerprint, border
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
        found = json.loads(path.read_text(encoding="utf-8"))
        channels, height, width = (int(size) for size in found["input_shape"])
        mean, std = (tuple(float(value) for value in found[key]) for key in ("mean", "std"))
        classes = tuple(str(name) for name in found["classes"])
        if min(channels, height, width) < 1 or not len(mean) == len(std) == channels or min(std) <= 0:
            raise ValueError("the numbers do not fit each other")
        if not all(map(math.isfinite, (*mean, *std))):
            raise ValueError("mean and std have to be finite")
        fingerprint = found.get("fingerprint")
        border = found.get("border")
        if border is not None:
            border = Border(
                tuple(map(int, border["colour"])), int(border["darkest"]), int(border["lightest"])
            )
            if len(border.colour) != channels:
                raise ValueError("the numbers do not fit each other")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}): delete it, and it is taken from the data set"
        ) from error
    return ImageFacts((channels, height, width), classes, mean, std, fingerprint, border)
