"""A trained network in ten lines: load, set thresholds, run, read exits.

Shapes: B batch, C channels, H, W, K classes, N exits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from branchynet.errors import UserError, check_choice
from branchynet.exports.face import OnImages
from branchynet.exports.load import load_export
from branchynet.exports.manifest import FILE as MANIFEST
from branchynet.runtime.base import Outcome
from branchynet.runtime.profile import Profile

if TYPE_CHECKING:
    from branchynet.runs.finished_run import FinishedRun
    from branchynet.runtime.base import Engine

BATCH = 1000  # images at once: memory does not grow with their number


class TrainedNetwork(OnImages):
    """A run's network on an engine, with the run's thresholds until others are set. See `load`."""

    def __init__(self, run: "FinishedRun", engine: "Engine") -> None:
        from branchynet.data.normalise import normalisation

        self._engine = engine
        self.finished_run = run
        self._factor, self._offset = (part.numpy() for part in normalisation(run.facts.mean, run.facts.std))

    @property
    def classes(self) -> tuple[str, ...]:
        return self.finished_run.facts.classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.finished_run.facts.input_shape

    @property
    def thresholds(self) -> tuple[float, ...]:
        return self._engine.thresholds

    @thresholds.setter
    def thresholds(self, values: Sequence[float]) -> None:
        self._engine.thresholds = values

    @property
    def profile(self) -> Profile:
        return self.finished_run.profile

    def run_once(self, images: np.ndarray) -> Outcome:
        outcomes = []
        for start in range(0, len(images), BATCH):
            # The very arithmetic of training: factor and offset in float32.
            x = images[start : start + BATCH].astype(np.float32)
            outcomes.append(self._engine.run(x * self._factor - self._offset))
        return Outcome(*(np.concatenate(parts) for parts in zip(*outcomes, strict=True)))


def load(folder: Path | str, engine: Any = None, threads: int | None = None, trust: bool = False) -> OnImages:
    """The network of a finished run or of an export, ready to run; nothing of the folder runs code, see `trust`.

    An export is loaded without PyTorch, a run without Lightning.

    Args:
        folder: a run's, or what `branchynet export` wrote: that has an engine of its own, see `load_export`.
        engine: torch | onnxruntime …, or a `branchynet.runtime.base.Backend`; None takes the one that the run's
            thresholds were chosen with.
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
    # Only now: an export needs none of it.
    from branchynet.runs.finished_run import open_run
    from branchynet.runtime.catalogue import ENGINES, make_engine

    if isinstance(engine, str):
        check_choice("engine", engine, tuple(ENGINES))
    run = open_run(folder, trust)
    return TrainedNetwork(
        run,
        make_engine(
            run.backend if engine is None else engine,
            run.network,
            run.criteria,
            run.thresholds,
            run.facts.input_shape,
            run.result["threads"] if threads is None else threads,
        ),
    )
