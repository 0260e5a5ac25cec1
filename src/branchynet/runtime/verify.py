"""Running an engine over many samples: one by one with a clock, and in batches.

Shapes: C channels, H, W, N exits, S samples.
"""

import copy
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from branchynet.data.batches import at_once
from branchynet.runtime.base import Classifier, Engine, Outcome, forced
from branchynet.runtime.early_exit import torch_threads

# Samples that the engine runs in a row before the baseline runs the same ones.
BLOCK = 100
# At most this number of passes over the samples, and of seconds; the first one is always finished.
PASSES, SECONDS = 3, 30.0


@dataclass(frozen=True)
class RealRun:
    """S samples, one by one, through the engine and the baseline."""

    outcome: Outcome
    latency_us: float  # mean over the samples
    latency_iqr_us: float  # interquartile range of the means of blocks of 100 samples in a row
    baseline_latency_us: float


def whole_blocks(shape: Sequence[int]) -> int:
    """How many images (C, H, W) are in memory at once: as many as fit, in whole blocks."""
    return max(1, at_once(shape) // BLOCK) * BLOCK


def run_for_real(
    engine: Engine,
    baseline: Classifier,
    images: Callable[[], Iterable[np.ndarray]],
    threads: int = 1,
) -> RealRun:
    """Run S samples each by itself, at batch 1, on both.

    Engine and baseline take turns in blocks of 100 samples. There are up to three passes; a sample's time is
    the median of its own, so that a disturbance counts for no sample; the mean over the samples, which leave
    at different exits, is the operating point's latency.

    Args:
        images: gives them, once for each pass: (…, C, H, W) float32, some whole blocks at a time, S in all. They
            are read between blocks, while no clock runs.
    """
    times: list[array[int]] = []  # by pass, nanoseconds of each sample
    baseline_times: list[array[int]] = []
    outcomes: list[Outcome] = []
    clock = time.perf_counter_ns
    with torch_threads(threads):
        # Warm-up; once to the last exit: none of these may get there, and some engines compile on the way.
        to_the_end = copy.copy(engine)
        exits = len(engine.thresholds) + 1
        to_the_end.thresholds = forced(exits - 1, exits)
        samples = _one_by_one(next(iter(images()))[:20])
        to_the_end.run(samples[0])
        for sample in samples:
            engine.run(sample)
            baseline(sample)
        begin = time.perf_counter()
        for turn in range(PASSES):
            if turn and (time.perf_counter() - begin) * (turn + 1) / turn > SECONDS:
                break
            times.append(array("q"))
            baseline_times.append(array("q"))
            for x in images():
                samples = _one_by_one(x)
                for first in range(0, len(samples), BLOCK):
                    block = samples[first : first + BLOCK]
                    found = []
                    for sample in block:
                        start = clock()
                        outcome = engine.run(sample)
                        times[turn].append(clock() - start)
                        if turn == 0:
                            found.append(outcome)
                    for sample in block:
                        start = clock()
                        baseline(sample)
                        baseline_times[turn].append(clock() - start)
                    if found:
                        outcomes.append(_joined(found))
    per_sample = np.median(np.array(times), axis=0) / 1000
    blocks = [per_sample[b : b + BLOCK].mean() for b in range(0, len(per_sample), BLOCK)]
    low, high = np.percentile(blocks, [25, 75])
    return RealRun(
        outcome=_joined(outcomes),
        latency_us=float(per_sample.mean()),
        latency_iqr_us=float(high - low),
        baseline_latency_us=float(np.median(np.array(baseline_times), axis=0).mean() / 1000),
    )


def _one_by_one(x: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(x[s : s + 1]) for s in range(len(x))]


def _joined(outcomes: Iterable[Outcome]) -> Outcome:
    joined = Outcome(*(np.concatenate(parts) for parts in zip(*outcomes, strict=True)))
    # Of many maps, eight times less: a class is below 256.
    maps = joined.prediction.ndim > 1
    return joined._replace(prediction=joined.prediction.astype(np.uint8)) if maps else joined


def run_in_batches(engine: Engine, x: np.ndarray, batch: int) -> Outcome:
    """Run S samples (S, C, H, W), `batch` at a time; the last batch may be smaller.

    x may lie in a file (`np.load(…, mmap_mode="r")`): a batch is in memory as long as it runs.
    """
    return _joined(
        engine.run(np.require(x[start : start + batch], np.float32, ["C", "W"]))
        for start in range(0, len(x), batch)
    )
