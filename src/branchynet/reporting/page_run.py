"""The page of a run: thresholds to move, what they give, and the images that leave where.

Thresholds are moved on the split of the choice alone. What the other split says is shown of the operating point,
which was looked at there once anyway, and of no other one. Shapes: F points, N exits, S samples.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from branchynet.evaluation.report import Report, medians, taken_at
from branchynet.exits.point import decimal
from branchynet.reporting.page import new_plot, numbers, page
from branchynet.reporting.page_images import good_of, main_class, sheet_of
from branchynet.reporting.sentences import counting
from branchynet.reporting.style import BLUE, GREEN, GREY, ORANGE, PURPLE

if TYPE_CHECKING:
    from bokeh.plotting import figure

Image = Callable[[str, int], Tensor]
MOST_VALUES = 500_000  # uncertainties of a split on the page
MOST_POINTS = 400  # of the frontier
WORDS = {"val": "validation", "test": "test"}


def run_page(report: Report, image: Image | None, command: str) -> str:
    """The page as HTML; Bokeh has to be there, see `why_no_page`.

    Args:
        report: of the run.
        image: (C, H, W) uint8, by a split and a sample of its trace; None, where they were not looked at.
        command: that evaluates the run at other thresholds, as far as the thresholds.
    """
    return page("run", report.experiment, page_data(report, image, command), {"plot": trade_off_plot()})


def page_data(report: Report, image: Image | None, command: str) -> dict[str, Any]:
    """What the page's script shows, in a form that JSON can say; arguments as of `run_page`."""
    timed = report.latencies[report.engine]
    live = "test" if report.protocol == "paper" else "val"
    threads = "1 thread" if report.threads == 1 else f"{report.threads} threads"
    return {
        "name": report.experiment,
        "seed": int(report.seed),
        "classes": list(report.classes),
        "criterion": report.criterion,
        "unit": report.unit,
        "rule": f"{report.rule}{counting(report)}",
        "note": report.selection.note,
        "noise": [each.reason for each in report.noise],
        "where": f"{report.engine}, {threads}, batch 1, on {report.machine}",
        "costs": {
            "latency_us": {
                "what": "latency",
                "unit": "µs",
                "exits": list(medians(timed.exits)),
                "baseline": timed.baseline.median_us,
            },
            "macs": {
                "what": "MACs",
                "unit": "MACs",
                "exits": list(report.macs.exits),
                "baseline": report.macs.baseline,
            },
        },
        "paper": report.protocol == "paper",
        "live": live,
        "splits": {split: _split(report, split, image) for split in report.traces},
        "point": list(report.selection.point.thresholds),
        "frontier": _frontier(report),
        "command": command,
    }


def _split(report: Report, split: str, image: Image | None) -> dict[str, Any]:
    trace, right = report.traces[split], report.baseline_correct[split]
    total = trace.num_samples
    step = -(-total * trace.num_exits // MOST_VALUES)
    taken = taken_at(report, report.selection.point, split)
    if step > 1:
        trace, right, taken = trace.at(torch.arange(0, total, step)), right[::step], taken[::step]
    correct = trace.correct
    partly = correct.is_floating_point()
    return {
        "words": WORDS[split],
        "samples": trace.num_samples,
        "of": total,
        "step": step,
        "uncertainty": [numbers(exit.numpy()) for exit in trace.uncertainty.T],
        # Partly right, where answers are maps: then how much.
        "right": [numbers(exit.numpy().astype(np.float64 if partly else np.uint8)) for exit in correct.T],
        "good": [numbers(exit.numpy().astype(np.uint8)) for exit in good_of(trace).T] if partly else None,
        "label": numbers(main_class(trace.label, 1).numpy().astype(np.int32)),
        "baseline": right.sum().item() / len(right),
        "images": None
        if image is None
        else sheet_of(trace, taken, lambda sample: image(split, sample * step)),
    }


def _frontier(report: Report) -> list[list[float]]:
    """(F, N-1), from the cheapest to the most expensive; of very many some."""
    order = report.view.mean("latency_us")[report.frontier].argsort()
    chosen = report.frontier[order]
    if len(chosen) > MOST_POINTS:
        chosen = chosen[torch.linspace(0, len(chosen) - 1, MOST_POINTS).round().long()]
    return [[decimal(value) for value in row] for row in report.view.points.thresholds[chosen].tolist()]


def trade_off_plot() -> "figure":
    """Accuracy over mean cost; its sources are filled by the script."""
    from bokeh.models import ColumnDataSource, HoverTool, TapTool

    plot = new_plot("mean latency per image, µs", "accuracy, %", name="trade_off")

    def source(name: str) -> ColumnDataSource:
        return ColumnDataSource({key: [] for key in ("x", "accuracy", "told")}, name=name)

    def draw(name: str, marker: str, colour: str, label: str, size: int, **more: Any) -> Any:
        return plot.scatter(
            "x",
            "accuracy",
            source=source(name),
            marker=marker,
            color=colour,
            legend_label=label,
            size=size,
            **more,
        )

    shown = [
        draw("frontier", "circle", BLUE, "frontier: click one to take it", 7, nonselection_fill_alpha=1.0),
        draw("exits", "square", PURPLE, "all leave at one exit", 9),
        draw("baseline", "x", GREY, "baseline", 12, line_width=3),
        draw("point", "star", GREEN, "operating point", 18),
        draw("now", "diamond", ORANGE, "these thresholds", 16),
    ]
    frontier = shown[0]
    plot.line("x", "accuracy", source=frontier.data_source, color=BLUE, line_alpha=0.5)
    told = "<div style='max-width: 20rem; color: #111'>@told</div>"
    plot.add_tools(HoverTool(renderers=shown, tooltips=told), TapTool(renderers=[frontier]))
    plot.add_layout(plot.legend[0], "below")
    plot.legend[0].update(
        orientation="horizontal", ncols=3, border_line_color=None, background_fill_color=None, location="left"
    )
    return plot
