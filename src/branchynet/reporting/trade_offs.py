"""What the exits save at given losses of accuracy, and what they keep at given gains.

Each is a point of its own, chosen by a rule on the split of the choice and reported on test.
Shapes: N exits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from branchynet.exits.select import Reference, select
from branchynet.reporting import report as derive
from branchynet.reporting.report import Report, medians

# Losses against the baseline, as fractions: none, half a point and one point of accuracy.
LOSSES = (0.0, 0.005, 0.01)
# Baseline latency / mean latency. 1.5 and 2.4 are B-AlexNet's on CPU and GPU in the paper's Table I.
GAINS = (1.5, 2.0, 2.4, 3.0)


@dataclass(frozen=True)
class TradeOff:
    """One wanted loss or gain, and the point chosen for it.

    `wanted` is `loss` (a fraction, at most `value`; the fastest such point) or `gain` (in latency, at least
    `value`; the most accurate such point). `feasible` is False where no point met that on the split of the
    choice, and the nearest was taken: the most accurate, or the fastest. What begins with `val_` is of the
    validation split, all else of test. `best_static` (1-based) and `gain_over_static` are None where no
    single exit is as accurate as the point.
    """

    wanted: str
    value: float
    feasible: bool
    index: int  # among the report's points
    thresholds: tuple[float, ...]  # N-1
    val_accuracy: float
    val_gain_latency: float
    accuracy: float
    loss: float  # the baseline's accuracy less the point's; below 0 where the point is better
    exit_rates: tuple[float, ...]  # N
    gain_macs: float
    gain_latency: float
    best_static: int | None
    gain_over_static: float | None


def trade_offs(report: Report) -> list[TradeOff]:
    """The points for all LOSSES, then for all GAINS, on the report's engine."""
    baseline_us = report.latencies[report.engine].baseline.median_us
    losses = [
        _trade_off(report, "loss", loss, {"name": "accuracy_floor", "distance": loss}) for loss in LOSSES
    ]
    gains = [
        _trade_off(report, "gain", gain, {"name": "latency_budget", "budget_us": baseline_us / gain})
        for gain in GAINS
    ]
    return losses + gains


def scalars(report: Report) -> dict[str, float]:
    """For TensorBoard, by tag: the gain at each loss and the accuracy at each gain that is feasible."""
    values = {}
    for row in trade_offs(report):
        if row.feasible and row.wanted == "loss":
            values[f"trade_off/gain_at_loss_{100 * row.value:g}"] = row.gain_latency
        elif row.feasible:
            values[f"trade_off/accuracy_at_gain_{row.value:g}"] = row.accuracy
    return values


def _trade_off(report: Report, wanted: str, value: float, rule: Mapping[str, Any]) -> TradeOff:
    latencies = report.latencies[report.engine]
    exit_us = torch.tensor(medians(latencies.exits), dtype=torch.float64)
    on_test = report.chosen_on == "test"
    accuracy = report.baseline_accuracy if on_test else report.baseline_val_accuracy
    trace = report.trace_test if on_test else report.trace_val
    selection = select(
        rule,
        report.points_test if on_test else report.points_val,
        latency_us=exit_us,
        macs=torch.tensor(report.macs.exits, dtype=torch.float64),
        baseline=Reference(accuracy, latencies.baseline.median_us, report.macs.baseline),
        exit_accuracy=trace.correct.double().mean(dim=0),
    )
    index, samples = selection.index, report.trace_test.num_samples
    # In counts of right answers, so that no loss is 0 and not some rounding.
    lost = round(report.baseline_accuracy * samples) - round(derive.accuracy(report, index) * samples)
    val = report.points_val.subset(torch.tensor([index]))
    best = derive.best_static(report, index=index)
    return TradeOff(
        wanted=wanted,
        value=value,
        feasible=selection.feasible,
        index=index,
        thresholds=derive.thresholds(report, index),
        val_accuracy=float(val.accuracy[0]),
        val_gain_latency=latencies.baseline.median_us / float(val.mean_cost(exit_us)[0]),
        accuracy=derive.accuracy(report, index),
        loss=lost / samples,
        exit_rates=derive.exit_rates(report, index),
        gain_macs=derive.gain_macs(report, index),
        gain_latency=derive.gain_latency(report, index=index),
        best_static=None if best is None else best + 1,
        gain_over_static=derive.gain_over_static(report, index=index),
    )
