"""All that a choice is made from: what exits say of every sample, what leaving costs, what the baseline gets right.

Shapes: C channels, H, W, N exits, S samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from branchynet.errors import UserError, settings_of
from branchynet.evaluation.noise import Noise, company, worst
from branchynet.evaluation.settings import Measuring
from branchynet.exits.combining import Combining, Shares, answers
from branchynet.exits.criteria import Criterion, check_uncertainty, for_exits, one_per_exit
from branchynet.exits.trace import Trace, run_all
from branchynet.networks.branched import BranchedNetwork, undivided
from branchynet.runtime.base import Backend, forced
from branchynet.runtime.costs import Latencies, Macs, count_macs, describe_machine, measure_latencies
from branchynet.runtime.for_inference import for_inference
from branchynet.runtime.others import free_cores, others, read
from branchynet.runtime.steps import steps_for_inference
from branchynet.runtime.trace_engine import trace_engine

CHUNK = 1000  # images per forward pass of a trace
FEW = 16  # images that a criterion is tried on
PYTORCH = "torch"  # whose outputs serve for every exact engine


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
    shares: Shares | None = None  # of the exits' answers that the traces are of
    noise: tuple[
        Noise, ...
    ] = ()  # what disturbed the measuring of the latencies, as far as they do not show it


@torch.no_grad()
def find_shares(combining: Combining, network: BranchedNetwork, data: Any) -> Shares | None:
    """How much of each exit's answer is the answer before it, as `combining` says or fits it on validation.

    Args:
        combining: as its settings made it.
        network: N exits, in eval mode, on the CPU.
        data: as of `fit_criteria`.
    """

    def outputs() -> tuple[list[Tensor], Tensor]:
        x, label = data.split("val")
        parts = zip(*(network(part) for part in x.split(CHUNK)), strict=True)
        return [torch.cat(logits).float() for logits in parts], label

    with settings_of("combine"):
        combining.check(network.num_exits)
        return combining.find(network.num_exits, outputs)


@torch.no_grad()
def fit_criteria(criterion: Criterion, network: BranchedNetwork, data: Any) -> tuple[Criterion, ...]:
    """A criterion for each of N exits. What has something to learn learns it from the answers on validation.

    Args:
        criterion: as its settings made it.
        network: N exits, in eval mode, on the CPU.
        data: has `split`, `input_shape` and `classes`, as `branchynet.data.module.ImageData` has.
    """
    criteria = for_exits(criterion, network.feature_shapes(data.input_shape), len(data.classes))
    if not criterion.learns:
        return criteria
    x, label = data.split("val")
    parts = [network.with_features(part) for part in x.split(CHUNK)]
    heads = [torch.cat(logits) for logits in zip(*(part[0] for part in parts), strict=True)]
    for n, (own, logits) in enumerate(zip(criteria, answers(heads, network.shares), strict=True)):
        features = torch.cat([part[1][n] for part in parts]) if own.of_features else None  # type: ignore[misc]
        with torch.enable_grad():
            own.fit(logits.float(), label, features)
        own.requires_grad_(False)
    return criteria


def gather(
    measuring: Measuring,
    network: BranchedNetwork,
    criteria: Sequence[Criterion],
    baseline: BranchedNetwork,
    data: Any,
) -> Evidence:
    """Run every exit on both splits, count MACs, measure latencies.

    Args:
        measuring: engines, threads and seconds.
        network: N exits, in eval mode, on the CPU.
        criteria: N.
        baseline: its trunk and last head are the baseline; in eval mode, on the CPU.
        data: has `split`, `inexact`, `input_shape` and `classes`, as `branchynet.data.module.ImageData` has.
    """
    engine = measuring.engines[0]
    trunk = baseline.trunk().eval()
    traces, correct = {}, {}
    for which in ("val", "test"):
        split = data.split(which)
        if engine.exact:
            traces[which] = trace(network, criteria, *split)
            correct[which] = trunk_correct(for_inference(trunk), split)
        else:
            whole = undivided(trunk)
            traces[which] = own_trace(engine, measuring.threads, network, criteria, split, data.input_shape)
            on_engine = own_trace(engine, measuring.threads, whole, criteria[-1:], split, data.input_shape)
            correct[which] = on_engine.correct[:, 0]
    machine, versions = describe_machine(measuring.engines)
    latencies, noise = measure(measuring, network, criteria, trunk, data.input_shape)
    return Evidence(
        classes=tuple(data.classes),
        traces=traces,
        baseline_correct=correct,
        macs=count_macs(network, data.input_shape, criteria),
        latencies=latencies,
        machine=machine,
        versions=versions,
        inexact_test=data.inexact("test"),
        inexact_training=len(data.inexact("train")) + len(data.inexact("val")),
        shares=network.shares,
        noise=noise,
    )


def measure(
    measuring: Measuring,
    network: BranchedNetwork,
    criteria: Sequence[Criterion],
    trunk: nn.Module,
    input_shape: tuple[int, int, int],
) -> tuple[dict[str, Latencies], tuple[Noise, ...]]:
    """The latencies by engine, and whether others computed meanwhile."""
    begin = read()
    latencies = {
        each.name: measure_latencies(
            each, network, trunk, criteria, input_shape, measuring.threads, measuring.seconds
        )
        for each in measuring.engines
    }
    return latencies, worst([company(others(begin, read()), free_cores(measuring.threads))])


def traced_by(engine: Backend) -> str:
    """Whose outputs are swept where an operating point is for `engine`: its own, or PyTorch's."""
    return PYTORCH if engine.exact else engine.name


def trace(
    network: BranchedNetwork, criterion: Criterion | Sequence[Criterion], images: Tensor, label: Tensor
) -> Trace:
    """What every exit says of S images, as PyTorch's engine would: all that a sweep needs.

    Args:
        network: N exits, on the CPU; it runs in evaluation mode, and keeps its own.
        criterion: one for all exits, or N of them.
        images: (S, C, H, W) float32, normalised as in training.
        label: (S,) int64.
    """
    criteria = one_per_exit(criterion, network.num_exits)
    steps = steps_for_inference(network, criteria)
    averaged = network.shares is not None
    outputs = run_all([step.function(own=averaged) for step in steps], images.split(CHUNK))
    for n, own in enumerate(criteria):
        if not outputs.confidence[:, n].isfinite().all():
            raise UserError(
                f"the network's outputs at exit {n + 1} are not finite: train it again, more slowly"
            )
        check_uncertainty(own, n + 1, outputs.uncertainty[:, n], len(label))
    return Trace(outputs.uncertainty, outputs.prediction, label.cpu(), outputs.alone)


@torch.no_grad()
def try_criterion(criterion: Criterion, network: BranchedNetwork, data: Any) -> None:
    """Let a criterion judge some images by a network that is not trained yet: what is wrong with it shows at once.

    One that learns has learned nothing yet, and is left alone.

    Args:
        criterion: as its settings made it.
        network: N exits, on the CPU.
        data: as of `fit_criteria`.

    Raises:
        UserError: it gives no uncertainties.
    """
    if criterion.learns:
        return
    x = data.split("val")[0][:FEW]
    criteria = [criterion] * network.num_exits
    logits = None
    for n, step in enumerate(steps_for_inference(network, criteria)):
        x, logits, uncertainty = step(x, logits)
        if logits.isfinite().all():
            check_uncertainty(criterion, n + 1, uncertainty, len(logits))


def own_trace(
    engine: Backend,
    threads: int,
    network: BranchedNetwork,
    criteria: Sequence[Criterion],
    split: tuple[Tensor, Tensor],
    input_shape: tuple[int, int, int],
) -> Trace:
    """The trace of a split, (images (S, C, H, W), labels (S,)), from an engine at batch 1."""
    x, y = split

    def traced(network: BranchedNetwork) -> list[Tensor]:
        made = engine.engine(network, criteria, forced(0, network.num_exits), input_shape, threads)
        return [torch.from_numpy(found) for found in trace_engine(made, x.numpy())]

    uncertainty, prediction = traced(network)
    alone = None if network.shares is None else traced(network.with_shares(None))[1]
    for n, own in enumerate(criteria):
        check_uncertainty(own, n + 1, uncertainty[:, n], len(y))
    return Trace(uncertainty, prediction, y, alone)


def trunk_correct(trunk: nn.Module, split: tuple[Tensor, Tensor]) -> Tensor:
    """(S,) bool: which samples of a split, (images (S, C, H, W), labels (S,)), the undivided network gets right."""
    x, y = split
    with torch.inference_mode():
        answers = [trunk(part).argmax(dim=1) for part in x.split(CHUNK)]
    return torch.cat(answers) == y
