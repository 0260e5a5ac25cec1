"""The figure of uncertainties in rising order, with their knee (the paper's Figure 4)."""

import numpy as np
from matplotlib.figure import Figure

from branchynet.evaluation.report import Report
from branchynet.exits.rising import Knee, rising_knee
from branchynet.reporting.style import BLACK, GREEN, ORANGE, exit_colour, new_figure, title, uncertainty_unit

CHOICE = {"validation": "val", "test": "test"}  # `chosen_on` to the trace's name


def knee_of(report: Report, n: int) -> Knee:
    """Of the uncertainties at exit n+1 on the split that thresholds are chosen on: no label is looked at."""
    return rising_knee(report.traces[CHOICE[report.chosen_on]].uncertainty[:, n])


def rising_uncertainties(report: Report) -> Figure:
    """Every reported sample's uncertainty at each side exit, from the surest to the least sure, and the knee."""
    side_exits = report.num_exits - 1
    figure = new_figure(max(7.0, 4.5 * side_exits), 4)
    panels = figure.subplots(1, side_exits, sharey=True, squeeze=False)[0]
    for n, panel in enumerate(panels):
        curve = np.sort(report.trace.uncertainty[:, n].numpy())
        share = 100 * np.arange(1, len(curve) + 1) / len(curve)
        panel.plot(share, curve, color=exit_colour(n, report), linewidth=1.5)
        knee = knee_of(report, n)
        left = 100 * float((curve < knee.threshold).mean())
        panel.plot(
            left,
            knee.threshold,
            "o",
            color=ORANGE,
            markeredgecolor=BLACK,
            markersize=9,
            label=f"knee: {knee.threshold:.3g}, {left:.1f} % below",
        )
        chosen = report.point.thresholds[n]
        shown = chosen if chosen <= curve[-1] else float("nan")
        panel.axhline(shown, color=GREEN, linestyle=":", linewidth=2, label=f"chosen: {chosen:.3g}")
        panel.set_title(f"exit {n + 1}", fontsize="medium")
        panel.set_xlabel(f"{report.reported_on} samples in rising order, %")
        panel.set_xlim(0, 100)
        panel.legend(fontsize="small", loc="upper left")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(f"uncertainty ({uncertainty_unit(report)})")
    figure.suptitle(title(report, f"uncertainties in rising order, knee of {report.chosen_on}"))
    return figure
