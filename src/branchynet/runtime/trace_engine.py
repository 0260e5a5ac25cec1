"""What an engine's own exits say of every sample: for engines whose outputs are not PyTorch's.

Shapes: C channels, H, W, N exits, S samples.
"""

from collections.abc import Iterable

import numpy as np

from branchynet.runtime.base import Engine, forced
from branchynet.runtime.verify import run_in_batches


def trace_engine(
    engine: Engine, images: Iterable[np.ndarray], batch: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Run every sample through every exit, by forcing all of them out at each exit in turn.

    With the labels, this is what `branchynet.exits.trace.Trace` holds: thresholds swept on it hold for this
    engine. The engine runs as it will later, so the numbers are the very ones that its thresholds will meet,
    at the price of running the first layers once for every exit.

    Args:
        images: (…, C, H, W) float32, any number at a time, S in all.
        batch: images a run; others may round otherwise. What is given at a time is run in so many.

    Returns:
        Uncertainty (S, N) float32 and prediction (S, N) int64.
    """
    before = engine.thresholds
    exits = len(before) + 1
    uncertainty, prediction = [], []
    try:
        for x in images:
            outcomes = []
            for n in range(exits):
                engine.thresholds = forced(n, exits)
                outcomes.append(run_in_batches(engine, x, batch))
            uncertainty.append(np.stack([outcome.uncertainty for outcome in outcomes], axis=1))
            prediction.append(np.stack([outcome.prediction for outcome in outcomes], axis=1))
    finally:
        engine.thresholds = before
    return np.concatenate(uncertainty), np.concatenate(prediction)
