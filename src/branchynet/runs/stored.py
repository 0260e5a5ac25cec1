"""The evidence in a run's folder: traces, costs, what the baseline gets right, the criteria; written and read.

So that thresholds can be chosen again without the network. Shapes: I images, N exits, S samples.
"""

import csv
import io
import json
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from branchynet.errors import UserError, reason_of
from branchynet.evaluation.evidence import Evidence
from branchynet.evaluation.fitting import Fitting
from branchynet.evaluation.report import Report
from branchynet.exits.combining import Shares
from branchynet.exits.criteria import Criterion
from branchynet.exits.maps import MapTrace
from branchynet.exits.trace import Trace
from branchynet.networks.weights import read_checkpoint
from branchynet.regular import ARRAYS, check_archive, open_regular, read_regular
from branchynet.runs.atomic import replacing, write_csv
from branchynet.runs.run_config import SEPARATE
from branchynet.runtime.costs import Latencies, Latency, Macs

TRACE_ARRAYS = {"uncertainty": np.float32, "prediction": np.int64, "label": np.int64}
ALONE = "alone"
MORE_ARRAYS = {ALONE: np.int64, "confidence": np.float32}  # of traces that have them
OVERLAP = "overlap"  # of traces of maps, and of those alone
OF_MAPS = ("prediction", OVERLAP)  # of a baseline's maps
CRITERION = "criterion.pt"
# What numpy, zipfile and Trace raise for a file that is no archive, is cut off or holds something else.
DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    NotImplementedError,
    MemoryError,
    OverflowError,
    RecursionError,
    zipfile.BadZipFile,
    zlib.error,
)


def write_evidence(folder: Path, report: Report, criterion: "StoredCriterion") -> None:
    """Write all of it; of the test split only where that is reported."""
    for split, trace in report.traces.items():
        write_trace(folder / f"trace-{split}.npz", trace)
    write_costs(folder / "costs.csv", report)
    if report.split == "test":
        write_baseline(folder / "baseline.npz", report)
    write_criterion(folder / CRITERION, criterion)


def read_evidence(
    folder: Path, classes: Sequence[str], machine: str, versions: Mapping[str, str]
) -> Evidence:
    """Read what `write_evidence` wrote; the rest of an evidence stands in other files.

    Raises:
        UserError: a file is missing or damaged, or they do not fit each other.
    """
    path = folder / "baseline.npz"
    baseline = read_baseline(path)
    macs, latencies = read_costs(folder / "costs.csv")
    traces = {split: read_trace(folder / f"trace-{split}.npz") for split in ("val", "test")}
    for split, trace in traces.items():
        if trace.num_exits != len(macs.exits) or len(baseline.correct[split]) != trace.num_samples:
            raise UserError(
                f"trace-{split}.npz, costs.csv and baseline.npz in {folder} are not of one run: take from=network"
            )
        if isinstance(trace, MapTrace):
            if trace.label.shape[1] != len(classes):
                raise UserError(
                    f"{folder / f'trace-{split}.npz'} is of {trace.label.shape[1]} classes, the run of "
                    f"{len(classes)}: take from=network"
                )
            continue
        for name in ("prediction", "label", *([] if trace.alone is None else [ALONE])):
            numbers = getattr(trace, name)
            if not 0 <= int(numbers.min()) <= int(numbers.max()) < len(classes):
                raise UserError(
                    f"{folder / f'trace-{split}.npz'} is damaged: a {name} is none of the {len(classes)} classes: "
                    "take from=network"
                )
    maps = _baseline_maps(path, baseline, traces)
    images = traces["test"].num_samples
    if any(not 0 <= number < images for number in baseline.inexact_test.tolist()):
        raise UserError(
            f"{folder / 'baseline.npz'} is damaged: inexact_test names images that are not there: take from=network"
        )
    return Evidence(
        classes=tuple(classes),
        traces=traces,
        baseline_correct=baseline.correct,
        macs=macs,
        latencies=latencies,
        machine=machine,
        versions=versions,
        inexact_test=baseline.inexact_test,
        inexact_training=baseline.inexact_training,
        baseline_maps=maps,
    )


def _baseline_maps(path: Path, baseline: "Baseline", traces: Mapping[str, Trace]) -> dict[str, MapTrace]:
    """What the baseline's maps have in common with the truth, by split; empty where answers are no maps."""
    found = {}
    try:
        for split, trace in traces.items():
            if isinstance(trace, MapTrace):
                arrays = baseline.maps[split]
                found[split] = MapTrace(
                    torch.zeros(trace.num_samples, 1),
                    arrays["prediction"],
                    trace.label,
                    overlap=arrays[OVERLAP],
                )
                if not torch.equal(found[split].correct[:, 0], baseline.correct[split]):
                    raise ValueError(f"{split}_correct is not of the maps beside it")
    except (KeyError, ValueError) as error:
        raise _damaged(path, error) from error
    return found


def write_trace(path: Path, trace: Trace) -> None:
    """Write `uncertainty` (S, N) float32, `prediction` (S, N) int64 and `label` (S,) int64, compressed.

    Of maps, `prediction` (S, N, K) and `label` (S, K) are the pixels of each class, and `overlap` (S, N, K) int64
    those that an exit gives to it rightly. Where exits average, also `alone` (S, N) int64: what each head by itself
    predicts. Where PyTorch made the trace, also `confidence` (S, N) float32: the largest softmax probability.
    """
    arrays: dict[str, Any] = {
        name: getattr(trace, name).numpy().astype(dtype) for name, dtype in TRACE_ARRAYS.items()
    }
    more = {name: getattr(trace, name) for name in MORE_ARRAYS}
    arrays |= {name: value.numpy() for name, value in more.items() if value is not None}
    if isinstance(trace, MapTrace):
        arrays[OVERLAP] = trace.overlap.numpy()
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_trace(path: Path) -> Trace:
    """Read what `write_trace` wrote.

    Raises:
        UserError: there is no such file, it is damaged, or it holds something else.
    """
    try:
        arrays = _arrays(path, tuple(TRACE_ARRAYS), (*MORE_ARRAYS, OVERLAP))
        kinds = {name: {**TRACE_ARRAYS, **MORE_ARRAYS, OVERLAP: np.int64}[name] for name in arrays}
        wrong = [name for name, dtype in kinds.items() if arrays[name].dtype != dtype]
        if wrong:
            raise ValueError(f"the type of {wrong[0]} is {arrays[wrong[0]].dtype}")
        tensors: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return MapTrace(**tensors) if OVERLAP in tensors else Trace(**tensors)
    except FileNotFoundError:
        raise UserError(f"there is no trace {path}; a finished run has one") from None
    except DAMAGED as error:
        reason = reason_of(error, 200)
        raise UserError(
            f"{path} is no trace ({reason}): it should hold uncertainty (S, N) float32, prediction (S, N) "
            "int64 and label (S,) int64; take from=network"
        ) from error


class Baseline(NamedTuple):
    """What `write_baseline` wrote."""

    correct: dict[str, Tensor]  # by split, `val` and `test`: (S,) bool; of maps float64
    inexact_test: Tensor  # (I,) int64
    inexact_training: int
    maps: dict[str, dict[str, Tensor]]  # of maps, by split: `prediction` and `overlap` (S, 1, K) int64


def write_baseline(path: Path, report: Report) -> None:
    """Write what a later choice needs of the baseline and of images that are not the published ones.

    `val_correct` and `test_correct` (S,) bool: which samples the baseline is right about; `inexact_test` (I,)
    int64 and `inexact_training` () int64, see `Report`. Of maps `…_correct` are float64, and `…_prediction` and
    `…_overlap` (S, 1, K) int64 are there, as a trace has them.
    """
    maps = {
        f"{split}_{name}": getattr(trace, name).numpy()
        for split, trace in report.baseline_maps.items()
        for name in OF_MAPS
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            val_correct=report.baseline_correct["val"].numpy(),
            test_correct=report.baseline_correct["test"].numpy(),
            inexact_test=report.inexact_test.numpy(),
            inexact_training=np.int64(report.inexact_training),
            **maps,
        )


def read_baseline(path: Path) -> Baseline:
    """Read what `write_baseline` wrote.

    Raises:
        UserError: there is no such file, it is damaged, or it holds something else.
    """
    try:
        pairs = [(split, name) for split in ("val", "test") for name in OF_MAPS]
        optional = tuple(f"{split}_{name}" for split, name in pairs)
        arrays = _arrays(path, ("val_correct", "test_correct", "inexact_test", "inexact_training"), optional)
        maps: dict[str, dict[str, Tensor]] = {"val": {}, "test": {}}
        for (split, name), key in zip(pairs, optional, strict=True):
            if key in arrays:
                maps[split][name] = torch.from_numpy(arrays[key])
        kind = torch.float64 if maps["val"] else torch.bool
        correct = {split: torch.from_numpy(arrays[f"{split}_correct"]) for split in ("val", "test")}
        inexact = torch.from_numpy(arrays["inexact_test"])
        if any(right.dtype != kind or right.ndim != 1 for right in correct.values()):
            raise ValueError(f"an array is not (S,) {str(kind).removeprefix('torch.')}")
        if inexact.dtype != torch.int64 or inexact.ndim != 1:
            raise ValueError("inexact_test is not (I,) int64")
        inexact_training = int(arrays["inexact_training"])
        if inexact_training < 0:
            raise ValueError("inexact_training is negative")
        return Baseline(correct, inexact, inexact_training, maps)
    except FileNotFoundError:
        raise UserError(f"there is no {path}; a finished run has one") from None
    except DAMAGED as error:
        raise _damaged(path, error) from error


def write_costs(path: Path, report: Report) -> None:
    """Write what leaving at each exit costs on each engine, after a line for the baseline.

    `macs` and `latency_us` (median; `_iqr_us` its spread) count all heads on the way, `static_…` the trunk
    up to the exit and its own head alone, `trunk_only_…` no side heads; `decision_macs` are of the exit's criterion
    and average alone.
    """
    header = ["engine", "exit"]
    for kind in ("", "static_", "trunk_only_"):
        header += [f"{kind}macs", f"{kind}latency_us", f"{kind}latency_iqr_us"]
    decisions = report.macs.decisions
    header += [] if decisions is None else ["decision_macs"]
    macs = (report.macs.exits, report.macs.static, report.macs.trunk_only)
    rows: list[list[Any]] = []
    for engine, latencies in report.latencies.items():
        whole = latencies.baseline
        rows.append([engine, "baseline", report.macs.baseline, whole.median_us, whole.iqr_us])
        rows[-1] += [""] * (len(header) - len(rows[-1]))
        timed = (latencies.exits, latencies.static, latencies.trunk_only)
        for n in range(report.num_exits):
            row: list[Any] = [engine, n + 1]
            for counted, latency in zip(macs, timed, strict=True):
                row += [counted[n], latency[n].median_us, latency[n].iqr_us]
            rows.append([*row, *([] if decisions is None else [decisions[n]])])
    write_csv(path, header, rows)


def read_costs(path: Path) -> tuple[Macs, dict[str, Latencies]]:
    """Read what `write_costs` wrote.

    Returns:
        MACs, and latencies by engine.

    Raises:
        UserError: there is no such file, it is damaged, or it holds something else.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_regular(path).decode("utf-8"), newline="")))
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
        counts = [tuple(int(row[f"{kind}macs"]) for row in exits) for kind in ("", "static_", "trunk_only_")]
        whole = int(baseline["macs"])
        known = "decision_macs" in exits[0]
        decisions = tuple(int(row["decision_macs"]) for row in exits) if known else None
        # The trunk alone may count nothing: up to an exit at the input, there is none of it.
        if min(whole, *counts[0], *counts[1]) < 1 or min(*counts[2], *(decisions or ())) < 0:
            raise ValueError("MACs are above 0")
        if any(len(timed.exits) != len(exits) for timed in latencies.values()):
            raise ValueError("the engines' numbers of exits differ")
        return Macs(whole, counts[0], counts[1], counts[2], decisions), latencies
    except FileNotFoundError:
        raise UserError(f"there is no {path}; a finished run has one") from None
    except (*DAMAGED, StopIteration, csv.Error) as error:
        raise _damaged(path, error) from error


@dataclass(frozen=True)
class StoredCriterion:
    """What the traces of a run are of: `criterion.pt`. Older ones have no `combine`, `shares` and `fitting`.

    Args:
        settings: of the criterion, plain values.
        traced_by: whose outputs the traces are, see `branchynet.evaluation.evidence.traced_by`.
        states: N state dicts, what the criteria have learned.
        combine: settings of what an exit answers, plain values.
        shares: N numbers, what was fitted for it; None: every exit answers with what its own head says.
        fitting: the images that shares or criteria were fitted on; None: nothing was, or the run is older.
    """

    settings: Mapping[str, Any]
    traced_by: str
    states: Sequence[Mapping[str, Tensor]]
    combine: Mapping[str, Any] = field(default_factory=SEPARATE.copy)
    shares: Shares | None = None
    fitting: Fitting | None = None

    @classmethod
    def of(
        cls,
        settings: Mapping[str, Any],
        traced_by: str,
        criteria: Sequence[Criterion],
        combine: Mapping[str, Any] = SEPARATE,
        shares: Shares | None = None,
        fitting: Fitting | None = None,
    ) -> "StoredCriterion":
        """From the criteria themselves."""
        states = [criterion.state_dict() for criterion in criteria]
        return cls(dict(settings), traced_by, states, dict(combine), shares, fitting)


def write_criterion(path: Path, criterion: StoredCriterion) -> None:
    """Write tensors and plain values alone."""
    content = {**vars(criterion), "states": [dict(state) for state in criterion.states]}
    content["fitting"] = None if criterion.fitting is None else dict(vars(criterion.fitting))
    with replacing(path) as temporary:
        torch.save(content, temporary)


def read_criterion(path: Path) -> StoredCriterion | None:
    """Read what `write_criterion` wrote; None where there is no such file.

    Raises:
        UserError: it is damaged, or it holds something else.
    """
    if not path.exists():
        return None
    content = read_checkpoint(path, "delete it, and the network is run again")
    try:
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}")
        states = [dict(state) for state in content["states"]]
        combine = dict(content.get("combine", SEPARATE))
        json.dumps([content["settings"], combine])  # a TypeError where they are no plain values
        shares = content.get("shares")
        return StoredCriterion(
            dict(content["settings"]),
            str(content["traced_by"]),
            states,
            combine,
            None if shares is None else tuple(map(float, shares)),
            None if content.get("fitting") is None else _fitting(**content["fitting"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _arrays(path: Path, names: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    # Opened here: numpy leaves a damaged file open.
    with open_regular(path, ARRAYS) as file:
        check_archive(file, ARRAYS)
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            there = [name for name in optional if name in archive]
            return {name: archive[name] for name in (*names, *there)}


def _fitting(images: Any, val: Any, share: Any, notes: Any = ()) -> Fitting:
    notes = tuple(map(str, notes))
    if val is None:
        return Fitting(int(images), notes=notes)
    if not isinstance(val, Tensor) or val.dtype != torch.bool or val.ndim != 1 or int(val.sum()) != images:
        raise ValueError("fitting.val is not (S,) bool, true for each of its images")
    return Fitting(int(images), val, float(share), notes)


def _latency(row: dict[str, str], kind: str) -> Latency:
    median, spread = (float(row[f"{kind}{name}_us"]) for name in ("latency", "latency_iqr"))
    if not (0 < median < math.inf and 0 <= spread < math.inf):
        raise ValueError(f"a latency is {median} ± {spread} µs")
    return Latency(median, spread)


def _damaged(path: Path, error: Exception) -> UserError:
    reason = reason_of(error, 200)
    return UserError(f"{path} is damaged ({type(error).__name__}: {reason}): take from=network")
