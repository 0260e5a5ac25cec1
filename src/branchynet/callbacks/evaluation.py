"""The sweep of a trained network: gather the evidence, choose an operating point, run it for real.

`branchynet train` does all of it; `branchynet evaluate` may choose anew from the evidence that a run has left.
Shapes: C channels, H, W, N exits, S samples, V threshold vectors.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from branchynet.errors import UserError
from branchynet.exits.criteria import Criterion, get_criterion
from branchynet.exits.frontier import pareto
from branchynet.exits.select import Reference, check_rule, select
from branchynet.exits.sweep import check_grid, evaluate_grid, threshold_grid
from branchynet.exits.trace import Trace, compute_trace
from branchynet.networks.branched import BranchedNetwork
from branchynet.reporting.report import PROTOCOLS, SPLITS, Report, Verified
from branchynet.runtime.costs import Latencies, Macs, count_macs, describe_machine, measure_latencies
from branchynet.runtime.early_exit import undivided
from branchynet.runtime.engine import check_engine, forced, make_classifier, make_engine
from branchynet.runtime.for_inference import for_inference, network_for_inference
from branchynet.runtime.trace_engine import trace_engine
from branchynet.runtime.verify import compare, run_for_real

CHUNK = 1000  # images per forward pass of a trace
# Engines that compute less exactly than PyTorch on a CPU, by bfloat16 or by a GPU's TF32 in convolutions: their
# exits are swept with their own outputs.
OWN_OUTPUTS = ("openvino_bf16", "torch_cuda", "torch_compile_cuda")


@dataclass(frozen=True)
class SweepSettings:
    """How an operating point is chosen, measured and named.

    Args:
        experiment, seed: named in the results.
        criterion: how unsure an exit is: a name of `branchynet.exits.criteria`.
        engine: `name` (what the choice is made with), `threads`, `seconds` (of measuring per candidate),
            `compare` (names of further engines to measure and run).
        rule: `name` and its parameters, see `branchynet.exits.select`.
        protocol: `validation`, or `paper`: choose on test, as the paper did (section IV), for comparison only.
        thresholds: tried at every exit; None takes them from the uncertainties of the split of the choice.
        max_vectors: at most so many threshold vectors.
        split: what is reported: `test`, or `val`, so that test need not be looked at.

    Raises:
        UserError: a setting that is not allowed.
    """

    experiment: str
    seed: int
    criterion: str
    engine: Mapping[str, Any]
    rule: Mapping[str, Any]
    protocol: str = "validation"
    thresholds: Sequence[float] | None = None
    max_vectors: int = 40_000
    split: str = "test"

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise UserError(f"sweep.protocol={self.protocol}: it is one of {', '.join(PROTOCOLS)}")
        if self.split not in SPLITS:
            raise UserError(f"split={self.split}: it is one of {', '.join(SPLITS)}")
        if self.split != "test" and self.protocol == "paper":
            raise UserError(
                f"split={self.split} with sweep.protocol=paper, which chooses on test: leave one out"
            )
        check_rule(self.rule)
        check_grid(self.max_vectors, self.thresholds)
        get_criterion(self.criterion)
        for name in self.engines:
            check_engine(name, self.threads)
        if not 0 < self.seconds < math.inf:
            raise UserError(f"engine.seconds={self.seconds}: it is a number above 0")

    @property
    def engines(self) -> tuple[str, ...]:
        """The engine of the choice, then those to compare with."""
        return tuple(dict.fromkeys([self.engine["name"], *(self.engine.get("compare") or ())]))

    @property
    def threads(self) -> int:
        """Of computation, on every engine."""
        return self.engine["threads"]

    @property
    def seconds(self) -> float:
        """Of measuring, for each candidate."""
        return self.engine["seconds"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a choice is made from. Splits are `val` and `test`; S samples each, in the data set's order."""

    classes: tuple[str, ...]
    traces: Mapping[str, Trace]
    baseline_correct: Mapping[str, Tensor]  # (S,) bool: what the network of stage 1 gets right
    macs: Macs
    latencies: Mapping[str, Latencies]  # by engine
    machine: str
    versions: Mapping[str, str]
    inexact_test: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    inexact_training: int = 0


def sweep(settings: SweepSettings, network: BranchedNetwork, baseline: BranchedNetwork, data: Any) -> Report:
    """Trace, cost, choose, and run the chosen point: everything but the writing.

    Args:
        settings: see there.
        network: N exits, in eval mode, on the CPU.
        baseline: likewise; its trunk and last head are the baseline.
        data: has `split`, `inexact`, `input_shape` and `classes`, as `branchynet.data.module.ImageData` has.
    """
    report = choose(settings, gather(settings, network, baseline, data))
    trunk = baseline.trunk().eval()
    verified = {engine: verify(report, engine, network, trunk, data) for engine in settings.engines}
    return dataclasses.replace(report, verified=verified)


def gather(
    settings: SweepSettings, network: BranchedNetwork, baseline: BranchedNetwork, data: Any
) -> Evidence:
    """Run every exit on both splits, count MACs, measure latencies. Arguments as of `sweep`."""
    criterion = get_criterion(settings.criterion)
    trunk = baseline.trunk().eval()
    # Traced in the form in which PyTorch's engine runs them: other forms round otherwise.
    traced = network_for_inference(network)
    traced_trunk = for_inference(trunk)
    traces, correct = {}, {}
    for which in ("val", "test"):
        split = data.split(which)
        if traced_by(settings.engines[0]) == "torch":
            traces[which], correct[which] = (
                trace_split(traced, split, criterion),
                trunk_correct(traced_trunk, split),
            )
        else:
            traces[which] = own_trace(settings, network, split, data.input_shape)
            correct[which] = own_trace(settings, undivided(trunk), split, data.input_shape).correct[:, 0]
    machine, versions = describe_machine()
    return Evidence(
        classes=tuple(data.classes),
        traces=traces,
        baseline_correct=correct,
        macs=count_macs(network, data.input_shape),
        latencies={
            engine: measure_latencies(
                engine, network, trunk, criterion, data.input_shape, settings.threads, settings.seconds
            )
            for engine in settings.engines
        },
        machine=machine,
        versions=versions,
        inexact_test=data.inexact("test"),
        inexact_training=len(data.inexact("train")) + len(data.inexact("val")),
    )


def choose(settings: SweepSettings, evidence: Evidence) -> Report:
    """Sweep the thresholds and pick one vector: arithmetic on the evidence, nothing is run or measured.

    Returns:
        A report without `verified`.
    """
    main, *_ = settings.engines
    traces, macs, latencies = evidence.traces, evidence.macs, evidence.latencies
    accuracies = {split: int(right.sum()) / len(right) for split, right in evidence.baseline_correct.items()}
    exit_us = torch.tensor([latency.median_us for latency in latencies[main].exits], dtype=torch.float64)

    choice, split = "test" if settings.protocol == "paper" else "val", settings.split
    grid = threshold_grid(traces[choice], settings.max_vectors, settings.thresholds)
    points = {split: evaluate_grid(trace, grid) for split, trace in traces.items()}
    selection = select(
        settings.rule,
        points[choice],
        latency_us=exit_us,
        macs=torch.tensor(macs.exits, dtype=torch.float64),
        baseline=Reference(accuracies[choice], latencies[main].baseline.median_us, macs.baseline),
        exit_accuracy=traces[choice].correct.double().mean(dim=0),
    )
    return Report(
        experiment=settings.experiment,
        seed=settings.seed,
        protocol=settings.protocol,
        engine=main,
        threads=settings.threads,
        machine=evidence.machine,
        versions=evidence.versions,
        criterion=settings.criterion,
        num_classes=len(evidence.classes),
        classes=evidence.classes,
        trace_val=traces["val"],
        trace_test=traces[split],
        baseline_accuracy=accuracies[split],
        baseline_val_accuracy=accuracies["val"],
        macs=macs,
        latencies={engine: latencies[engine] for engine in settings.engines},
        points_val=points["val"],
        points_test=points[split],
        frontier=pareto(points[choice].mean_cost(exit_us), points[choice].accuracy),
        selection=selection,
        rule=settings.rule,
        verified={},
        baseline_correct=evidence.baseline_correct[split],
        baseline_val_correct=evidence.baseline_correct["val"],
        # Which of the validation images are not the published ones is not told.
        inexact_test=evidence.inexact_test if split == "test" else torch.empty(0, dtype=torch.int64),
        inexact_training=evidence.inexact_training if split == "test" else 0,
        split=split,
    )


def verify(report: Report, name: str, network: BranchedNetwork, trunk: nn.Module, data: Any) -> Verified:
    """Run the report's operating point over its split for real, sample by sample, on the engine `name`."""
    criterion = get_criterion(report.criterion)
    thresholds = report.points_test.thresholds[report.index].tolist()
    engine = make_engine(name, network, criterion, thresholds, data.input_shape, report.threads)
    baseline = make_classifier(name, trunk, data.input_shape, report.threads)
    x, y = data.split(report.split)
    run = run_for_real(engine, baseline, x.numpy(), report.threads)
    trace = report.trace_test
    differences = compare(run.outcome, trace.uncertainty.numpy(), trace.prediction.numpy(), engine.thresholds)
    if name == traced_by(report.engine) == "torch" and differences.unexplained:
        # The trace is of the same network in the same library: this would be a bug of ours.
        raise RuntimeError(f"{differences.unexplained} samples did not leave where the sweep says")
    taken = torch.from_numpy(run.outcome.exit)
    return Verified(
        accuracy=float((torch.from_numpy(run.outcome.prediction) == y).double().mean()),
        exit_rates=tuple((taken.bincount(minlength=network.num_exits).double() / len(taken)).tolist()),
        latency_us=run.latency_us,
        latency_iqr_us=run.latency_iqr_us,
        baseline_latency_us=run.baseline_latency_us,
        differences=differences.differences,
        near_threshold=differences.near_threshold,
        unexplained=differences.unexplained,
    )


def traced_by(engine: str) -> str:
    """Whose outputs are swept where an operating point is for `engine`: its own, or PyTorch's."""
    return engine if engine in OWN_OUTPUTS else "torch"


def own_trace(
    settings: SweepSettings,
    network: BranchedNetwork,
    split: tuple[Tensor, Tensor],
    input_shape: tuple[int, int, int],
) -> Trace:
    """The trace of a split, (images (S, C, H, W), labels (S,)), from the engine of the choice at batch 1."""
    x, y = split
    thresholds = forced(0, network.num_exits)
    criterion = get_criterion(settings.criterion)
    engine = make_engine(settings.engines[0], network, criterion, thresholds, input_shape, settings.threads)
    uncertainty, prediction = trace_engine(engine, x.numpy())
    return Trace(torch.from_numpy(uncertainty), torch.from_numpy(prediction), y)


def trace_split(network: nn.Module, split: tuple[Tensor, Tensor], criterion: Criterion) -> Trace:
    """The trace of a split, (images (S, C, H, W), labels (S,))."""
    x, y = split
    return compute_trace(network, zip(x.split(CHUNK), y.split(CHUNK), strict=True), criterion)


def trunk_correct(trunk: nn.Module, split: tuple[Tensor, Tensor]) -> Tensor:
    """(S,) bool: which samples of a split, (images (S, C, H, W), labels (S,)), the undivided network gets right."""
    x, y = split
    with torch.inference_mode():
        answers = [trunk(part).argmax(dim=1) for part in x.split(CHUNK)]
    return torch.cat(answers) == y
