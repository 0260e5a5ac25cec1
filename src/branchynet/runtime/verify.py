"""Running an engine over many samples: one by one with a clock, and in batches.

Shapes: C channels, H, W, N exits, S samples.
"""

import copy
import statistics
import time
from dataclasses import dataclass

import numpy as np

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


def run_for_real(engine: Engine, baseline: Classifier, x: np.ndarray, threads: int = 1) -> RealRun:
    """Run every sample of x (S, C, H, W) float32 by itself, at batch 1, on both.

    Engine and baseline take turns in blocks of 100 samples. There are up to three passes; a sample's time is
    the median of its own, so that a disturbance counts for no sample; the mean over the samples, which leave
    at different exits, is the operating point's latency.
    """
    samples = [np.ascontiguousarray(x[s : s + 1]) for s in range(len(x))]
    times: list[list[int]] = [[] for _ in samples]
    baseline_times: list[list[int]] = [[] for _ in samples]
    outcomes: list[Outcome] = []
    clock = time.perf_counter_ns
    with torch_threads(threads):
        # Warm-up; once to the last exit: none of these may get there, and some engines compile on the way.
        to_the_end = copy.copy(engine)
        exits = len(engine.thresholds) + 1
        to_the_end.thresholds = forced(exits - 1, exits)
        to_the_end.run(samples[0])
        for sample in samples[:20]:
            engine.run(sample)
            baseline(sample)
        begin = time.perf_counter()
        for turn in range(PASSES):
            if turn and (time.perf_counter() - begin) * (turn + 1) / turn > SECONDS:
                break
            for block in range(0, len(samples), BLOCK):
                indices = range(block, min(block + BLOCK, len(samples)))
                for s in indices:
                    start = clock()
                    outcome = engine.run(samples[s])
                    times[s].append(clock() - start)
                    if turn == 0:
                        outcomes.append(outcome)
                for s in indices:
                    start = clock()
                    baseline(samples[s])
                    baseline_times[s].append(clock() - start)
    per_sample = np.array([statistics.median(t) for t in times]) / 1000
    blocks = [per_sample[b : b + BLOCK].mean() for b in range(0, len(samples), BLOCK)]
    low, high = np.percentile(blocks, [25, 75])
    return RealRun(
        outcome=Outcome(*(np.concatenate(parts) for parts in zip(*outcomes, strict=True))),
        latency_us=float(per_sample.mean()),
        latency_iqr_us=float(high - low),
        baseline_latency_us=float(np.mean([statistics.median(t) for t in baseline_times]) / 1000),
    )


def run_in_batches(engine: Engine, x: np.ndarray, batch: int) -> Outcome:
    """Run S samples (S, C, H, W), `batch` at a time; the last batch may be smaller.

    x may lie in a file (`np.load(…, mmap_mode="r")`): a batch is in memory as long as it runs.
    """
    outcomes = [
        engine.run(np.require(x[start : start + batch], np.float32, ["C", "W"]))
        for start in range(0, len(x), batch)
    ]
    return Outcome(*(np.concatenate(parts) for parts in zip(*outcomes, strict=True)))
