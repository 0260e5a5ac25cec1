"""The figures of a sweep. Shapes: N exits, P thresholds tried, S samples, V threshold vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import SymmetricalLogLocator
from torch import Tensor

from branchynet.evaluation.headroom import headroom
from branchynet.evaluation.report import Report, medians, static_accuracies
from branchynet.evaluation.rivals import Rival
from branchynet.exits.sweep import exit_taken
from branchynet.reporting.confusion import confusion_figure
from branchynet.reporting.rising import rising_uncertainties
from branchynet.reporting.samples import sample_images
from branchynet.reporting.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    WHITE,
    exit_colour,
    new_figure,
    title,
    to_array,
    uncertainty_unit,
)

# Below it, the axis of thresholds is linear: a threshold may be 0.
LINEAR_BELOW = 1e-3
# A rival that costs more than so many times what the run's own points do is left to the tables.
REACH = 1.05
RIVALS = "vXph<>8d"  # their markers; the colour changes after the last


def draw_all(report: Report, images: Tensor | None) -> dict[str, Figure]:
    """All figures by name. `images`: of the reported split, (S, C, H, W) uint8, in the trace's order, or None."""
    figures = {
        "trade_off": trade_off(report),
        "thresholds": over_thresholds(report),
        "uncertainty": uncertainty_histograms(report),
        "rising": rising_uncertainties(report),
    }
    if not report.task.partly:  # a map has many classes
        figures["confusion"] = confusion_figure(report)
    if images is not None:
        figures["samples"] = sample_images(report, images)
    return figures


def pictures(report: Report, images: Tensor | None) -> dict[str, np.ndarray]:
    """The same as pixels, (3, H, W) uint8, drawn once for files and TensorBoard: it takes seconds."""
    return {name: to_array(figure) for name, figure in draw_all(report, images).items()}


def trade_off(report: Report) -> Figure:
    """Accuracy over mean cost, left in latency and right in MACs (the paper's Figure 3), on test.

    All points, the frontier (of the split the choice was made on), every exit alone, baseline, operating point,
    and what perfect confidence and perfect knowledge would give; over MACs also small networks of others. Where a
    weak early exit, or those, would squeeze what matters into a strip, a second row of panels shows the strip.
    """
    strip = _strip(report)
    rows = 1 if strip is None else 2
    figure = new_figure(12 if _rivals_in_reach(report) else 10, 5 * rows - rows + 1)
    panels = figure.subplots(rows, 2, sharex="col", sharey="row", squeeze=False)
    latencies = report.latencies[report.engine]
    timed = medians(latencies.exits), medians(latencies.static), latencies.baseline.median_us
    counted = report.macs.exits, report.macs.static, report.macs.baseline
    rivals: list[Line2D] = []
    for left, right in panels:
        _trade_off_panel(left, report, *timed, unit=1)
        _trade_off_panel(right, report, *counted, unit=1e6)
        rivals = _draw_rivals(right, report, unit=1e6)
        left.set_ylabel(f"{report.task.score} on {report.reported_on}, %")
    if strip is not None:
        left.set_ylim(strip)
        left.set_ylabel(f"{report.task.score} on {report.reported_on}, % (from {strip[0]:.1f})")
    threads = "1 thread" if report.threads == 1 else f"{report.threads} threads"
    left.set_xlabel(f"mean latency per sample, µs ({report.engine}, {threads}, batch 1)")
    right.set_xlabel("mean cost per sample, million MACs")
    what = f"{report.task.score} on {report.reported_on}"
    if report.protocol == "validation":
        what += ", frontier and operating point chosen on validation"
    if report.noise:
        what += "\nNOISY TIMINGS, see the report"
    figure.suptitle(title(report, what))
    legend = figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([25])  # the small dots would not be seen
    if rivals:
        figure.legend(handles=rivals, title="networks of others,\nas published", loc="outside right upper")
    return figure


def over_thresholds(report: Report) -> Figure:
    """Accuracy and exit rates over the threshold of each side exit, the others held (Figure 4)."""
    side_exits = report.num_exits - 1
    figure = new_figure(max(7.0, 4.5 * side_exits), 5.5)
    panels = figure.subplots(2, side_exits, sharex="col", sharey="row", squeeze=False)
    for n, chosen in enumerate(report.point.thresholds):
        values, overall, leaving, rates = threshold_curves(report, n)
        top, bottom = panels[:, n]
        top.plot(values, 100 * overall, color=BLACK, label="all samples")
        label = f"samples leaving at exit {n + 1}"
        top.plot(values, 100 * leaving, color=exit_colour(n, report), linestyle="--", label=label)
        for exit_index in range(report.num_exits):
            colour = exit_colour(exit_index, report)
            bottom.plot(values, 100 * rates[:, exit_index], color=colour, label=f"exit {exit_index + 1}")
        for panel in (top, bottom):
            panel.axvline(chosen, color=GREEN, linestyle=":", linewidth=2, label=f"chosen: {chosen:.3g}")
            panel.set_xscale("symlog", linthresh=LINEAR_BELOW, linscale=0.5)
            minor = SymmetricalLogLocator(base=10, linthresh=LINEAR_BELOW, subs=range(2, 10))
            panel.xaxis.set_minor_locator(minor)
            panel.set_xlim(0, values[-1])
            panel.grid(alpha=0.3)
            panel.legend(fontsize="small")
        bottom.set_xlabel(f"threshold $T_{{{n + 1}}}$, {uncertainty_unit(report)}")
    panels[0, 0].set_ylabel(f"{report.task.score} on {report.reported_on}, %")
    panels[1, 0].set_ylabel(f"exit rate on {report.reported_on}, %")
    held = ", the others as chosen" if side_exits > 1 else ""
    figure.suptitle(title(report, f"one threshold varied{held}"))
    return figure


def threshold_curves(
    report: Report, n: int, more: Sequence[float] = ()
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What the curves over the threshold of exit n+1 show, the others held at the chosen ones, on test.

    Args:
        report: of the run.
        n: the side exit, from 0.
        more: thresholds that are tried besides.

    Returns:
        The thresholds tried (P,), the accuracy of all samples (P,), that of the samples leaving at exit n+1
        (P,; nan where none does), and the exit rates (P, N).
    """
    trace = report.trace
    vector = torch.tensor(report.point.thresholds, dtype=torch.float32)
    top = max(1.05 * float(trace.uncertainty[:, n].max()), float(vector[n]), 10 * LINEAR_BELOW)
    linear = np.linspace(0, LINEAR_BELOW, 10, endpoint=False)
    values = np.unique(np.concatenate([linear, np.geomspace(LINEAR_BELOW, top, 150), list(more)]))
    correct = trace.correct
    overall, leaving, rates = [], [], []
    for value in values:
        vector[n] = float(value)
        taken = exit_taken(trace.uncertainty, vector)
        right = correct.gather(1, taken[:, None])[:, 0]
        counts = torch.bincount(taken, minlength=report.num_exits)
        right_here = right[taken == n].sum().item()
        overall.append(right.sum().item() / trace.num_samples)
        leaving.append(right_here / int(counts[n]) if counts[n] else float("nan"))
        rates.append((counts.double() / trace.num_samples).tolist())
    return values, np.array(overall), np.array(leaving), np.array(rates)


def uncertainty_histograms(report: Report) -> Figure:
    """How unsure each exit is of the test samples that it gets right and of those that it gets wrong."""
    trace = report.trace
    exits = report.num_exits
    figure = new_figure(max(7.0, 3.5 * exits), 4)
    panels = figure.subplots(1, exits, sharex=True, sharey=True, squeeze=False)[0]
    bins = np.linspace(0, max(float(trace.uncertainty.max()), LINEAR_BELOW), 51)
    for n, panel in enumerate(panels):
        good, task = trace.good[:, n], report.task
        for answers, colour, name in ((good, BLUE, task.good), (~good, ORANGE, task.bad)):
            values = trace.uncertainty[answers, n].numpy()
            panel.hist(values, bins, color=colour, histtype="stepfilled", alpha=0.35)
            label = f"{name}: {len(values):,}"
            panel.hist(values, bins, color=colour, histtype="step", linewidth=1.5, label=label)
        if n < exits - 1:
            chosen = report.point.thresholds[n]
            # A threshold above every uncertainty would squeeze the histogram: it is named, not drawn.
            shown = chosen if chosen <= bins[-1] else float("nan")
            label = f"threshold: {chosen:.3g}"
            panel.axvline(shown, color=GREEN, linestyle=":", linewidth=2, label=label)
        panel.set_yscale("log")
        panel.set_xlim(0, bins[-1])
        panel.set_title(f"exit {n + 1}", fontsize="medium")
        panel.set_xlabel(f"uncertainty ({uncertainty_unit(report)})")
        panel.legend(fontsize="small", loc="upper right")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(f"{report.reported_on} samples, log scale")
    panels[0].set_ylim(bottom=0.7)  # of all panels, and after the last one, which ends the autoscaling
    figure.suptitle(title(report, f"every {report.reported_on} sample at every exit"))
    return figure


def _strip(report: Report) -> tuple[float, float] | None:
    """The accuracies, %, of the run itself from two points below baseline and star up; None if that is a third of
    all or more."""
    found = headroom(report.trace)
    drawn = [*report.points.accuracy.tolist(), *static_accuracies(report), report.baseline_accuracy]
    drawn += [found.confidence.accuracy, found.knowledge.accuracy]
    low, high = 100 * min(drawn), 100 * max(drawn)
    highest = 100 * max([*drawn, *(rival.accuracy for rival in _rivals_in_reach(report))])
    bottom = 100 * min(report.baseline_accuracy, report.point.accuracy) - 2
    return (bottom, high + 0.1 * (high - bottom)) if 3 * (high - bottom) < highest - low else None


def _trade_off_panel(
    panel: Axes,
    report: Report,
    exits: Sequence[float],
    static: Sequence[float],
    baseline: float,
    unit: float,
) -> None:
    """One panel of the trade-off; the costs are shown in multiples of `unit`."""
    points = report.points
    cost = points.mean_cost(torch.tensor(exits, dtype=torch.float64)) / unit
    accuracy = 100 * points.accuracy
    label = f"{len(points):,} threshold vectors"
    panel.scatter(cost, accuracy, s=5, color=GREY, alpha=0.6, linewidths=0, label=label, rasterized=True)
    frontier = report.frontier[torch.argsort(cost[report.frontier])]
    panel.plot(cost[frontier], accuracy[frontier], ".-", color=BLUE, markersize=4, label="Pareto frontier")

    mark: dict[str, Any] = {"markeredgecolor": BLACK, "linestyle": "none"}
    alone = [value / unit for value in static]
    alone_accuracy = [100 * value for value in static_accuracies(report)]
    panel.plot(alone, alone_accuracy, "^", color=ORANGE, markersize=8, label="one exit alone", **mark)
    for n, place in enumerate(zip(alone, alone_accuracy, strict=True), 1):
        panel.annotate(str(n), place, xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)
    panel.plot(
        baseline / unit,
        100 * report.baseline_accuracy,
        "D",
        color=RED,
        markersize=8,
        label="baseline",
        **mark,
    )
    found = headroom(report.trace)
    for name, perfect, marker in (("confidence", found.confidence, "s"), ("knowledge", found.knowledge, "P")):
        place = perfect.mean_cost(exits) / unit, 100 * perfect.accuracy
        panel.plot(*place, marker, color=WHITE, markersize=9, label=f"perfect {name}", **mark)
    chosen = report.point.mean_cost(exits) / unit, 100 * report.point.accuracy
    label = f"operating point ({report.rule})"
    panel.plot(*chosen, "*", color=GREEN, markersize=16, label=label, **mark)
    panel.axhline(100 * report.baseline_accuracy, color=RED, linestyle=":", linewidth=1)
    panel.set_xlim(left=0)
    panel.grid(alpha=0.3)


def _rivals_in_reach(report: Report) -> list[Rival]:
    """Those that cost no more than what is drawn of the run itself: others would squeeze it."""
    most = REACH * max(*report.macs.exits, *report.macs.static, report.macs.baseline)
    return [rival for rival in report.rivals if rival.macs <= most]


def _draw_rivals(panel: Axes, report: Report, unit: float) -> list[Line2D]:
    """Each with a marker of its own: names beside them would cover each other."""
    drawn = []
    for n, rival in enumerate(_rivals_in_reach(report)):
        again, kind = divmod(n, len(RIVALS))
        name = rival.name.replace("$", r"\$")
        (marker,) = panel.plot(
            rival.macs / unit,
            100 * rival.accuracy,
            RIVALS[kind],
            color=(PURPLE, SKY)[again],
            markersize=7,
            markeredgecolor=BLACK,
            markeredgewidth=0.5,
            linestyle="none",
            label=name,
        )
        drawn.append(marker)
    return drawn
