"""How good a criterion is, exit by exit: does it rank, does it say how often it is right, what does it cost.

Shapes: N exits, S samples.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from branchynet.evaluation.headroom import auroc
from branchynet.evaluation.report import Report
from branchynet.runtime.costs import Macs

BINS = 15
CONFIDENCE, UNCERTAINTY = "the largest softmax probability", "1 - uncertainty"


@dataclass(frozen=True)
class Quality:
    """Of one side exit's criterion, on one set of samples; None where the samples do not tell.

    Args:
        auroc: how often it is surer of a right answer than of a wrong one, see `auroc`.
        calibration_error: how far what is taken for the probability of being right is from the share that is right,
            see `calibration_error` and `calibrated`.
        area: under its curve of accuracy over cost, see `area`.
        macs: what it takes itself, and averaging, where exits average: in the cost of every exit from here on.
        latency_us: at exit 1 what leaving there takes beyond exit 1 alone, on the report's engine: the criterion,
            the decision and the engine's loop. None at others: there the heads before are in it.
    """

    auroc: float | None
    calibration_error: float | None
    area: float | None
    macs: int
    latency_us: float | None


def qualities(report: Report) -> tuple[Quality, ...]:
    """N-1, on the reported split."""
    trace, macs, timed = report.trace, criterion_macs(report.macs), report.latencies[report.engine]
    beyond_alone = timed.exits[0].median_us - timed.static[0].median_us
    correct, good = trace.correct, trace.good
    probability = trace.confidence
    if report.of_probability:  # of no maps: see MeanOverPixels
        probability = 1 - trace.uncertainty
    return tuple(
        Quality(
            auroc=auroc(trace.uncertainty[:, n], good[:, n]),
            calibration_error=(
                None if probability is None else calibration_error(probability[:, n], correct[:, n])
            ),
            area=area(trace.uncertainty[:, n], correct[:, n], correct[:, -1]),
            macs=macs[n],
            latency_us=None if n else beyond_alone,
        )
        for n in range(report.num_exits - 1)
    )


def calibrated(report: Report) -> str:
    """What the calibration error is of; empty where there is none."""
    if report.of_probability:
        return UNCERTAINTY
    return "" if report.trace.confidence is None else CONFIDENCE


def calibration_error(probability: Tensor, right: Tensor) -> float:
    """The expected calibration error (Naeini et al., 2015), in BINS bins of equal width, as torchmetrics has it.

    The mean over the samples of how far in their bin the mean probability is from the share that is right; those of
    exactly 1 are a bin of their own.

    Args:
        probability: (S,) float32.
        right: (S,) bool.
    """
    bounds = torch.linspace(0, 1, BINS + 1)
    index = (torch.bucketize(probability.clamp(0, 1), bounds, right=True) - 1).clamp(min=0)
    surplus = probability.double() - right.double()
    return float(index.bincount(weights=surplus, minlength=BINS + 1).abs().sum() / len(right))


def area(uncertainty: Tensor, right: Tensor, last: Tensor) -> float | None:
    """The area under accuracy over cost, from 0 (leaving at random) to 1 (no criterion can be better).

    With this side exit and the last one alone: as the threshold rises, more samples leave at the exit, the surest
    first, and the mean cost falls by the same amount for each, whatever an exit costs. Leaving at random gives a
    straight line from 'all go to the end' to 'all leave', and the best order first lets leave whom the exit answers
    rightly and the last one wrongly, and last whom it answers wrongly and the last one rightly. The area between
    curve and line, over that between the best curve and the line; below 0 it is worse than random. None where both
    exits are right about the same samples. Equally sure samples leave in all orders alike.

    Args:
        uncertainty: (S,), lower is surer.
        right: (S,) bool: whether the exit is; or how right it is, 0 … 1.
        last: (S,): the same of the last exit.

    >>> sure, right = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([True, True, False])
    >>> area(sure, right, torch.tensor([False, True, True])), area(-sure, right, torch.tensor([False, True, True]))
    (1.0, -1.0)
    """
    won = right.long() - last.long() if right.dtype == torch.bool else right - last
    if not won.any():
        return None
    best = _moment(-won, won)
    return None if best == 0 else _moment(uncertainty, won) / best


def _moment(key: Tensor, won: Tensor) -> int | float:
    """Twice the area above the straight line, in samples squared, if samples leave by rising key (S,)."""
    _, index, counts = key.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    # Twice the mean rank of each sample, from 1: whole numbers.
    ranks = (2 * last - counts + 1)[index]
    return (won * (len(won) + 1 - ranks)).sum().item()


def criterion_macs(macs: Macs) -> tuple[int, ...]:
    """N-1: MACs of the criterion of each side exit, and of averaging, where exits average.

    Where they are not recorded: what leaving at an exit counts, less the trunk up to there and the heads so far.
    """
    if macs.decisions is not None:
        return macs.decisions[:-1]
    found: list[int] = []
    heads = 0
    for with_all, alone, trunk in zip(macs.exits[:-1], macs.static, macs.trunk_only, strict=False):
        heads += alone - trunk
        found.append(with_all - trunk - heads - sum(found))
    return tuple(found)
