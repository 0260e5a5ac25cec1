"""Run time and cache misses of a finished run over its first threshold, on ONNX Runtime, apart from all else."""

import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from branchynet.commands.export import describe
from branchynet.errors import UserError
from branchynet.exits.sweep import exit_taken
from branchynet.exits.trace import Trace
from branchynet.exports import loop as export_loop
from branchynet.exports.write import write_export
from branchynet.reporting.caches import CachePoint, CacheStudy
from branchynet.runs.finished_run import FinishedRun
from branchynet.runtime.caches import counter_of, data_caches, mean, touched_bytes

log = logging.getLogger(__name__)

IMAGES = 50  # of the test split, in a random order
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of validation that leaves at exit 1, at the thresholds tried
ROUNDS = 10  # of the images, where they are timed


def study_caches(
    run: FinishedRun, method: str, thresholds: Sequence[float], shares: Sequence[float] = SHARES
) -> CacheStudy:
    """Run the same images at thresholds from "nobody leaves at exit 1" to "all do".

    Args:
        run: its network and criterion are run as they are.
        method: what counts, see `branchynet.runtime.caches.counter_of`.
        thresholds: N-1; those behind the first are held.
        shares: of validation's samples that leave at exit 1, a threshold each.

    Raises:
        UserError: a counter that was named and is not there, or a run without side exits.
    """
    counter, note = counter_of(method)
    if not thresholds:
        raise UserError("caches=… varies the first side exit's threshold, and this run has no side exit")
    network, criteria = run.network, run.criteria
    touched = touched_bytes(network, run.facts.input_shape)
    if (evidence := run.evidence) is None:
        raise UserError(
            "caches=… wants the run's stored traces, which this older run has not left: train it again"
        )
    trace = evidence.traces["test"]
    tried = tried_thresholds(evidence.traces["val"], shares, float(trace.uncertainty[:, 0].max()))
    order = torch.randperm(trace.num_samples, generator=torch.Generator().manual_seed(0))[:IMAGES]
    points = []
    with tempfile.TemporaryDirectory() as scratch:
        export, images = Path(scratch, "export"), Path(scratch, "images.npy")
        export.mkdir()
        write_export(export, network, criteria, describe(run, "segments"))
        np.save(images, run.data.images("test")[order].numpy())

        def loop(rounds: int, values: Sequence[float]) -> list[str]:
            told = ",".join(map(repr, map(float, values)))
            return [sys.executable, "-m", export_loop.__name__, str(export), str(images), str(rounds), told]

        idle = None if counter is None else counter.count(loop(0, thresholds))
        for value in tried:
            vector = [value, *thresholds[1:]]
            taken = exit_taken(trace.uncertainty[order], torch.tensor(vector, dtype=torch.float32))
            rates = (torch.bincount(taken, minlength=trace.num_exits).double() / len(order)).tolist()
            misses = {}
            if counter is not None and idle is not None:
                log.info("counting misses at T_1 = %.4g by %s …", value, counter.name)
                busy = counter.count(loop(1, vector))
                misses = {name: (busy[name] - idle[name]) / len(order) for name in idle}
            latency = float(run_alone(loop(ROUNDS, vector)))
            points.append(CachePoint(value, tuple(rates), latency, mean(touched, rates), misses))
    how = "" if counter is None else counter.how()
    return CacheStudy(run.result["experiment"], len(order), points, data_caches(), how, note)


def tried_thresholds(trace: Trace, shares: Sequence[float], highest: float = 0.0) -> list[float]:
    """Thresholds of exit 1 below which so many of a trace's samples lie, rising; of equals one.

    Args:
        trace: of validation.
        shares: 0 … 1; at 1 everybody leaves.
        highest: the largest uncertainty of others that are to leave there, too.
    """
    values = trace.uncertainty[:, 0].sort().values.tolist()
    above = [*values, 1.01 * max(values[-1], highest) + 1e-6]
    return sorted({above[round(share * len(values))] if share else 0.0 for share in shares})


def run_alone(command: Sequence[str]) -> str:
    """What a process of its own prints."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the export does not run in another process:\n{done.stderr}")
    return done.stdout
