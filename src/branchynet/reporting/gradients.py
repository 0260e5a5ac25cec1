"""Gradient norms of many runs: of those that kept them, by `callbacks=gradient_norms` and `logger=csv`."""

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from statistics import fmean, stdev

from branchynet.regular import read_regular
from branchynet.reporting.averages import Group

LOGGED = "joint/gradient_norm/"  # as the callback of that name calls them, in the stage that trains all exits


def gradient_table(groups: Sequence[Group]) -> list[list[str]]:
    """A header and a line for each group whose runs all have norms: those of the last epoch, shallow to deep; with
    several runs their mean ± the standard deviation from run to run. Nothing where no group has any."""
    found = [(group, [norms_of(row.folder) for row in group.rows]) for group in groups]
    there = [(group, runs) for group, runs in found if all(runs)]
    layers = list(dict.fromkeys(layer for _, runs in there for run in runs for layer in run))
    lines = [
        [group.settings, str(len(runs)), *(_cell([run.get(layer) for run in runs]) for layer in layers)]
        for group, runs in there
    ]
    return [["settings", "runs", *layers], *lines] if lines else []


def norms_of(folder: Path) -> dict[str, float]:
    """The last epoch's norms of a run by their layers, in the order of the file; nothing where it kept none."""
    norms: dict[str, float] = {}
    # A run that was gone on with has several; the last one has the last epoch.
    for path in sorted(folder.glob("csv/version_*/metrics.csv"), key=lambda path: (len(str(path)), path)):
        try:
            text = read_regular(path).decode()
            for line in csv.DictReader(StringIO(text)):
                told = {name: value for name, value in line.items() if name and name.startswith(LOGGED)}
                norms |= {name.removeprefix(LOGGED): float(each) for name, each in told.items() if each}
        except (OSError, ValueError, TypeError, csv.Error):
            continue  # damaged: it is the run's own, and the rest of the report does without
    return norms


def _cell(values: Sequence[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return "–"
    spread = f" ± {stdev(numbers):.2g}" if len(numbers) > 1 else ""
    return f"{fmean(numbers):.3g}{spread}"
