"""The numbers of many runs, and their means and deviations over the runs of a group. Nothing here needs PyTorch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from branchynet.runs.rows import Row

NOTHING = "as in the experiment"  # the settings of a group where nothing was overridden


@dataclass(frozen=True)
class Value:
    """A number of a run, or the mean of a group's.

    Args:
        value: the number.
        low, high: its 95 % interval over the samples, of a group the means of the runs' ends: they saw the same
            samples, so more runs do not make it narrower. None where there is none.
        deviation: of a group, the standard deviation from run to run, n-1; None for one run.
    """

    value: float
    low: float | None = None
    high: float | None = None
    deviation: float | None = None


@dataclass(frozen=True)
class Group:
    """Runs with the same settings but for the seed.

    Args:
        rows: at least one.
        values: by the name of the number, see `values_of`; only those that every row has.
    """

    rows: tuple[Row, ...]
    values: dict[str, Value]

    @property
    def first(self) -> Row:
        """What all of them have in common, their settings, can be taken from it."""
        return self.rows[0]

    @property
    def seeds(self) -> str:
        """`0, 1, 2`."""
        return ", ".join(str(row.seed) for row in self.rows)

    @property
    def settings(self) -> str:
        """The group's label, and what of the choice flatters."""
        result = self.first.result
        notes = ["protocol: paper"] * (result["protocol"] == "paper")
        notes += ["on validation"] * (result.get("split") == "val")
        own = self.first.label or NOTHING
        return f"{own} ({', '.join(notes)})" if notes else own

    @property
    def name(self) -> str:
        """The same behind the experiment's name."""
        own = self.settings
        return self.first.experiment if own == NOTHING else f"{self.first.experiment} {own}"


def groups_of(rows: Sequence[Row]) -> list[Group]:
    """The groups in the order of their first rows."""
    there: dict[str, list[Row]] = {}
    for row in rows:
        there.setdefault(row.group, []).append(row)
    return [Group(tuple(alike), _means([values_of(row) for row in alike])) for alike in there.values()]


def values_of(row: Row) -> dict[str, Value]:
    """A run's numbers by name: accuracies and rates are fractions, of the reported split; latencies µs.

    Those that the run does not have, being older or because there are none, are left out.
    """
    return {name: value for name, value in _values(row.result) if value is not None}


def _values(result: Any) -> Iterator[tuple[str, Value | None]]:
    baseline, knee, exits = result["baseline"], result["knee"], result["exits"]
    ends = knee.get("intervals") or {}
    yield "accuracy", _within(knee["accuracy"], ends.get("accuracy"))
    less = knee["accuracy"] - baseline["accuracy"]
    yield "accuracy_minus_baseline", _within(less, ends.get("accuracy_minus_baseline"))
    yield "baseline_accuracy", _within(baseline["accuracy"], baseline.get("interval"))
    yield "last_exit_accuracy", _within(exits[-1]["accuracy"], exits[-1].get("interval"))
    yield "last_exit_minus_baseline", Value(exits[-1]["accuracy"] - baseline["accuracy"])
    yield "balanced_accuracy", _maybe(knee.get("balanced_accuracy"))
    for name in ("gain_latency", "gain_macs", "gain_trunk_only", "gain_over_static"):
        yield name, _within(knee[name], ends.get(name))
    measured = knee.get("measured") or {}
    yield "gain_measured", _maybe(measured.get("gain_latency"))
    for name in ("latency_us", "macs"):
        yield name, Value(knee[name])
        yield f"baseline_{name}", Value(baseline[name])
    for n, rate in enumerate(knee["exit_rates"]):
        yield f"exit_rate_{n + 1}", _within(rate, (ends.get("exit_rates") or {n: None})[n])
    for n, each in enumerate(exits):
        yield f"exit_accuracy_{n + 1}", _within(each["accuracy"], each.get("interval"))
    for n, threshold in enumerate(knee["thresholds"]):
        yield f"threshold_{n + 1}", Value(threshold)
    for n, area in enumerate((result.get("headroom") or {}).get("auroc") or ()):
        yield f"auroc_{n + 1}", _maybe(area)
    for name, share in (result.get("overhead_to_the_end") or {}).items():
        yield f"overhead_to_the_end_{name}", _maybe(share)
    on_validation = result.get("validation") or {}
    for name in ("accuracy", "baseline_accuracy", "gain_latency", "gain_macs", "gain_at_no_loss"):
        yield f"validation_{name}", _maybe(on_validation.get(name))


def _maybe(value: float | None) -> Value | None:
    return None if value is None else Value(value)


def _within(value: float | None, ends: Sequence[float] | None) -> Value | None:
    if value is None:
        return None
    return Value(value) if ends is None else Value(value, ends[0], ends[1])


def _means(runs: Sequence[dict[str, Value]]) -> dict[str, Value]:
    means = {}
    for name in runs[0]:
        values = [run[name] for run in runs if name in run]
        if len(values) < len(runs):
            continue  # the mean of some of them would be another group's
        lows = [each.low for each in values if each.low is not None]
        highs = [each.high for each in values if each.high is not None]
        means[name] = Value(
            fmean(each.value for each in values),
            fmean(lows) if len(lows) == len(runs) else None,
            fmean(highs) if len(highs) == len(runs) else None,
            stdev(each.value for each in values) if len(runs) > 1 else None,
        )
    return means
