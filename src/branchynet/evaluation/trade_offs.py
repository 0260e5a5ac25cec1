"""What the exits save at given losses of accuracy, and what they keep at given gains.

Each is a point of its own, chosen by a rule on the split of the choice and reported on the reported one.
Shapes: N exits.
"""

from dataclasses import dataclass

from branchynet.evaluation.report import Report, Savings, medians, savings
from branchynet.exits.point import OperatingPoint
from branchynet.exits.rules import AccuracyFloor, GainFloor, Rule, select
from branchynet.exits.sweep import point_at

# Losses against the baseline, as fractions: none, half a point and one point of accuracy.
LOSSES = (0.0, 0.005, 0.01)
# Baseline latency / mean latency. 1.5 and 2.4 are B-AlexNet's on CPU and GPU in the paper's Table I.
GAINS = (1.5, 2.0, 2.4, 3.0)


@dataclass(frozen=True)
class TradeOff:
    """One wanted loss or gain, and the point chosen for it.

    `wanted` is `loss` (a fraction, at most `value`; the fastest such point) or `gain` (in latency, at least
    `value`; the most accurate such point). `feasible` is False where no point met that on the split of the
    choice, and the nearest was taken: the most accurate, or the fastest.
    """

    wanted: str
    value: float
    feasible: bool
    val: OperatingPoint  # on validation
    val_gain_latency: float
    point: OperatingPoint  # on the reported split, as all that follows
    loss: float  # the baseline's accuracy less the point's; below 0 where the point is better
    savings: Savings


def trade_offs(report: Report) -> list[TradeOff]:
    """The points for all LOSSES, then for all GAINS, on the report's engine."""
    losses = [_trade_off(report, "loss", loss, AccuracyFloor(loss)) for loss in LOSSES]
    gains = [_trade_off(report, "gain", gain, GainFloor(gain)) for gain in GAINS]
    return losses + gains


def on_validation(report: Report) -> dict[str, float]:
    """What settings may be chosen by, for it leaves the test split unseen: the operating point on validation.

    Gains are the baseline's cost over the point's. `gain_at_no_loss` is the latency gain of the fastest point that
    is no less accurate than the baseline, 0 where none is.
    """
    point = point_at(report.traces["val"], report.selection.point.thresholds)
    right = report.baseline_correct["val"]
    timed = report.latencies[report.engine]
    free = _trade_off(report, "loss", 0.0, AccuracyFloor())
    return {
        "baseline_accuracy": right.sum().item() / len(right),
        "accuracy": point.accuracy,
        "gain_macs": report.macs.baseline / point.mean_cost(report.macs.exits),
        "gain_latency": timed.baseline.median_us / point.mean_cost(medians(timed.exits)),
        "gain_at_no_loss": free.val_gain_latency if free.feasible else 0.0,
    }


def scalars(report: Report) -> dict[str, float]:
    """For TensorBoard, by tag: the gain at each loss and the accuracy at each gain that is feasible."""
    values = {}
    for row in trade_offs(report):
        if row.feasible and row.wanted == "loss":
            values[f"trade_off/gain_at_loss_{100 * row.value:g}"] = row.savings.gain_latency
        elif row.feasible:
            values[f"trade_off/accuracy_at_gain_{row.value:g}"] = row.point.accuracy
    return values


def _trade_off(report: Report, wanted: str, value: float, rule: Rule) -> TradeOff:
    selection = select(rule, report.view)
    point = report.reported(selection.point)
    val = point_at(report.traces["val"], point.thresholds)
    timed = report.latencies[report.engine]
    # In counts of right answers, so that no loss is 0 and not some rounding.
    lost = report.baseline_correct[report.split].sum().item() - point.right
    return TradeOff(
        wanted=wanted,
        value=value,
        feasible=selection.feasible,
        val=val,
        val_gain_latency=timed.baseline.median_us / val.mean_cost(medians(timed.exits)),
        point=point,
        loss=lost / point.samples,
        savings=savings(report, point),
    )
