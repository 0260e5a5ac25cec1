"""The files of a run: traces, the sweep, the trade-offs, the costs, the report, the result, the figures.

`branchynet.reporting.stored` reads some of them again. Each is written under a temporary name and renamed, so
that a reader never sees half a file.
Shapes: N exits, S samples, V threshold vectors.
"""

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from branchynet.exits.trace import Trace
from branchynet.reporting.report import Report, decimal, medians
from branchynet.reporting.results import result_dict
from branchynet.reporting.tables import report_page
from branchynet.reporting.trade_offs import trade_offs

# Beyond so many threshold vectors, sweep.csv lists the frontier and the operating point alone.
MAX_SWEEP_ROWS = 2000
TRACE_ARRAYS = {"uncertainty": np.float32, "prediction": np.int64, "label": np.int64}


def write_run(folder: Path, report: Report, figures: Mapping[str, Figure]) -> None:
    """Write everything of `report` into a run's folder, `result.json` last: where it stands, all stands."""
    write_trace(folder / "trace-val.npz", report.trace_val)
    if report.split == "test":
        write_trace(folder / "trace-test.npz", report.trace_test)
    write_sweep(folder / "sweep.csv", report)
    write_trade_offs(folder / "trade_offs.csv", report)
    write_costs(folder / "costs.csv", report)
    write_baseline(folder / "baseline.npz", report)
    with replacing(folder / "report.md") as temporary:
        temporary.write_text(report_page(report), encoding="utf-8")
    for name, figure in figures.items():
        with replacing(folder / "figures" / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")
    write_result(folder / "result.json", report)


def write_trace(path: Path, trace: Trace) -> None:
    """Write `uncertainty` (S, N) float32, `prediction` (S, N) int64 and `label` (S,) int64, compressed."""
    arrays: dict[str, Any] = {
        name: getattr(trace, name).numpy().astype(dtype) for name, dtype in TRACE_ARRAYS.items()
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def write_sweep(path: Path, report: Report) -> None:
    """Write one line per threshold vector: every one of them, or, if there are more than 2,000, only those of
    the frontier and the operating point.

    Columns: `threshold_1` …, then for `val_` and `test_` each `accuracy`, `exit_rate_1` …, `macs` and
    `latency_us` (mean per sample, on the report's engine), then `on_frontier` and `knee`, 0 or 1.
    """
    rows = torch.arange(len(report.points_test))
    if len(rows) > MAX_SWEEP_ROWS:
        rows = torch.unique(torch.cat([report.frontier, torch.tensor([report.index])]))
    latency = torch.tensor(medians(report.latencies[report.engine].exits), dtype=torch.float64)
    macs = torch.tensor(report.macs.exits, dtype=torch.float64)

    exits = range(1, report.num_exits + 1)
    columns: dict[str, Sequence[float]] = {}
    for n, values in enumerate(report.points_test.thresholds[rows].T.tolist(), 1):
        columns[f"threshold_{n}"] = [decimal(value) for value in values]
    # Where validation is reported, both are the same.
    for split, points in {"val": report.points_val, report.split: report.points_test}.items():
        chosen = points.subset(rows)
        columns[f"{split}_accuracy"] = chosen.accuracy.tolist()
        for n in exits:
            columns[f"{split}_exit_rate_{n}"] = chosen.exit_rates[:, n - 1].tolist()
        columns[f"{split}_macs"] = chosen.mean_cost(macs).tolist()
        columns[f"{split}_latency_us"] = chosen.mean_cost(latency).tolist()
    columns["on_frontier"] = torch.isin(rows, report.frontier).int().tolist()
    columns["knee"] = (rows == report.index).int().tolist()
    _write_csv(path, list(columns), zip(*columns.values(), strict=True))


def write_trade_offs(path: Path, report: Report) -> None:
    """Write one line per wanted loss or gain, see `branchynet.reporting.trade_offs.TradeOff`.

    Columns: `wanted` (`loss`, `gain`), `value`, `chosen_on` (the split), `feasible` (0: no point was as wanted
    there, the nearest is given), `threshold_1` …, `val_accuracy`, `val_gain_latency`, and on test `accuracy`,
    `loss`, `exit_rate_1` …, `gain_macs`, `gain_latency`, `static_exit` and `gain_over_static` (empty where no
    single exit is as accurate). Losses are fractions, gains in latency on the report's engine.
    """
    rows = []
    for row in trade_offs(report):
        columns: dict[str, Any] = {"wanted": row.wanted, "value": row.value, "chosen_on": report.chosen_on}
        columns["feasible"] = int(row.feasible)
        columns |= {f"threshold_{n}": value for n, value in enumerate(row.thresholds, 1)}
        columns |= {"val_accuracy": row.val_accuracy, "val_gain_latency": row.val_gain_latency}
        split = report.split
        columns |= {f"{split}_accuracy": row.accuracy, f"{split}_loss": row.loss}
        columns |= {f"{split}_exit_rate_{n}": rate for n, rate in enumerate(row.exit_rates, 1)}
        columns |= {f"{split}_gain_macs": row.gain_macs, f"{split}_gain_latency": row.gain_latency}
        columns |= {
            f"{split}_static_exit": row.best_static,
            f"{split}_gain_over_static": row.gain_over_static,
        }
        rows.append(columns)
    _write_csv(path, list(rows[0]), (row.values() for row in rows))


def write_costs(path: Path, report: Report) -> None:
    """Write what leaving at each exit costs on each engine, after a line for the baseline.

    `macs` and `latency_us` (median; `_iqr_us` its spread) count all heads on the way, `static_…` the trunk
    up to the exit and its own head alone, `trunk_only_…` no side heads.
    """
    header = ["engine", "exit"]
    for kind in ("", "static_", "trunk_only_"):
        header += [f"{kind}macs", f"{kind}latency_us", f"{kind}latency_iqr_us"]
    macs = (report.macs.exits, report.macs.static, report.macs.trunk_only)
    rows: list[list[Any]] = []
    for engine, latencies in report.latencies.items():
        whole = latencies.baseline
        rows.append([engine, "baseline", report.macs.baseline, whole.median_us, whole.iqr_us, *[""] * 6])
        timed = (latencies.exits, latencies.static, latencies.trunk_only)
        for n in range(report.num_exits):
            row: list[Any] = [engine, n + 1]
            for counted, latency in zip(macs, timed, strict=True):
                row += [counted[n], latency[n].median_us, latency[n].iqr_us]
            rows.append(row)
    _write_csv(path, header, rows)


def write_baseline(path: Path, report: Report) -> None:
    """Write what a later choice needs of the baseline and of images that are not the published ones.

    `val_correct` and `test_correct` (S,) bool: which samples the baseline is right about; `inexact_test` (I,)
    int64 and `inexact_training` () int64, see `Report`. Nothing is written where the report does not know,
    or not of the test split.
    """
    if report.baseline_correct is None or report.baseline_val_correct is None or report.split != "test":
        return
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            val_correct=report.baseline_val_correct.numpy(),
            test_correct=report.baseline_correct.numpy(),
            inexact_test=report.inexact_test.numpy(),
            inexact_training=np.int64(report.inexact_training),
        )


def write_result(path: Path, report: Report) -> None:
    """Write `result.json` (see `result_dict`)."""
    text = json.dumps(result_dict(report), indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place at the end, or vanishes if anything fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_csv(path: Path, header: Sequence[str], rows: Any) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
