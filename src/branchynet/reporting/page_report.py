"""The page of a report on many runs: their curves in one plot, their numbers in one table."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from branchynet.reporting.comparison import warnings_of
from branchynet.reporting.curves import curve_of
from branchynet.reporting.page import NAME, new_plot, page
from branchynet.runs.gathered import Gathered
from branchynet.runs.rows import Row

if TYPE_CHECKING:
    from bokeh.plotting import figure

MOST_CURVES = 300  # on a page; of more runs the operating points alone
MOST_POINTS = 60  # of a curve


def comparison_html(title: str, gathered: Gathered, folder: Path) -> str:
    """The page as HTML; Bokeh has to be there, see `why_no_page`.

    Args:
        title: what was looked at.
        gathered: all rows, and what was left out.
        folder: where the page will lie: its links to the runs' pages are relative to it.
    """
    return page("report", f"Runs in {title}", page_data(title, gathered, folder), {"plot": curves_plot()})


def page_data(title: str, gathered: Gathered, folder: Path) -> dict[str, Any]:
    """What the page's script shows, in a form that JSON can say; arguments as of `comparison_html`."""
    # Only now: matplotlib takes a second to import.
    from branchynet.reporting.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SIDE_EXITS, SKY

    groups = list(dict.fromkeys(row.group for row in gathered.rows))
    with_curves = len(gathered.rows) <= MOST_CURVES
    return {
        "title": title,
        "rows": [_row(row, groups.index(row.group), folder, with_curves) for row in gathered.rows],
        "groups": groups,
        "curves": with_curves,
        "warning": " ".join(warnings_of(gathered.rows)),
        "left_out": [{"name": each.name, "reason": each.reason} for each in gathered.left_out],
        "colours": [BLUE, ORANGE, GREEN, PURPLE, SKY, RED, SIDE_EXITS[-1], GREY],
    }


def _row(row: Row, group: int, folder: Path, with_curve: bool) -> dict[str, Any]:
    result = row.result
    baseline, knee = result["baseline"], result["knee"]
    return {
        "name": row.name,
        "link": _link(row.folder, folder),
        "group": group,
        "seed": row.seed,
        "kind": row.kind,
        "split": "validation" if result.get("split") == "val" else "test",
        "paper": result["protocol"] == "paper",
        "criterion": knee["criterion"],
        "rule": knee["rule"],
        "engine": result["engine"],
        "thresholds": list(knee["thresholds"]),
        "exit_rates": list(knee["exit_rates"]),
        "baseline": {name: baseline[name] for name in ("accuracy", "macs", "latency_us")},
        "point": {name: knee[name] for name in ("accuracy", "macs", "latency_us")},
        "curve": _curve(row) if with_curve else None,
    }


def _curve(row: Row) -> dict[str, Sequence[float]] | None:
    found = curve_of(row)
    if found is None:
        return None
    count = len(found.accuracy)
    last = min(count, MOST_POINTS) - 1
    kept = [round(n * (count - 1) / last) for n in range(last + 1)] if last else [0]
    return {name: [values[n] for n in kept] for name, values in vars(found).items()}


def _link(run: Path, folder: Path) -> str | None:
    """To the run's page, else to its report; None where it has neither."""
    there = next((run / name for name in (NAME, "report.md") if (run / name).is_file()), None)
    return None if there is None else quote(Path(os.path.relpath(there, folder)).as_posix())


def curves_plot() -> "figure":
    """Accuracy over cost, a curve and a star for each run; the sources are filled by the script."""
    from bokeh.models import ColumnDataSource, HoverTool, TapTool

    plot = new_plot("", "accuracy, %")

    def source(name: str, *columns: str) -> ColumnDataSource:
        return ColumnDataSource({column: [] for column in (*columns, "colour", "told")}, name=name)

    curves = plot.multi_line(
        "xs",
        "ys",
        source=source("curves", "xs", "ys"),
        color="colour",
        line_width=2,
        line_alpha=0.6,
        hover_line_alpha=1.0,
    )
    baselines = plot.scatter(
        "x", "y", source=source("baselines", "x", "y"), color="colour", marker="x", size=9, line_width=2
    )
    points = plot.scatter(
        "x",
        "y",
        source=source("points", "x", "y"),
        color="colour",
        marker="star",
        size=15,
        nonselection_alpha=1.0,
    )
    told = "<div style='max-width: 24rem; color: #111'>@told</div>"
    shown: list[Any] = [curves, baselines, points]
    plot.add_tools(HoverTool(renderers=shown, tooltips=told), TapTool(renderers=[points]))
    return plot
