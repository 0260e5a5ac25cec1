"""The results as text: a table for the terminal, and one in the form of the paper's Table I."""

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from branchynet.errors import printable
from branchynet.evaluation.headroom import headroom
from branchynet.evaluation.report import Report, Savings, exit_accuracies, gain_measured, savings
from branchynet.evaluation.trade_offs import TradeOff, trade_offs
from branchynet.reporting.paper import paper_row
from branchynet.reporting.sentences import microseconds, noisy, percent, sentences, threads
from branchynet.reporting.text import aligned

if TYPE_CHECKING:
    from branchynet.runtime.costs import Latency

WIDTH = 100
# Exit rates that take more room than this stand below the table.
RATES_WIDTH = 21


def summary_table(report: Report) -> str:
    """Baseline, every exit alone, operating point predicted and measured, headroom, on test, and what they mean.

    At most 100 columns wide. The headroom is what perfect confidence and perfect knowledge would give. `exit n
    alone` is the trunk up to exit n and its own head, nothing else. Gains are in latency; a latency is a median
    with its interquartile range, but the operating point's is the mean over the test samples.
    """
    main = report.latencies[report.engine]
    macs = report.macs
    accuracies, point = exit_accuracies(report), report.point
    saved = savings(report, point)
    predicted_rates, verified = _rates(point.exit_rates), report.verified.get(report.engine)
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
    costs = [_millions(saved.macs), microseconds(saved.latency_us), "", f"{saved.gain_latency:.2f}"]
    rows.append(["operating point, predicted", percent(point.accuracy), predicted_rates, *costs])
    if verified:
        measured_us, iqr = microseconds(verified.latency_us), microseconds(verified.latency_iqr_us)
        costs = ["", measured_us, iqr, f"{gain_measured(report):.2f}"]
        rows.append(["operating point, measured", percent(verified.accuracy), measured_rates, *costs])

    found = headroom(report.trace)
    for name, perfect in (("confidence", found.confidence), ("knowledge", found.knowledge)):
        saved = savings(report, perfect)
        costs = [_millions(saved.macs), microseconds(saved.latency_us), "", f"{saved.gain_latency:.2f}"]
        rows.append([f"perfect {name}", percent(perfect.accuracy), "", *costs])

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
    engines, point = list(report.latencies), report.point

    def per_engine(value: Callable[[Savings], str]) -> str:
        return " / ".join(f"{value(savings(report, point, engine))} {engine}" for engine in engines)

    def row(name: str, accuracy: str, *rest: str) -> list[str]:
        return [name, accuracy, *rest, *["–"] * (len(header) - 2 - len(rest))]

    rows = [
        row(
            f"{report.experiment}: baseline",
            percent(report.baseline_accuracy),
            " / ".join(
                f"{microseconds(timed.baseline.median_us)} {engine}"
                for engine, timed in report.latencies.items()
            ),
        ),
        row(
            f"{report.experiment}: with exits",
            percent(point.accuracy),
            per_engine(lambda saved: microseconds(saved.latency_us)),
            per_engine(lambda saved: f"{saved.gain_latency:.2f}"),
            f"{savings(report, point).gain_macs:.2f}",
            ", ".join(f"{value:.4g}" for value in point.thresholds),
            ", ".join(f"{100 * rate:.1f}" for rate in point.exit_rates),
            per_engine(lambda saved: f"{saved.gain_trunk_only:.2f}"),
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
    text = " ".join([f"{chosen} {_where(report, ' and '.join(engines))}.", *noisy(report)])
    return "\n".join(lines) + f"\n\n{text}\n"


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
    found = trade_offs(report)
    rows = [
        [
            _wanted(row),
            percent(row.point.accuracy),
            f"{100 * row.loss:.2f}",
            ", ".join(f"{100 * rate:.1f}" for rate in row.point.exit_rates),
            ", ".join(f"{value:.4g}" for value in row.point.thresholds),
            f"{row.savings.gain_macs:.2f}",
            f"{row.savings.gain_latency:.2f}",
            _over_static(row.savings),
        ]
        for row in found
    ]
    lines = [_markdown(header), _markdown(["---"] * len(header)), *map(_markdown, rows)]
    text = (
        f"Each row is a point of its own, chosen on {report.chosen_on}: the fastest that loses at most so much "
        f"against the baseline, or the most accurate with at least such a gain in time ({report.engine}); its "
        f"numbers are of {report.reported_on}. "
    )
    if not all(row.feasible for row in found):
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


def _over_static(saved: Savings) -> str:
    if saved.gain_over_static is None or saved.best_static is None:
        return "–"
    return f"{saved.gain_over_static:.2f} (exit {saved.best_static + 1})"


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
    return textwrap.wrap(printable(text), WIDTH, subsequent_indent="  ")
