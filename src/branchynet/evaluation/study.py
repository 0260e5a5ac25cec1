"""From the evidence to a choice, and to its proof.

`branchynet train` does all of it; `branchynet evaluate` may choose again from the evidence that a run has left.
Shapes: N exits, S samples, V threshold vectors.
"""

import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from branchynet.evaluation.evidence import PYTORCH, Evidence, gather, measure, traced_by
from branchynet.evaluation.fitting import Fitting, Unseen
from branchynet.evaluation.noise import Noise, difference, excess, spread, worst
from branchynet.evaluation.report import Report, Verified, gain_measured, medians
from branchynet.evaluation.settings import SweepSettings
from branchynet.evaluation.told import Told
from branchynet.exits.criteria import Criterion
from branchynet.exits.found import Search
from branchynet.exits.rules import Cost, View, select
from branchynet.exits.sweep import compare
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.base import Backend
from branchynet.runtime.verify import run_for_real, whole_blocks

log = logging.getLogger(__name__)

# Timings that cannot be right are measured again, so often in all; and no more once the first proof and what
# followed have taken so many times the seconds that a candidate is measured for.
TRIES, PATIENCE = 3, 200


def sweep(
    settings: SweepSettings,
    network: BranchedNetwork,
    criteria: Sequence[Criterion],
    baseline: BranchedNetwork,
    data: Any,
    fitting: Fitting | None = None,
) -> Report:
    """Trace, cost, choose, and run the chosen point: everything but the writing.

    Where the timings are noisy, they are measured again, and the choice and its proof with them; the least noisy
    ones are kept.

    Args:
        settings: see there.
        network: N exits, in eval mode, on the CPU.
        criteria: N, fitted.
        baseline: its trunk and last head are the baseline; in eval mode, on the CPU.
        data: has `labels`, `batches`, `images`, `inexact`, `input_shape` and `classes`, as
            `branchynet.data.module.ImageData` has.
        fitting: the images that the network's shares or the criteria were fitted on.
    """
    if fitting is not None:
        fitting = dataclasses.replace(fitting, notes=tuple(each.note() for each in criteria))
    measuring, trunk, unseen = settings.measuring, baseline.trunk().eval(), Unseen(data, fitting)

    def proven(evidence: Evidence) -> Report:
        report = choose(settings, evidence)
        verified = {
            engine.name: verify(report, settings, engine, network, criteria, trunk, unseen)
            for engine in measuring.engines
        }
        report = dataclasses.replace(report, verified=verified)
        return dataclasses.replace(report, noise=(*report.noise, *off_the_prediction(report)))

    evidence = gather(measuring, network, criteria, baseline, data, fitting, settings.task)
    end = time.monotonic() + PATIENCE * measuring.seconds
    reports = [proven(evidence)]
    while reports[-1].noise and len(reports) < TRIES and time.monotonic() < end:
        log.info("measuring again, because %s …", "; ".join(each.reason for each in reports[-1].noise))
        latencies, noise = measure(measuring, network, criteria, trunk, data.input_shape)
        evidence = dataclasses.replace(evidence, latencies=latencies, noise=noise)
        reports.append(proven(evidence))
    return min(reports, key=lambda report: excess(report.noise))


def off_the_prediction(report: Report) -> tuple[Noise, ...]:
    """Where the run for real took another time than the latencies say, or gained otherwise, farthest."""
    found = []
    for engine, verified in report.verified.items():
        timed = report.latencies[engine]
        # At the rates of the run for real: an engine of another precision may have left elsewhere.
        pairs = zip(verified.exit_rates, medians(timed.exits), strict=True)
        predicted_us = sum(rate * latency for rate, latency in pairs)
        found.append(difference(f"latency on {engine}", predicted_us, verified.latency_us))
        gain = timed.baseline.median_us / predicted_us
        found.append(difference(f"gain on {engine}", gain, gain_measured(report, engine)))
    return worst(found)


def choose(settings: SweepSettings, evidence: Evidence) -> Report:
    """Sweep the thresholds and pick one vector: arithmetic on the evidence, nothing is run or measured.

    Returns:
        A report without `verified`.
    """
    engine, macs = settings.engine.name, evidence.macs
    timed = evidence.latencies[engine]
    choice = "test" if settings.protocol == "paper" else "val"
    latencies = {each.name: evidence.latencies[each.name] for each in settings.measuring.engines}
    costs = {
        "latency_us": Cost("µs", medians(timed.exits), timed.baseline.median_us),
        "macs": Cost("MACs", macs.exits, macs.baseline),
    }
    search = Search(
        [cost.exits for cost in costs.values()],
        settings.max_vectors,
        settings.thresholds,
        settings.candidates,
        Told("searching thresholds"),
    )
    found = search.find(evidence.traces[choice])
    view = View(
        trace=evidence.traces[choice],
        sweep=found.on,
        costs=costs,
        baseline_correct=evidence.baseline_correct[choice],
        search=search,
    )
    splits = ("val",) if settings.split == "val" else ("val", "test")
    of_test = settings.split == "test"
    return Report(
        experiment=settings.experiment,
        seed=settings.seed,
        protocol=settings.protocol,
        split=settings.split,
        engine=engine,
        threads=settings.measuring.threads,
        machine=evidence.machine,
        versions=evidence.versions,
        criterion=settings.criterion.name,
        unit=settings.criterion.unit,
        rule=settings.rule.name,
        classes=evidence.classes,
        traces={split: evidence.traces[split] for split in splits},
        baseline_correct={split: evidence.baseline_correct[split] for split in splits},
        macs=macs,
        latencies=latencies,
        view=view,
        found=found,
        selection=select(settings.rule, view),
        verified={},
        # Which of the validation images are not the published ones is not told.
        inexact_test=evidence.inexact_test if of_test else torch.empty(0, dtype=torch.int64),
        inexact_training=evidence.inexact_training if of_test else 0,
        shares=evidence.shares,
        noise=(*evidence.noise, *spread(latencies)),
        fitting=evidence.fitting,
        rivals=settings.rivals,
        of_probability=settings.criterion.of_probability,
        task=settings.task,
        baseline_maps={split: each for split, each in evidence.baseline_maps.items() if split in splits},
    )


def verify(
    report: Report,
    settings: SweepSettings,
    engine: Backend,
    network: BranchedNetwork,
    criteria: Sequence[Criterion],
    trunk: nn.Module,
    data: Unseen,
) -> Verified:
    """Run the report's operating point over its split for real, sample by sample, on `engine`."""
    shape, threads = data.input_shape, report.threads
    made = engine.engine(network, criteria, report.point.thresholds, shape, threads)
    y = data.labels(report.split)

    def images() -> Iterator[np.ndarray]:
        return (x.numpy() for x in data.normalised(report.split, whole_blocks(shape)))

    run = run_for_real(made, engine.classifier(trunk, shape, threads), images, threads)
    taken, prediction = torch.from_numpy(run.outcome.exit_index), torch.from_numpy(run.outcome.prediction)
    real = report.task.answered(torch.from_numpy(run.outcome.uncertainty), prediction, y, len(report.classes))
    otherwise = report.task.otherwise
    found = compare(report.trace, made.thresholds, taken, real.prediction[:, 0], otherwise=otherwise)
    if traced_by(settings.engine) == engine.name == PYTORCH and found.unexplained:
        # The trace is of the same network in the same library: this would be a bug of ours.
        raise RuntimeError(f"{found.unexplained} samples did not leave where the sweep says")
    return Verified(
        accuracy=float(real.correct.double().mean()),
        exit_rates=tuple((taken.bincount(minlength=network.num_exits).double() / len(taken)).tolist()),
        latency_us=run.latency_us,
        latency_iqr_us=run.latency_iqr_us,
        baseline_latency_us=run.baseline_latency_us,
        differences=found.differences,
        near_threshold=found.near_threshold,
        unexplained=found.unexplained,
    )
