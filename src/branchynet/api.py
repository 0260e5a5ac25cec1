"""A trained network in ten lines: load, set thresholds, run, read exits.

Shapes: B batch, C channels, H, W, K classes, N exits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from branchynet.commands.finished_run import FinishedRun, open_run
from branchynet.data.loader import normalisation
from branchynet.errors import UserError
from branchynet.runtime.engine import Engine, Outcome, make_engine
from branchynet.runtime.exported import Exported, load_export
from branchynet.runtime.manifest import FILE as MANIFEST

BATCH = 1000  # images at once: memory does not grow with their number


class TrainedNetwork:
    """A run's network on an engine, with the run's thresholds until others are set. See `load`."""

    def __init__(self, run: FinishedRun, engine: Engine) -> None:
        self._engine = engine
        self.finished_run = run
        self._factor, self._offset = (part.numpy() for part in normalisation(run.facts.mean, run.facts.std))

    @property
    def classes(self) -> tuple[str, ...]:
        """The K classes' names; a prediction is a number into them."""
        return self.finished_run.facts.classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.finished_run.facts.input_shape

    @property
    def thresholds(self) -> tuple[float, ...]:
        """N-1 thresholds, in the unit of the run's criterion; may be set anew between any two runs.

        Raises:
            UserError: a wrong number of them, or one that is nan.
        """
        return self._engine.thresholds

    @thresholds.setter
    def thresholds(self, values: Sequence[float]) -> None:
        self._engine.thresholds = values

    def run(self, images: Any) -> Outcome:
        """Classify images; each leaves at the first exit that is sure enough, and later layers never see it.

        Args:
            images: (B, C, H, W) uint8, 0 … 255, as NumPy array or tensor; they are normalised here.

        Returns:
            `prediction` (B,), `exit` (B,), 0-based, and `uncertainty` (B,), of the exit that was taken.

        Raises:
            UserError: images of another shape or type.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != self.input_shape or not len(images):
            wanted = ", ".join(map(str, self.input_shape))
            raise UserError(f"the images have shape {images.shape}: this network takes (B, {wanted}), B ≥ 1")
        if images.dtype != np.uint8:
            raise UserError(
                f"the images are {images.dtype}: give bytes, uint8, 0 to 255; they are normalised here"
            )
        outcomes = []
        for start in range(0, len(images), BATCH):
            # The very arithmetic of training: factor and offset in float32.
            x = images[start : start + BATCH].astype(np.float32)
            outcomes.append(self._engine.run(x * self._factor - self._offset))
        return Outcome(*(np.concatenate(parts) for parts in zip(*outcomes, strict=True)))


def load(
    folder: Path | str, engine: str | None = None, threads: int | None = None, trust: bool = False
) -> TrainedNetwork | Exported:
    """The network of a finished run or of an export, ready to run; nothing of the folder runs code, see `trust`.

    Args:
        folder: a run's, or what `branchynet export` wrote: that has an engine of its own, see `load_export`.
        engine: torch | onnxruntime …; None takes the one that the run's thresholds were chosen with.
        threads: of computation; None takes the run's, for an export 1.
        trust: also take what may run others' code: settings that name classes of others, or an export of
            format torch.

    Raises:
        UserError: no run, one that is not finished, damaged files, or an unknown engine.
    """
    if (Path(folder) / MANIFEST).is_file():
        if engine is not None:
            raise UserError(f"engine={engine}: the export {folder} brings its own, leave the engine out")
        return load_export(folder, 1 if threads is None else threads, trust)
    run = open_run(folder, trust)
    name = run.result["engine"] if engine is None else engine
    count = run.result["threads"] if threads is None else threads
    made = make_engine(name, run.network, run.criterion, run.thresholds, run.facts.input_shape, count)
    return TrainedNetwork(run, made)
