"""What users hold in their hands: a trained network with exits, of a run or of an export. No PyTorch here.

Shapes: B batch, C channels, H, W, K classes, N exits.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from branchynet.errors import UserError
from branchynet.runtime.base import Outcome, forced
from branchynet.runtime.controller import Controller
from branchynet.runtime.profile import Profile

# An `Outcome`, or a tuple of arrays that begins as one.
Found = TypeVar("Found", bound=tuple[np.ndarray, ...])


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

    @property
    @abstractmethod
    def profile(self) -> Profile:
        """What its exits cost, and what they said on validation.

        Raises:
            UserError: an older run or export does not say it.
        """

    @abstractmethod
    def run_once(self, images: np.ndarray) -> Outcome:
        """Run images that were `checked`, at the thresholds as they stand."""

    # What sets the thresholds while images are run; None: they stay as they are set.
    controller: Controller | None = None

    def hold(self, hold: str = "latency_us", target: Any = None, **settings: Any) -> Controller:
        """From now on, let a controller hold a mean cost or exit rates; see `Controller` for all settings.

        network.hold("latency_us", 60.0)
        """
        self.controller = Controller(self.profile, hold, target, **settings)
        return self.controller

    def run(self, images: Any) -> Outcome:
        """Classify images; each leaves at the first exit that is sure enough, and later layers never see it.

        With a `controller`, they are the next ones of its stream, and it sets the thresholds meanwhile.

        Args:
            images: (B, C, H, W) uint8, 0 … 255, as NumPy array or tensor, B ≥ 1; they are normalised here.

        Returns:
            `prediction` (B,), of maps (B, H, W), `exit` (B,), 1 … N, and `uncertainty` (B,), of the exit that was
            taken.

        Raises:
            UserError: images of another shape or type, or a controller of another network.
        """
        return self.controlled(self.checked(images), self.run_once)

    def controlled(self, images: np.ndarray, run: Callable[[np.ndarray], Found]) -> Found:
        """Run images that were `checked`, piece by piece as the controller says; without one, all at once."""
        controller = self.controller
        if controller is None:
            return run(images)
        if controller.profile.fingerprint != self.profile.fingerprint:
            raise UserError("the controller is of another network: make one with hold(…) of this one")
        parts: list[Any] = []
        start = 0
        while start < len(images):
            if self.thresholds != controller.thresholds:  # setting them takes longer than a look
                self.thresholds = controller.thresholds
            part = run(images[start : start + controller.ahead])
            start += len(part[0])
            controller.observe(part[1], part[2])
            parts.append(part)
        self.thresholds = controller.thresholds
        if len(parts) == 1:
            return parts[0]
        return type(parts[0])(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def every_exit(self, images: Any) -> tuple[np.ndarray, np.ndarray]:
        """What all exits say of images: uncertainty (B, N) float32 and prediction (B, N) int64.

        All are sent out at each exit in turn, so the first layers run N times.
        """
        x, before = self.checked(images), self.thresholds
        exits = len(before) + 1
        found = []
        try:
            for n in range(exits):
                self.thresholds = forced(n, exits)
                found.append(self.run_once(x))
        finally:
            self.thresholds = before
        return (
            np.stack([outcome.uncertainty for outcome in found], axis=1),
            np.stack([outcome.prediction for outcome in found], axis=1),
        )

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
