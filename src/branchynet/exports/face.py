"""What users hold in their hands: a trained network with exits, of a run or of an export. No PyTorch here.

Shapes: B batch, C channels, H, W, K classes, N exits.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from branchynet.errors import UserError
from branchynet.runtime.base import Outcome


class OnImages(ABC):
    """A network that takes images as they stand in an image file, and really leaves early."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """The K classes' names; a prediction is a number into them."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""

    @property
    @abstractmethod
    def thresholds(self) -> tuple[float, ...]:
        """N-1 thresholds, as float32 holds them; may be set again between any two runs.

        Raises:
            UserError: a wrong number of them, or one that is nan.
        """

    @thresholds.setter
    @abstractmethod
    def thresholds(self, values: Sequence[float]) -> None: ...

    @abstractmethod
    def run(self, images: Any) -> Outcome:
        """Classify images; each leaves at the first exit that is sure enough, and later layers never see it.

        Args:
            images: (B, C, H, W) uint8, 0 … 255, as NumPy array or tensor, B ≥ 1; they are normalised here.

        Returns:
            `prediction` (B,), `exit` (B,), 1 … N, and `uncertainty` (B,), of the exit that was taken.

        Raises:
            UserError: images of another shape or type.
        """

    def checked(self, images: Any) -> np.ndarray:
        """The images as an array in one piece, or a UserError if they are not what the network takes."""
        x = np.asarray(images)
        wanted = ", ".join(map(str, self.input_shape))
        if x.ndim != 4 or x.shape[1:] != self.input_shape or not len(x):
            raise UserError(f"the images have shape {x.shape}: this network takes (B, {wanted}), B ≥ 1")
        if x.dtype != np.uint8:
            raise UserError(
                f"the images are {x.dtype}: give bytes, uint8, 0 to 255; they are normalised here"
            )
        return np.ascontiguousarray(x)  # PyTorch takes no mirrored views
