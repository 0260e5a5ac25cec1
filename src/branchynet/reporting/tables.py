"""The results as text: a table for the terminal, and one in the form of the paper's Table I."""

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from branchynet.errors import printable
from branchynet.evaluation.adaptive import adaptive
from branchynet.evaluation.headroom import headroom
from branchynet.evaluation.intervals import (
    Interval,
    PointIntervals,
    answer_intervals,
    over_static,
    point_intervals,
    scaled,
)
from branchynet.evaluation.overlap import overlaps
from branchynet.evaluation.quality import calibrated, qualities
from branchynet.evaluation.recall import Recall, recalls
from branchynet.evaluation.report import (
    Report,
    Savings,
    gain_measured,
    medians,
    savings,
    static_accuracies,
    taken_at,
    taken_at_point,
)
from branchynet.evaluation.trade_offs import TradeOff, trade_offs
from branchynet.reporting.paper import paper_row
from branchynet.reporting.sentences import (
    microseconds,
    noisy,
    percent,
    percent_within,
    rates_within,
    sentences,
    threads,
    within,
)
from branchynet.reporting.text import aligned

if TYPE_CHECKING:
    from branchynet.runtime.costs import Latency

WIDTH = 100
MOST_CLASSES = 20  # in a table
# Exit rates that take more room than this stand below the table.
RATES_WIDTH = 21


def summary_table(report: Report) -> str:
    """Baseline, every exit alone, operating point predicted and measured, headroom, on test, and what they mean.

    At most 100 columns wide. The headroom is what perfect confidence and perfect knowledge would give. `exit n
    alone` is the trunk up to exit n and its own head, nothing else. Gains are in latency; a latency is a median
    with its interquartile range, but the operating point's is the mean over the test samples. Below: intervals.
    """
    main = report.latencies[report.engine]
    macs = report.macs
    accuracies, point = static_accuracies(report), report.point
    saved = savings(report, point)
    predicted_rates, verified = _rates(point.exit_rates), report.verified.get(report.engine)
    measured_rates = _rates(verified.exit_rates) if verified else ""
    below = []
    if max(len(predicted_rates), len(measured_rates)) > RATES_WIDTH:
        below = [f"Exit rates %: predicted {predicted_rates}; measured {measured_rates or 'not'}."]
        predicted_rates = measured_rates = "see below"

    baseline_us = main.baseline.median_us
    rows = [
        ["", f"{report.task.score} %", "exit rates %", "MACs, M", "latency, µs", "IQR, µs", "gain"],
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
    words = [line for text in [*below, *sentences(report), *_of_intervals(report)] for line in _wrap(text)]
    return "\n".join([*_wrap(head), aligned(rows), _intervals(report), *words])


def _intervals(report: Report) -> str:
    """A table of its own, for the first one has no room; without the rule above, which is the other one's."""
    trace, found = report.trace, headroom(report.trace)
    own, _ = answer_intervals(report, report.baseline_correct[report.split])
    rows = [
        ["95 % intervals", f"{report.task.score} %", "less the baseline's", "gain"],
        ["baseline", percent_within(report.baseline_accuracy, own), "", ""],
    ]

    def add(name: str, accuracy: float, own: Interval, less: Interval, gain: str) -> None:
        less_text = percent_within(accuracy - report.baseline_accuracy, less)
        rows.append([name, percent_within(accuracy, own), less_text, gain])

    for n, accuracy in enumerate(static_accuracies(report)):
        add(f"exit {n + 1} alone", accuracy, *answer_intervals(report, trace.correct_alone[:, n]), "")
    for name, point, taken in (
        ("operating point", report.point, taken_at_point(report)),
        ("perfect confidence", found.confidence, found.confidence.taken),
        ("perfect knowledge", found.knowledge, found.knowledge.taken),
    ):
        ends = point_intervals(report, taken)
        gain = within(savings(report, point).gain_latency, ends.gain_latency)
        add(name, point.accuracy, ends.accuracy, ends.accuracy_minus_baseline, gain)
    return aligned(rows).partition("\n")[2]


def _of_intervals(report: Report) -> list[str]:
    ends = point_intervals(report, taken_at_point(report))
    return [
        f"Exit rates with their intervals, %: {rates_within(report.point.exit_rates, ends.exit_rates)}.",
        f"Intervals are a bootstrap's over the {report.trace.num_samples:,} samples of {report.reported_on}, "
        "paired where the baseline's accuracy is taken off: how far other samples would move the numbers, not "
        "another training or timing.",
    ]


def table_one(report: Report) -> str:
    """Markdown in the form of the paper's Table I, engines named in the cells.

    Costs count all heads, the criterion and the decision, but for the last column: there the trunk's segments
    alone are on the clock, as they were in the paper, whose rows follow where `report` repeats them.
    """
    columns = ("time, µs", "gain, time", "gain, MACs", "thresholds", "exit rates %")
    header = ["network", f"{report.task.score} %", *columns, "gain, time of the trunk alone"]
    engines, point, taken = list(report.latencies), report.point, taken_at_point(report)
    baseline, _ = answer_intervals(report, report.baseline_correct[report.split])
    ends = {engine: point_intervals(report, taken, engine) for engine in engines}
    own = ends[report.engine]

    def per_engine(value: Callable[[Savings, PointIntervals], str]) -> str:
        return " / ".join(
            f"{value(savings(report, point, engine), ends[engine])} {engine}" for engine in engines
        )

    def row(name: str, accuracy: str, *rest: str) -> list[str]:
        return [name, accuracy, *rest, *["–"] * (len(header) - 2 - len(rest))]

    rows = [
        row(
            f"{report.experiment}: baseline",
            percent_within(report.baseline_accuracy, baseline),
            " / ".join(
                f"{microseconds(timed.baseline.median_us)} {engine}"
                for engine, timed in report.latencies.items()
            ),
        ),
        row(
            f"{report.experiment}: with exits",
            percent_within(point.accuracy, own.accuracy),
            per_engine(lambda saved, _: microseconds(saved.latency_us)),
            per_engine(lambda saved, ends: within(saved.gain_latency, ends.gain_latency)),
            within(savings(report, point).gain_macs, own.gain_macs),
            ", ".join(f"{value:.4g}" for value in point.thresholds),
            rates_within(point.exit_rates, own.exit_rates),
            per_engine(lambda saved, ends: within(saved.gain_trunk_only, ends.gain_trunk_only)),
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
    where = f"{chosen} {_where(report, ' and '.join(engines))}."
    brackets = f"In brackets: 95 % intervals over the samples of {report.reported_on}."
    text = " ".join([where, brackets, *noisy(report)])
    return "\n".join(lines) + f"\n\n{text}\n"


def trade_offs_table(report: Report) -> str:
    """Markdown: the points for some wanted losses and gains, and where the whole frontier is to be found."""
    header = [
        f"wanted on {report.chosen_on}",
        f"{report.task.score} %",
        "loss, points",
        "exit rates %",
        "thresholds",
        "gain, MACs",
        "gain, time",
        "gain over static",
    ]
    found = trade_offs(report)
    rows = []
    for row in found:
        ends = point_intervals(report, taken_at(report, row.point))
        rows.append(
            [
                _wanted(row),
                percent_within(row.point.accuracy, ends.accuracy),
                percent_within(row.loss, scaled(ends.accuracy_minus_baseline, -1)),
                rates_within(row.point.exit_rates, ends.exit_rates),
                ", ".join(f"{value:.4g}" for value in row.point.thresholds),
                within(row.savings.gain_macs, ends.gain_macs),
                within(row.savings.gain_latency, ends.gain_latency),
                _over_static(row.savings, ends),
            ]
        )
    lines = [_markdown(header), _markdown(["---"] * len(header)), *map(_markdown, rows)]
    text = (
        f"Each row is a point of its own, chosen on {report.chosen_on}: the fastest that loses at most so much "
        f"against the baseline, or the most accurate with at least such a gain in time ({report.engine}); its "
        f"numbers are of {report.reported_on}, in brackets their 95 % intervals, the loss's paired. "
    )
    if not all(row.feasible for row in found):
        text += "Where no point is as wanted, the nearest stands in its place, and says so. "
    text += (
        "Gain over static: against the cheapest single exit that is as accurate on "
        f"{report.reported_on}; – where none is. The whole frontier: figures/trade_off.png, and sweep.csv where "
        "on_frontier is 1."
    )
    return "\n".join(lines) + f"\n\n{text}\n"


def criterion_table(report: Report) -> str:
    """Markdown: how good the criterion is at each side exit; empty where there is none."""
    found, what = qualities(report), calibrated(report)
    if not found:
        return ""
    header = ["criterion", "AUROC", "calibration error", "area", "MACs", "time, µs"]
    rows = [
        [
            f"{report.criterion}, exit {n}",
            _or_dash(each.auroc, ".3f"),
            _or_dash(each.calibration_error, ".3f"),
            _or_dash(each.area, ".3f"),
            f"{each.macs:,}",
            _or_dash(each.latency_us, ".1f"),
        ]
        for n, each in enumerate(found, 1)
    ]
    lines = [_markdown(header), _markdown(["---"] * len(header)), *map(_markdown, rows)]
    calibration = "No calibration error: the trace has no softmax probabilities, and the uncertainty is none."
    if what:
        calibration = f"Calibration error: how far {what} is from the share that is right, on average."
    text = (
        f"On {report.reported_on}. AUROC: how often {report.task.ranked}; 0.5 guesses, 1 is perfect. {calibration} "
        f"Area: under {report.task.score} over cost of this exit and the last one; 0 is leaving at "
        "random, 1 the best there can be. MACs and time are the criterion's own and in every cost and gain; the "
        f"time is that of leaving at exit 1 beyond exit 1 alone ({report.engine}), so decision and loop are in it."
    )
    return "\n".join(lines) + f"\n\n{text}\n"


def overlap_table(report: Report) -> str:
    """Markdown: the IoU of each class over the data set; empty where answers are no maps."""
    found = overlaps(report)
    if found is None:
        return ""
    ways = [found.baseline, *found.exits, found.point]
    exits = [f"exit {n}" for n in range(1, report.num_exits + 1)]
    header = ["class", "pixels %", "baseline", *exits, "operating point"]
    rows = [
        [
            printable(report.classes[k]).replace("|", "\\|"),
            percent(found.pixels[k] / sum(found.pixels)),
            *("–" if (value := way.classes[k]) is None else percent(value) for way in ways),
        ]
        for k in range(len(report.classes))
    ]
    rows.append(["**mean IoU**", "", *(percent_within(way.mean, way.interval) for way in ways)])
    lines = [_markdown(header), _markdown(["---"] * len(header)), *map(_markdown, rows)]
    text = (
        f"IoU, %, over all pixels of {report.reported_on}: those that map and truth both give to a class over "
        "those that one of them does; exit n: with all samples leaving there. In brackets: 95 % intervals."
    )
    return "\n".join(lines) + f"\n\n{text}\n"


def recall_table(report: Report) -> str:
    """Markdown: how well each class is known; of many classes those that the operating point knows least.

    Empty where answers are maps, see `overlap_table`.
    """
    if report.task.partly:
        return ""
    found = recalls(report)
    ways = [found.baseline, *found.exits, found.point]
    there = [number for number, count in enumerate(found.samples) if count]
    shown = sorted(sorted(there, key=lambda number: found.point.classes[number] or 0.0)[:MOST_CLASSES])
    exits = [f"exit {n}" for n in range(1, report.num_exits + 1)]
    header = ["class", "samples", "baseline", *exits, "operating point"]
    rows = [
        [
            printable(report.classes[number]).replace("|", "\\|"),
            f"{found.samples[number]:,}",
            *(_recall(way, number) for way in ways),
        ]
        for number in shown
    ]
    balanced = [percent_within(way.balanced, way.balanced_interval) for way in ways]
    rows.append(["**balanced accuracy**", f"{report.trace.num_samples:,}", *balanced])
    lines = [_markdown(header), _markdown(["---"] * len(header)), *map(_markdown, rows)]
    text = (
        f"Recall: the share, %, of a class's samples on {report.reported_on} that is answered rightly; exit n: "
        "with all samples leaving there. Balanced accuracy: the mean of all classes' recalls. In brackets: 95 % "
        "intervals."
    )
    if len(shown) < len(there):
        text += f" Of {len(there):,} classes the {len(shown)} that the operating point knows least."
    return "\n".join(lines) + f"\n\n{text}\n"


def _recall(found: Recall, number: int) -> str:
    value, ends = found.classes[number], found.intervals[number]
    return "–" if value is None or ends is None else percent_within(value, ends)


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def rivals_table(report: Report) -> str:
    """Markdown: the small networks of others beside the operating point, by cost; empty where none are known."""
    if not report.rivals:
        return ""
    point, saved = report.point, savings(report, report.point)
    own = ["operating point", _millions(saved.macs), percent(point.accuracy), "this run"]
    rows: list[tuple[float, list[str]]] = [(saved.macs, [f"**{cell}**" for cell in own])]
    for rival in report.rivals:
        rows.append((rival.macs, [rival.name, _millions(rival.macs), percent(rival.accuracy), rival.source]))
    cells = [cells for _, cells in sorted(rows, key=lambda row: row[0])]
    header = ["network", "MACs, M", "accuracy %", "source"]
    lines = [_markdown(header), _markdown(["---"] * len(header)), *map(_markdown, cells)]
    text = (
        "Small networks of others for the same images, without exits: their numbers are their source's, on test. "
        "No latency is known of them, and MACs are not time: depthwise layers take more of it."
    )
    return "\n".join(lines) + f"\n\n{text}\n"


def outside_table(report: Report) -> str:
    """Markdown: what the exits make of images that the network should not know; empty where none were shown."""
    if not report.outside:
        return ""
    exits = range(1, report.num_exits + 1)
    own = percent(1 - report.point.exit_rates[-1])
    header = ["images", "number", "leave early, %", *(f"AUROC, exit {n}" for n in exits)]
    rows = [["its own", f"{report.trace.num_samples:,}", own, *("" for _ in exits)]]
    for each in report.outside:
        areas = [f"{area:.3f}" for area in each.auroc]
        rows.append([each.source, f"{each.samples:,}", percent(each.early), *areas])
    lines = [_markdown(header), _markdown(["---"] * len(header)), *map(_markdown, rows)]
    text = (
        "Images from outside, which the network should not know and answers all the same. AUROC: how often one of "
        f"its own images ({report.reported_on}) is surer than one of these by the exit's {report.criterion}; 0.5 "
        "is what guessing gives, 1 tells them all apart, below 0.5 those from outside are the surer ones."
    )
    return "\n".join(lines) + f"\n\n{text}\n"


def adaptive_table(report: Report) -> str:
    """Markdown: the operating point beside thresholds adapted to the same images; empty where none were."""
    found, point = adaptive(report), report.point
    if found is None:
        return ""
    timed = medians(report.latencies[report.engine].exits)
    rows = [
        (
            "fixed",
            point.thresholds,
            point.accuracy,
            point.mean_cost(timed),
            point.mean_cost(report.macs.exits),
        ),
        ("adaptive", found.thresholds, found.accuracy, found.latency_us, found.macs),
    ]
    header = ["thresholds", "values", "accuracy %", f"latency on {report.engine}, µs", "MACs, M"]
    lines = [_markdown(header), _markdown(["---"] * len(header))]
    for name, values, accuracy, latency, macs in rows:
        told = ", ".join(f"{value:.4g}" for value in values)
        lines.append(_markdown([name, told, percent(accuracy), microseconds(latency), _millions(macs)]))
    low, high = (100 * end for end in found.interval)
    text = (
        f"Adaptive thresholds look at all images of {report.reported_on}, and at no label: as many answers may "
        f"differ from the last exit's as on validation at the fixed ones, {100 * found.allowed:.2f} %; here "
        f"{100 * found.disagreement:.2f} % do. In accuracy they are {100 * found.accuracy_minus_fixed:+.2f} points "
        f"from the fixed ones (95 %, paired: {low:+.2f} … {high:+.2f}). Without labels one would guess "
        f"{percent(found.estimated_accuracy)} %. Costs are the measured ones of each exit; this point was not run "
        "for real."
    )
    return "\n".join(lines) + f"\n\n{text}\n"


def report_page(report: Report) -> str:
    """What `report.md` holds, in markdown: Table I, the trade-offs, the criterion, the classes, the small rivals,
    images from outside, adaptive thresholds and the summary."""
    tables = (
        table_one,
        trade_offs_table,
        criterion_table,
        recall_table,
        overlap_table,
        rivals_table,
        outside_table,
        adaptive_table,
    )
    parts = [table(report) for table in tables]
    return "\n".join([*filter(None, parts), f"```\n{summary_table(report)}\n```\n"])


def _over_static(saved: Savings, ends: PointIntervals) -> str:
    if saved.gain_over_static is None or saved.best_static is None:
        return "–"
    own = over_static(saved, ends)
    assert own is not None
    return f"{within(saved.gain_over_static, own)} (exit {saved.best_static + 1})"


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
