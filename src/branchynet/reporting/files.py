"""The files that a run leaves for people and other programs: the sweep, the trade-offs, the report, the figures.

The evidence for them is written by `branchynet.runs.stored`. Shapes: N exits, V threshold vectors.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from branchynet.evaluation.report import Report, medians
from branchynet.evaluation.streams import Course, Outcome, Stream
from branchynet.evaluation.trade_offs import trade_offs
from branchynet.exits.point import decimal
from branchynet.reporting.figures import threshold_curves
from branchynet.reporting.page import NAME as PAGE
from branchynet.reporting.rising import knee_of
from branchynet.reporting.streams import curve_rows, stream_figure, stream_page
from branchynet.reporting.tables import report_page
from branchynet.runs.atomic import together, write_csv
from branchynet.runs.result import write_result
from branchynet.runs.stored import StoredCriterion, write_evidence
from branchynet.runtime.controller import Controller

# Beyond this number of threshold vectors, sweep.csv lists the frontier and the operating point alone.
MAX_SWEEP_ROWS = 2000


def write_run(
    folder: Path,
    report: Report,
    pictures: Mapping[str, np.ndarray],
    criterion: StoredCriterion,
    page: str | None = None,
) -> None:
    """Write everything of `report` into a run's folder at once: where `result.json` is, all is, and fits.

    Args:
        pictures: the figures' pixels by name, (3, H, W) uint8.
        page: without one, an earlier one is removed: it would show other numbers.
    """
    with together(folder, last="result.json") as staging:
        if page is None:
            (folder / PAGE).unlink(missing_ok=True)
        else:
            (staging / PAGE).write_text(page, encoding="utf-8")
        write_evidence(staging, report, criterion)
        write_sweep(staging / "sweep.csv", report)
        write_trade_offs(staging / "trade_offs.csv", report)
        write_thresholds(staging / "thresholds.csv", report)
        (staging / "report.md").write_text(report_page(report), encoding="utf-8")
        (staging / "figures").mkdir()
        for name, pixels in pictures.items():
            picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
            picture.save(staging / "figures" / f"{name}.png", format="png")
        write_result(staging / "result.json", report)


def write_sweep(path: Path, report: Report) -> None:
    """Write one line per threshold vector: every one of them, or, if there are more than 2,000, only those of
    the frontier and the operating point.

    Columns: `threshold_1` …, then for `val_` and `test_` each `accuracy`, `exit_rate_1` …, `macs` and
    `latency_us` (mean per sample, on the report's engine), then `on_frontier` and `knee`, 0 or 1.
    """
    chosen = [] if report.index is None else [report.index]
    rows = torch.arange(len(report.points))
    if len(rows) > MAX_SWEEP_ROWS:
        rows = torch.unique(torch.cat([report.frontier, torch.tensor(chosen, dtype=torch.int64)]))
    latency = torch.tensor(medians(report.latencies[report.engine].exits), dtype=torch.float64)
    macs = torch.tensor(report.macs.exits, dtype=torch.float64)

    exits = range(1, report.num_exits + 1)
    columns: dict[str, Sequence[float]] = {}
    for n, values in enumerate(report.points.thresholds[rows].T.tolist(), 1):
        columns[f"threshold_{n}"] = [decimal(value) for value in values]
    for split in report.traces:
        points = report.swept_on(split).subset(rows)
        columns[f"{split}_accuracy"] = points.accuracy.tolist()
        for n in exits:
            columns[f"{split}_exit_rate_{n}"] = points.exit_rates[:, n - 1].tolist()
        columns[f"{split}_macs"] = points.mean_cost(macs).tolist()
        columns[f"{split}_latency_us"] = points.mean_cost(latency).tolist()
    columns["on_frontier"] = torch.isin(rows, report.frontier).int().tolist()
    columns["knee"] = [int(row in chosen) for row in rows.tolist()]
    write_csv(path, list(columns), zip(*columns.values(), strict=True))


def write_trade_offs(path: Path, report: Report) -> None:
    """Write one line per wanted loss or gain, see `branchynet.evaluation.trade_offs.TradeOff`.

    Columns: `wanted` (`loss`, `gain`), `value`, `chosen_on` (the split), `feasible` (0: no point was as wanted
    there, the nearest is given), `threshold_1` …, `val_accuracy`, `val_gain_latency`, and on test `accuracy`,
    `loss`, `exit_rate_1` …, `gain_macs`, `gain_latency`, `static_exit` and `gain_over_static` (empty where no
    single exit is as accurate). Losses are fractions, gains in latency on the report's engine.
    """
    rows = []
    for row in trade_offs(report):
        columns: dict[str, Any] = {"wanted": row.wanted, "value": row.value, "chosen_on": report.chosen_on}
        columns["feasible"] = int(row.feasible)
        columns |= {f"threshold_{n}": value for n, value in enumerate(row.point.thresholds, 1)}
        columns |= {"val_accuracy": row.val.accuracy, "val_gain_latency": row.val_gain_latency}
        split, saved = report.split, row.savings
        columns |= {f"{split}_accuracy": row.point.accuracy, f"{split}_loss": row.loss}
        columns |= {f"{split}_exit_rate_{n}": rate for n, rate in enumerate(row.point.exit_rates, 1)}
        columns |= {f"{split}_gain_macs": saved.gain_macs, f"{split}_gain_latency": saved.gain_latency}
        columns |= {
            f"{split}_static_exit": None if saved.best_static is None else saved.best_static + 1,
            f"{split}_gain_over_static": saved.gain_over_static,
        }
        rows.append(columns)
    write_csv(path, list(rows[0]), (row.values() for row in rows))


def write_thresholds(path: Path, report: Report) -> None:
    """Write what each side exit's threshold does, the others held as chosen: the curves of `thresholds.png`.

    Columns: `exit` (1 …), `threshold`, `at` (`knee` of the uncertainties in rising order, `chosen`, or empty), then
    on the reported split `accuracy`, `accuracy_leaving` (of those leaving at this exit; empty where none does),
    `exit_rate_1` … and `gain_macs`.
    """
    header = ["exit", "threshold", "at", "accuracy", "accuracy_leaving"]
    header += [*(f"exit_rate_{n}" for n in range(1, report.num_exits + 1)), "gain_macs"]
    macs = torch.tensor(report.macs.exits, dtype=torch.float64)
    rows: list[list[Any]] = []
    for n, chosen in enumerate(report.point.thresholds):
        named = {chosen: "chosen", knee_of(report, n).threshold: "knee"}
        for value, right, leaving, rates in zip(*threshold_curves(report, n, list(named)), strict=True):
            gain = report.macs.baseline / float(torch.from_numpy(rates) @ macs)
            of_leaving = "" if math.isnan(leaving) else float(leaving)
            at = named.get(float(value), "")
            rows.append([n + 1, float(value), at, float(right), of_leaving, *rates.tolist(), gain])
    write_csv(path, header, rows)


def write_stream(
    folder: Path,
    name: str,
    command: str,
    streams: Sequence[Stream],
    courses: Mapping[str, Sequence[Course]],
    outcomes: Mapping[str, Sequence[Outcome]],
    controller: Controller,
    window: int,
) -> None:
    """Write `stream.md`, `stream.png` and `stream.csv`, see `branchynet.reporting.streams`."""
    with together(folder, last="stream.md") as staging:
        figure = stream_figure(name, streams, courses, controller, window)
        figure.savefig(staging / "stream.png", format="png")
        header = ["drift", "thresholds", "images", controller.hold, "missed", "accuracy"]
        write_csv(staging / "stream.csv", header, curve_rows(streams, courses, controller, window))
        page = stream_page(name, command, streams, outcomes, controller, window)
        (staging / "stream.md").write_text(page, encoding="utf-8")
