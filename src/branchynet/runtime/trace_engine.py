"""What an engine's own exits say of every sample: for engines whose outputs are not PyTorch's.

Shapes: C channels, H, W, N exits, S samples.
"""

import numpy as np

from branchynet.runtime.base import Engine, forced
from branchynet.runtime.verify import run_in_batches


def trace_engine(engine: Engine, x: np.ndarray, batch: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Run every sample through every exit, by forcing all of them out at each exit in turn.

    With the labels, this is what `branchynet.exits.trace.Trace` holds: thresholds swept on it hold for this
    engine. The engine runs as it will later, so the numbers are the very ones that its thresholds will meet,
    at the price of running the first layers once for every exit.

    Args:
        x: (S, C, H, W) float32.
        batch: images a run; others may round otherwise.

    Returns:
        Uncertainty (S, N) float32 and prediction (S, N) int64.
    """
    before = engine.thresholds
    exits = len(before) + 1
    outcomes = []
    try:
        for n in range(exits):
            engine.thresholds = forced(n, exits)
            outcomes.append(run_in_batches(engine, x, batch))
    finally:
        engine.thresholds = before
    return (
        np.stack([outcome.uncertainty for outcome in outcomes], axis=1),
        np.stack([outcome.prediction for outcome in outcomes], axis=1),
    )
