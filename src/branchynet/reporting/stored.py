"""Reading what a run has left, so that its thresholds can be chosen anew without its network.

Shapes: N exits, S samples.
"""

import csv
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from branchynet.errors import UserError
from branchynet.exits.trace import Trace
from branchynet.reporting.files import TRACE_ARRAYS
from branchynet.runtime.costs import Latencies, Latency, Macs

# What numpy, zipfile and Trace raise for a file that is no archive, is cut off or holds something else.
DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


class Baseline(NamedTuple):
    """What `write_baseline` wrote."""

    correct: dict[str, Tensor]  # by split, `val` and `test`: (S,) bool
    inexact_test: Tensor  # (I,) int64
    inexact_training: int


def read_trace(path: Path) -> Trace:
    """Read what `write_trace` wrote.

    Raises:
        UserError: there is no such file, it is damaged, or it holds something else.
    """
    try:
        arrays = _arrays(path, tuple(TRACE_ARRAYS))
        wrong = [name for name, dtype in TRACE_ARRAYS.items() if arrays[name].dtype != dtype]
        if wrong:
            raise ValueError(f"the type of {wrong[0]} is {arrays[wrong[0]].dtype}")
        return Trace(**{name: torch.from_numpy(array) for name, array in arrays.items()})
    except FileNotFoundError:
        raise UserError(f"there is no trace {path}; a finished run has one") from None
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is no trace ({reason}): it should hold uncertainty (S, N) float32, prediction (S, N) "
            "int64 and label (S,) int64; run the sweep again"
        ) from error


def read_baseline(path: Path) -> Baseline:
    """Read what `write_baseline` wrote.

    Raises:
        UserError: there is no such file, it is damaged, or it holds something else.
    """
    try:
        arrays = _arrays(path, ("val_correct", "test_correct", "inexact_test", "inexact_training"))
        correct = {split: torch.from_numpy(arrays[f"{split}_correct"]) for split in ("val", "test")}
        inexact = torch.from_numpy(arrays["inexact_test"])
        if any(right.dtype != torch.bool or right.ndim != 1 for right in correct.values()):
            raise ValueError("an array is not (S,) bool")
        if inexact.dtype != torch.int64 or inexact.ndim != 1:
            raise ValueError("inexact_test is not (I,) int64")
        return Baseline(correct, inexact, int(arrays["inexact_training"]))
    except FileNotFoundError:
        raise UserError(f"there is no {path}; a finished run has one") from None
    except DAMAGED as error:
        raise _damaged(path, error) from error


def read_costs(path: Path) -> tuple[Macs, dict[str, Latencies]]:
    """Read what `write_costs` wrote; how often each was run is not kept, and is 0.

    Returns:
        MACs, and latencies by engine.

    Raises:
        UserError: there is no such file, it is damaged, or it holds something else.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        engines: dict[str, list[dict[str, str]]] = {}
        for row in rows:
            engines.setdefault(row["engine"], []).append(row)
        latencies = {}
        for engine, (baseline, *exits) in engines.items():
            numbers = [str(n) for n in range(1, len(exits) + 1)]
            if baseline["exit"] != "baseline" or not exits or [row["exit"] for row in exits] != numbers:
                raise ValueError(f"the lines of {engine} are not of the baseline and of exits 1 to N")
            kinds = (tuple(_latency(row, kind) for row in exits) for kind in ("", "static_", "trunk_only_"))
            latencies[engine] = Latencies(_latency(baseline, ""), *kinds)
        baseline, *exits = next(iter(engines.values()))
        counts = (tuple(int(row[f"{kind}macs"]) for row in exits) for kind in ("", "static_", "trunk_only_"))
        return Macs(int(baseline["macs"]), *counts), latencies
    except FileNotFoundError:
        raise UserError(f"there is no {path}; a finished run has one") from None
    except (*DAMAGED, StopIteration, csv.Error) as error:
        raise _damaged(path, error) from error


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    # Opened here, for numpy leaves a damaged file open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in names}


def _latency(row: dict[str, str], kind: str) -> Latency:
    return Latency(float(row[f"{kind}latency_us"]), float(row[f"{kind}latency_iqr_us"]), runs=0)


def _damaged(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(f"{path} is damaged ({type(error).__name__}: {reason}): run the sweep again")
