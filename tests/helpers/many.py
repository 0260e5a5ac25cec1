"""Folders of finished runs and evaluations, written by the project's own writers, and nothing trained for them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from branchynet.evaluation.report import Report
from branchynet.reporting.files import write_sweep
from branchynet.runs.result import write_result
from branchynet.runs.run_config import SEPARATE
from branchynet.runs.started_run import start_run

SETTINGS: dict[str, Any] = {
    "model": {"name": "b_lenet"},
    "data": {"name": "digits", "root": "/data"},
    "criterion": {"_target_": "branchynet.exits.criteria.Entropy"},
    "combine": SEPARATE,
    "optimizer": {"lr": 0.001},
    "cache": None,
}


def write_finished(
    folder: Path,
    report: Report,
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] = SETTINGS,
    seed: int = 0,
) -> Path:
    """A run that was started with these settings, and found what the report says."""
    folder.mkdir(parents=True, exist_ok=True)
    start_run(folder, {**settings, "seed": seed}, [*overrides, f"seed={seed}"])
    write_found(folder, replace(report, seed=seed))
    return folder


def write_evaluation(folder: Path, report: Report, overrides: Sequence[str], **settings: Any) -> Path:
    """An evaluation, in a folder below its run's."""
    folder.mkdir(parents=True)
    write_found(folder, report)
    content = {**settings, "overrides": list(overrides)}
    (folder / "evaluate.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def write_found(folder: Path, report: Report) -> None:
    """What of a report is read again."""
    write_sweep(folder / "sweep.csv", report)
    write_result(folder / "result.json", report)
