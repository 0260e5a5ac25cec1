"""The results as text: a table for the terminal, and one in the form of the paper's Table I."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from branchynet.reporting import report as derive
from branchynet.reporting.paper import paper_row
from branchynet.reporting.report import Report
from branchynet.reporting.sentences import microseconds, percent, sentences, threads
from branchynet.reporting.text import aligned
from branchynet.reporting.trade_offs import TradeOff, trade_offs

if TYPE_CHECKING:
    from branchynet.runtime.costs import Latency

WIDTH = 100
# Exit rates that take more room than this stand below the table.
RATES_WIDTH = 21


def summary_table(report: Report) -> str:
    """Baseline, every exit alone, the operating point predicted and measured, on test, and what they mean.

    At most 100 columns wide. `exit n alone` is the trunk up to exit n and its own head, nothing else. Gains
    are in latency; a latency is a median with its interquartile range, but the operating point's is the mean
    over the test samples.
    """
    main = report.latencies[report.engine]
    macs = report.macs
    accuracies = derive.exit_accuracies(report)
    predicted_rates, verified = _rates(derive.exit_rates(report)), report.verified.get(report.engine)
    measured_rates = _rates(verified.exit_rates) if verified else ""
    below = []
    if max(len(predicted_rates), len(measured_rates)) > RATES_WIDTH:
        below = [f"Exit rates %: predicted {predicted_rates}; measured {measured_rates or 'not'}."]
        predicted_rates = measured_rates = "see below"

    baseline_us = main.baseline.median_us
    rows = [
        ["", "accuracy %", "exit rates %", "MACs, M", "latency, µs", "IQR, µs", "gain"],
        ["baseline", percent(report.baseline_accuracy), "", *_costs(macs.baseline, main.baseline, 1.0)],
    ]
    for n, accuracy in enumerate(accuracies):
        latency = main.static[n]
        costs = _costs(macs.static[n], latency, baseline_us / latency.median_us)
        rows.append([f"exit {n + 1} alone", percent(accuracy), "", *costs])
    predicted_us = microseconds(derive.mean_latency_us(report))
    costs = [_millions(derive.mean_macs(report)), predicted_us, "", f"{derive.gain_latency(report):.2f}"]
    rows.append(["operating point, predicted", percent(derive.accuracy(report)), predicted_rates, *costs])
    if verified:
        measured_us, iqr = microseconds(verified.latency_us), microseconds(verified.latency_iqr_us)
        costs = ["", measured_us, iqr, f"{derive.gain_measured(report):.2f}"]
        rows.append(["operating point, measured", percent(verified.accuracy), measured_rates, *costs])

    head = (
        f"{report.experiment}, seed {report.seed}, on {report.reported_on}; {_where(report, report.engine)}"
    )
    words = [line for text in [*below, *sentences(report)] for line in _wrap(text)]
    return "\n".join([*_wrap(head), aligned(rows), *words])


def table_one(report: Report) -> str:
    """Markdown in the form of the paper's Table I, engines named in the cells.

    Costs count all heads, the criterion and the decision, but for the last column: there the trunk's segments
    alone are on the clock, as they were in the paper, whose rows follow where `report` repeats them.
    """
    columns = ("network", "accuracy %", "time, µs", "gain, time", "gain, MACs", "thresholds", "exit rates %")
    header = [*columns, "gain, time of the trunk alone"]
    engines = list(report.latencies)

    def per_engine(values: Sequence[str]) -> str:
        return " / ".join(f"{value} {engine}" for value, engine in zip(values, engines, strict=True))

    def row(name: str, accuracy: str, *rest: str) -> list[str]:
        return [name, accuracy, *rest, *["–"] * (len(header) - 2 - len(rest))]

    rows = [
        row(
            f"{report.experiment}: baseline",
            percent(report.baseline_accuracy),
            per_engine([microseconds(report.latencies[engine].baseline.median_us) for engine in engines]),
        ),
        row(
            f"{report.experiment}: with exits",
            percent(derive.accuracy(report)),
            per_engine([microseconds(derive.mean_latency_us(report, engine)) for engine in engines]),
            per_engine([f"{derive.gain_latency(report, engine):.2f}" for engine in engines]),
            f"{derive.gain_macs(report):.2f}",
            ", ".join(f"{value:.4g}" for value in derive.thresholds(report)),
            ", ".join(f"{100 * rate:.1f}" for rate in derive.exit_rates(report)),
            per_engine([f"{derive.gain_trunk_only(report, engine):.2f}" for engine in engines]),
        ),
    ]
    paper = paper_row(report.experiment)
    if paper:
        gains = f"{paper.gain_cpu} CPU / {paper.gain_gpu} GPU"
        ours = ("–", "–", "–", paper.thresholds, paper.exit_rates, gains)
        rows.append(row(f"paper: {paper.trunk}", f"{paper.baseline_accuracy:.2f}"))
        rows.append(row(f"paper: {paper.branchy}", f"{paper.accuracy:.2f}", *ours))
    lines = [_markdown(header), _markdown(["---"] * len(header)), *map(_markdown, rows)]
    chosen = f"Thresholds chosen on validation, numbers on {report.reported_on}."
    if report.protocol == "paper":
        chosen = "protocol: paper (thresholds chosen on test, numbers on test)."
    return "\n".join(lines) + f"\n\n{chosen} {_where(report, ' and '.join(engines))}.\n"


def trade_offs_table(report: Report) -> str:
    """Markdown: the points for some wanted losses and gains, and where the whole frontier is to be found."""
    header = [
        f"wanted on {report.chosen_on}",
        "accuracy %",
        "loss, points",
        "exit rates %",
        "thresholds",
        "gain, MACs",
        "gain, time",
        "gain over static",
    ]
    rows = [
        [
            _wanted(row),
            percent(row.accuracy),
            f"{100 * row.loss:.2f}",
            ", ".join(f"{100 * rate:.1f}" for rate in row.exit_rates),
            ", ".join(f"{value:.4g}" for value in row.thresholds),
            f"{row.gain_macs:.2f}",
            f"{row.gain_latency:.2f}",
            "–" if row.gain_over_static is None else f"{row.gain_over_static:.2f} (exit {row.best_static})",
        ]
        for row in trade_offs(report)
    ]
    lines = [_markdown(header), _markdown(["---"] * len(header)), *map(_markdown, rows)]
    text = (
        f"Each row is a point of its own, chosen on {report.chosen_on}: the fastest that loses at most so much "
        f"against the baseline, or the most accurate with at least such a gain in time ({report.engine}); its "
        f"numbers are of {report.reported_on}. "
    )
    if not all(row.feasible for row in trade_offs(report)):
        text += "Where no point is as wanted, the nearest stands in its place, and says so. "
    text += (
        "Gain over static: against the cheapest single exit that is as accurate on "
        f"{report.reported_on}; – where none is. The whole frontier: figures/trade_off.png, and sweep.csv where "
        "on_frontier is 1."
    )
    return "\n".join(lines) + f"\n\n{text}\n"


def report_page(report: Report) -> str:
    """What `report.md` holds, in markdown: Table I, the trade-offs and the summary."""
    return f"{table_one(report)}\n{trade_offs_table(report)}\n```\n{summary_table(report)}\n```\n"


def _wanted(row: TradeOff) -> str:
    if row.wanted == "loss":
        return f"loss ≤ {100 * row.value:g}" + ("" if row.feasible else ": none, the most accurate instead")
    return f"gain ≥ {row.value:g}" + ("" if row.feasible else ": none, the fastest instead")


def _costs(macs: int, latency: "Latency", gain: float) -> list[str]:
    return [_millions(macs), microseconds(latency.median_us), microseconds(latency.iqr_us), f"{gain:.2f}"]


def _millions(macs: float) -> str:
    return f"{macs / 1e6:,.3f}"


def _rates(rates: Sequence[float]) -> str:
    return " ".join(f"{100 * rate:.1f}" for rate in rates)


def _where(report: Report, engine: str) -> str:
    return f"{engine}, {threads(report)}, batch 1, {report.machine}"


def _markdown(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ")
