"""Many runs side by side: their trade-offs in one pair of axes, and bars for an ablation."""

import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from branchynet.reporting.averages import Group, Value
from branchynet.reporting.comparison import by_experiment
from branchynet.reporting.curves import curve_of
from branchynet.reporting.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, new_figure
from branchynet.runs.rows import Row

COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK)
DASHES = ("-", "--", ":", "-.")
MOST_NAMED = 12  # groups that have a colour of their own
MOST_BARS = 60  # groups of an experiment
WIDTH, MOST_LINES = 44, 3  # letters and lines of a name
WIDE = 20  # where costs differ by more than so much, their axis is logarithmic


def figures_of(groups: Sequence[Group]) -> Iterator[tuple[str, Figure]]:
    """All figures with their names, one after the other, so that only one is in memory.

    `trade_offs`; for every experiment that has more than one group `ablation-<experiment>`, and, where it is not
    alone, `trade_offs-<experiment>`.
    """
    yield "trade_offs", trade_offs(groups)
    experiments = by_experiment(groups)
    for (experiment, there), name in zip(experiments.items(), _file_names(experiments), strict=True):
        if len(there) > 1:
            if len(experiments) > 1:
                yield f"trade_offs-{name}", trade_offs(there)
            yield f"ablation-{name}", ablation(experiment, there)


def _file_names(experiments: Iterable[str]) -> list[str]:
    """An experiment's name may be anything."""
    names: list[str] = []
    for experiment in experiments:
        name = re.sub(r"[^\w.-]", "_", experiment)[:100]
        while name in names:
            name += "_"
        names.append(name)
    return names


def trade_offs(groups: Sequence[Group]) -> Figure:
    """Accuracy over mean cost of every run: its frontier, its operating point (star) and its baseline (diamond).

    Left in latency: in µs where all are of one engine and machine, else as a share of the run's own baseline. Right
    in MACs. Of many groups, those of an experiment have one colour; of many of one experiment, those have their own
    whose operating point no other group's beats.
    """
    rows = [row for group in groups for row in group.rows]
    alone = len({(row.result["machine"], row.result["engine"], row.result["threads"]) for row in rows}) == 1
    figure = new_figure(12, 6)
    panels = figure.subplots(1, 2, sharey=True)
    legend: dict[str, Any] = {}
    for group, name, style in _styles(groups):
        _draw(panels, group, alone, style)
        legend.setdefault(name, Line2D([], [], **style))
    first = rows[0].result
    threads = "1 thread" if first["threads"] == 1 else f"{first['threads']} threads"
    panels[0].set_xlabel(
        f"mean latency per sample, µs ({_plain(first['engine'])}, {threads}, batch 1)"
        if alone
        else "mean latency per sample, as a share of the run's own baseline's"
    )
    panels[1].set_xlabel("mean cost per sample, million MACs")
    panels[0].set_ylabel("accuracy on test, %")
    for panel, cost, least in zip(panels, ("latency_us", "macs"), (0.1, 1e-3), strict=True):
        costs = [max(row.result[of][cost], least) for row in rows for of in ("baseline", "knee")]
        if max(costs) > WIDE * min(costs):
            _logarithmic(panel)
        else:
            panel.set_xlim(left=0)
        panel.grid(alpha=0.3)
    figure.suptitle("frontiers of all runs; star: operating point, diamond: baseline")
    names = [_lines(name) for name in legend]
    figure.legend(legend.values(), names, loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _styles(groups: Sequence[Group]) -> Iterator[tuple[Group, str, dict[str, Any]]]:
    """Each group with its name in the legend and its lines, those that are named last, so that they are on top."""
    several = len(by_experiment(groups)) > 1
    if len(groups) <= MOST_NAMED:
        names = {id(group): (group.name if several else group.first.label or group.name) for group in groups}
    elif several:
        names = {id(group): group.first.experiment for group in groups}
    else:
        names = {id(group): group.first.label or group.name for group in best(groups)[:MOST_NAMED]}
    colours = {name: n for n, name in enumerate(dict.fromkeys(names.values()))}
    for group in (group for group in groups if id(group) not in names):
        others = f"{len(groups) - len(names)} other groups"
        yield group, others, {"color": GREY, "alpha": 0.4, "linewidth": 0.7}
    for group in (group for group in groups if id(group) in names):
        n = colours[names[id(group)]]
        dash = DASHES[n // len(COLOURS) % len(DASHES)]
        yield (
            group,
            names[id(group)],
            {"color": COLOURS[n % len(COLOURS)], "linestyle": dash, "linewidth": 1.3},
        )


def best(groups: Sequence[Group]) -> list[Group]:
    """Those whose mean operating point no other group's beats in both accuracy and MACs, by rising MACs."""
    ordered = sorted(groups, key=lambda group: (group.values["macs"].value, -group.values["accuracy"].value))
    found: list[Group] = []
    for group in ordered:
        if not found or group.values["accuracy"].value > found[-1].values["accuracy"].value:
            found.append(group)
    return found


def ablation(experiment: str, groups: Sequence[Group]) -> Figure:
    """Bars for every group of an experiment: what accuracy is gained or lost, what is saved, where samples leave.

    Whiskers: the standard deviation from run to run; of one run its 95 % interval over the samples.
    """
    shown = list(groups[:MOST_BARS])
    height = 1.8 + 0.36 * len(shown) * 1.3
    figure = new_figure(13, max(height, 3.5))
    accuracy, gain, rates = figure.subplots(1, 3, sharey=True, width_ratios=[1, 1, 0.8])
    places = list(range(len(shown)))
    pairs = {
        accuracy: (
            ("accuracy_minus_baseline", GREEN, "operating point"),
            ("last_exit_minus_baseline", BLACK, "last exit"),
        ),
        gain: (("gain_latency", BLUE, "in time"), ("gain_macs", ORANGE, "in MACs")),
    }
    for panel, (first, second) in pairs.items():
        factor = 100 if panel is accuracy else 1
        for (name, colour, label), shift in ((first, -0.19), (second, 0.19)):
            values = [group.values.get(name) for group in shown]
            _bars(panel, [place + shift for place in places], values, factor, colour, label)
        panel.grid(alpha=0.3, axis="x")
        # Above the bars: wherever it stood among many of them, it would hide some.
        panel.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    accuracy.axvline(0, color=BLACK, linewidth=0.8)
    accuracy.set_xlabel("accuracy on test less the baseline's, points")
    found = [group.values.get(name) for group in shown for name in ("gain_latency", "gain_macs")]
    gains = [each.value for each in found if each is not None]
    if gains and max(gains) > WIDE * min(gains) > 0:
        _logarithmic(gain)
        gain.set_xlim(left=min(*gains, 1) / 2)
    gain.axvline(1, color=RED, linestyle=":")
    gain.set_xlabel("gain over the baseline")
    _stacked(rates, shown)
    rates.set_xlabel("leaves at exit 1, 2 …, %")
    accuracy.set_yticks(places, [_lines(_count(group)) for group in shown])
    accuracy.set_ylim(len(shown) - 0.4, -0.6)
    more = "" if len(groups) == len(shown) else f", {len(shown)} of {len(groups)} groups"
    figure.suptitle(f"{_plain(experiment)}{more}")
    return figure


def _logarithmic(panel: Axes) -> None:
    """The x-axis, with numbers as people read them, not powers of ten."""
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter(NullFormatter())


def _draw(panels: Sequence[Axes], group: Group, alone: bool, style: dict[str, Any]) -> None:
    """The runs of a group as one line with gaps: a thousand lines would take seconds each time they are drawn."""
    mark: dict[str, Any] = {key: style[key] for key in ("color", "alpha") if key in style}
    mark |= {"linestyle": "none", "markeredgecolor": BLACK, "markeredgewidth": 0.4}
    curves = [(row, curve) for row in group.rows if (curve := curve_of(row)) is not None]
    for panel, cost in zip(panels, ("latency_us", "macs"), strict=True):
        x: list[float] = []
        y: list[float] = []
        for row, curve in curves:
            unit = _unit(row, cost, alone)
            x += [*(each / unit for each in getattr(curve, cost)), math.nan]
            y += [*(100 * each for each in curve.accuracy), math.nan]
        panel.plot(x, y, **style)
        for of, marker, size in (("knee", "*", 12), ("baseline", "D", 4.5)):
            costs = [row.result[of][cost] / _unit(row, cost, alone) for row in group.rows]
            panel.plot(
                costs, [100 * row.result[of]["accuracy"] for row in group.rows], marker, ms=size, **mark
            )


def _unit(row: Row, cost: str, alone: bool) -> float:
    if cost == "macs":
        return 1e6
    return 1.0 if alone else row.result["baseline"]["latency_us"]


def _bars(
    panel: Axes,
    places: Sequence[float],
    values: Sequence[Value | None],
    factor: float,
    colour: str,
    label: str,
) -> None:
    there = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
    if not there:
        return
    middle = [factor * value.value for _, value in there]
    ends = [_ends(value) for _, value in there]
    # max gives its first argument where that is not a number.
    below = [factor * max(value.value - low, 0) for (_, value), (low, _) in zip(there, ends, strict=True)]
    above = [factor * max(high - value.value, 0) for (_, value), (_, high) in zip(there, ends, strict=True)]
    panel.barh(
        [place for place, _ in there],
        middle,
        height=0.36,
        color=colour,
        alpha=0.75,
        label=label,
        xerr=[below, above],
        error_kw={"linewidth": 1, "capsize": 2, "ecolor": GREY if colour == BLACK else BLACK},
    )


def _ends(value: Value) -> tuple[float, float]:
    if value.deviation is not None:
        return value.value - value.deviation, value.value + value.deviation
    if value.low is not None and value.high is not None:
        return value.low, value.high
    return math.nan, math.nan  # no whisker


def _stacked(panel: Axes, groups: Sequence[Group]) -> None:
    """Exit rates; the last exit's is black in every group, however many there are before."""
    for place, group in enumerate(groups):
        rates = [value.value for name, value in group.values.items() if name.startswith("exit_rate_")]
        begin = 0.0
        for n, rate in enumerate(rates):
            colour = BLACK if n == len(rates) - 1 else COLOURS[n % (len(COLOURS) - 1)]
            panel.barh(place, 100 * rate, left=begin, height=0.7, color=colour, alpha=0.75)
            begin += 100 * rate
    panel.set_xlim(0, 100)


def _count(group: Group) -> str:
    return f"{group.settings} ({len(group.rows)} runs)" if len(group.rows) > 1 else group.settings


def _lines(text: str) -> str:
    """Broken at spaces and commas, into a few lines, and without what matplotlib takes for mathematics."""
    parts = re.sub(r",(?=\S)", ", ", text)
    lines = textwrap.wrap(parts, WIDTH, max_lines=MOST_LINES, placeholder=" …")
    return _plain("\n".join(lines).replace(", ", ","))


def _plain(text: str) -> str:
    return text.replace("$", r"\$")
