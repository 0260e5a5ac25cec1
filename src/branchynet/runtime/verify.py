"""The proof: run the operating point for real, and compare with what the sweep says.

Shapes: C channels, H, W, N exits, S samples.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from branchynet.runtime.early_exit import torch_threads
from branchynet.runtime.engine import Classifier, Engine, Outcome

# Samples that the engine runs in a row before the baseline runs the same ones.
BLOCK = 100
# At most so many passes over the samples, within so many seconds; the first one is always finished.
PASSES, SECONDS = 3, 30.0
# An uncertainty this close to a threshold may lie on either side of it: batches of other sizes round otherwise.
ROUNDING = 1e-5


@dataclass(frozen=True)
class RealRun:
    """S samples, one by one, through the engine and the baseline."""

    outcome: Outcome
    baseline_prediction: np.ndarray  # (S,) int64
    latency_us: float  # mean over the samples
    latency_iqr_us: float  # interquartile range over blocks of 100 samples
    baseline_latency_us: float


@dataclass(frozen=True)
class Differences:
    """How a real run differs from the sweep, in numbers of samples."""

    differences: int  # left elsewhere, or answered otherwise
    near_threshold: int  # within rounding of a threshold that they met, whether they differ or not
    unexplained: int  # differences that are not near a threshold


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
    answers: list[int] = []
    clock = time.perf_counter_ns
    with torch_threads(threads):
        for sample in samples[:20]:  # warm-up
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
                    answer = baseline(samples[s])
                    baseline_times[s].append(clock() - start)
                    if turn == 0:
                        answers.append(answer)
    per_sample = np.array([statistics.median(t) for t in times]) / 1000
    blocks = [per_sample[b : b + BLOCK].mean() for b in range(0, len(samples), BLOCK)]
    low, high = np.percentile(blocks, [25, 75])
    return RealRun(
        outcome=Outcome(*(np.concatenate(parts) for parts in zip(*outcomes, strict=True))),
        baseline_prediction=np.array(answers),
        latency_us=float(per_sample.mean()),
        latency_iqr_us=float(high - low),
        baseline_latency_us=float(np.mean([statistics.median(t) for t in baseline_times]) / 1000),
    )


def run_in_batches(engine: Engine, x: np.ndarray, batch: int) -> Outcome:
    """Run S samples (S, C, H, W), so many at a time; the last batch may be smaller.

    x may lie in a file (`np.load(…, mmap_mode="r")`): a batch is in memory as long as it runs.
    """
    outcomes = [
        engine.run(np.require(x[start : start + batch], np.float32, ["C", "W"]))
        for start in range(0, len(x), batch)
    ]
    return Outcome(*(np.concatenate(parts) for parts in zip(*outcomes, strict=True)))


def compare(
    outcome: Outcome,
    uncertainty: np.ndarray,
    prediction: np.ndarray,
    thresholds: Sequence[float],
    tolerance: float = ROUNDING,
) -> Differences:
    """Compare a real run with the trace of the same samples.

    Args:
        outcome: (S,) each.
        uncertainty: (S, N) of the trace.
        prediction: (S, N) of the trace.
        thresholds: N-1, those of the run.
    """
    limits = np.array(thresholds, np.float32)
    sure = uncertainty[:, :-1] < limits
    taken = np.where(sure.any(axis=1), sure.argmax(axis=1), sure.shape[1])
    expected = np.take_along_axis(prediction, taken[:, None], axis=1)[:, 0]
    # Only the thresholds that a sample met: those up to the exit where it left, in the sweep or in the run.
    met = np.arange(sure.shape[1]) <= np.maximum(taken, outcome.exit)[:, None]
    near = ((np.abs(uncertainty[:, :-1] - limits) <= tolerance) & met).any(axis=1)
    differs = (outcome.exit != taken) | (outcome.prediction != expected)
    return Differences(int(differs.sum()), int(near.sum()), int((differs & ~near).sum()))
