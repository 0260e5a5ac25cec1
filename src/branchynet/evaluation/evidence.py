"""All that a choice is made from: what exits say of every sample, what leaving costs, what the baseline gets right.

Shapes: C channels, H, W, N exits, S samples.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from branchynet.data.batches import at_once
from branchynet.errors import UserError
from branchynet.evaluation.fitting import Fitting, Unseen
from branchynet.evaluation.noise import Noise, company, worst
from branchynet.evaluation.settings import Measuring
from branchynet.exits.combining import Shares
from branchynet.exits.criteria import Criterion, check_state, check_uncertainty, one_per_exit
from branchynet.exits.maps import MapTrace
from branchynet.exits.task import CLASSIFICATION, Task
from branchynet.exits.trace import Trace
from branchynet.networks.branched import BranchedNetwork, undivided
from branchynet.runtime.base import Backend, forced
from branchynet.runtime.costs import Latencies, Macs, count_macs, describe_machine, measure_latencies
from branchynet.runtime.for_inference import for_inference
from branchynet.runtime.others import free_cores, others, read
from branchynet.runtime.steps import steps_for_inference
from branchynet.runtime.trace_engine import trace_engine

FEW = 16  # images that a criterion is tried on
PYTORCH = "torch"  # whose outputs serve for every exact engine


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a choice is made from. Splits are `val` and `test`; S samples each, in the data set's order.

    Validation images that something was fitted on are none of them: nothing is chosen on those.
    """

    classes: tuple[str, ...]
    traces: Mapping[str, Trace]
    baseline_correct: Mapping[str, Tensor]  # (S,), as `Trace.correct`: what the network of stage 1 gets right
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
    fitting: Fitting | None = (
        None  # the images that shares or criteria were fitted on; None: nothing was fitted
    )
    baseline_maps: Mapping[str, MapTrace] = field(default_factory=dict)  # see Report


def gather(
    measuring: Measuring,
    network: BranchedNetwork,
    criteria: Sequence[Criterion],
    baseline: BranchedNetwork,
    data: Any,
    fitting: Fitting | None = None,
    task: Task = CLASSIFICATION,
) -> Evidence:
    """Run every exit on both splits, count MACs, measure latencies.

    Args:
        measuring: engines, threads and seconds.
        network: N exits, in eval mode, on the CPU.
        criteria: N.
        baseline: its trunk and last head are the baseline; in eval mode, on the CPU.
        data: has `labels`, `batches`, `images`, `inexact`, `input_shape` and `classes`, as
            `branchynet.data.module.ImageData` has.
        fitting: the images that the network's shares or the criteria were fitted on.
        task: what the network is asked for.
    """
    engine, unseen = measuring.engines[0], Unseen(data, fitting)
    trunk = baseline.trunk().eval()
    traces, correct = {}, {}
    baseline_maps: dict[str, MapTrace] = {}
    for which in ("val", "test"):
        label, batches = unseen.labels(which), partial(unseen.normalised, which)
        if engine.exact:
            traces[which] = trace(network, criteria, batches(), label, task)
            whole = baseline_trace(trunk, criteria[-1], batches(), label, task)
            correct[which] = whole.correct[:, 0]
            if isinstance(whole, MapTrace):
                baseline_maps[which] = whole
        else:
            own = partial(own_trace, engine, measuring.threads, batches, label, data.input_shape)
            traces[which] = own(network, criteria)
            correct[which] = own(undivided(trunk), criteria[-1:]).correct[:, 0]
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
        inexact_training=sum(len(data.inexact(which)) for which in ("train", "val", "calibration")),
        shares=network.shares,
        noise=noise,
        fitting=fitting,
        baseline_maps=baseline_maps,
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
    network: BranchedNetwork,
    criterion: Criterion | Sequence[Criterion],
    images: Tensor | Iterable[Tensor],
    label: Tensor,
    task: Task = CLASSIFICATION,
) -> Trace:
    """What every exit says of S images, as PyTorch's engine would: all that a sweep needs.

    Args:
        network: N exits, on the CPU; it runs in evaluation mode, and keeps its own.
        criterion: one for all exits, or N of them.
        images: (S, C, H, W) float32, normalised as in training; or batches of them, one after another, where all
            of them are too many for memory.
        label: (S,) int64; of maps (S, H, W).
        task: what the network is asked for.
    """
    criteria = one_per_exit(criterion, network.num_exits)
    steps = steps_for_inference(network, criteria)
    averaged = network.shares is not None
    batches = images.split(at_once(images.shape[1:])) if isinstance(images, Tensor) else images

    def check(uncertainty: Tensor, confidence: Tensor) -> None:
        for n, own in enumerate(criteria):
            if not confidence[:, n].isfinite().all():
                raise UserError(
                    f"the network's outputs at exit {n + 1} are not finite: train it again, more slowly"
                )
            check_uncertainty(own, n + 1, uncertainty[:, n], len(label))

    functions = [step.function(own=averaged) for step in steps]
    return task.trace(functions, batches, label, averaged, check)


@torch.no_grad()
def try_criterion(criterion: Criterion, network: BranchedNetwork, data: Any) -> None:
    """Let a criterion judge some images by a network that is not trained yet: what is wrong with it shows at once.

    One that learns has learned nothing yet, and is left alone.

    Args:
        criterion: as its settings made it.
        network: N exits, on the CPU.
        data: as of `gather`.

    Raises:
        UserError: it gives no uncertainties.
    """
    if criterion.learns:
        return
    x, _ = next(iter(data.batches("val", FEW)))
    criteria = [criterion] * network.num_exits
    handed: list[Tensor] = []
    for n, step in enumerate(steps_for_inference(network, criteria)):
        width = handed[-1].shape[1] if step.takes.state else None
        x, logits, uncertainty, *handed = step(x, *handed)
        if logits.isfinite().all():
            check_uncertainty(criterion, n + 1, uncertainty, len(logits))
        if step.gives.state:
            check_state(criterion, n + 1, handed[-1], len(logits), width)


def own_trace(
    engine: Backend,
    threads: int,
    batches: Callable[[], Iterable[Tensor]],
    label: Tensor,
    input_shape: tuple[int, int, int],
    network: BranchedNetwork,
    criteria: Sequence[Criterion],
) -> Trace:
    """The trace of S samples from an engine at batch 1.

    Args:
        batches: gives the images, batches (B, C, H, W) float32 that add up to S, as often as it is called.
        label: (S,) int64.
    """

    def traced(network: BranchedNetwork) -> list[Tensor]:
        made = engine.engine(network, criteria, forced(0, network.num_exits), input_shape, threads)
        return [torch.from_numpy(found) for found in trace_engine(made, (x.numpy() for x in batches()))]

    uncertainty, prediction = traced(network)
    alone = None if network.shares is None else traced(network.with_shares(None))[1]
    for n, own in enumerate(criteria):
        check_uncertainty(own, n + 1, uncertainty[:, n], len(label))
    return Trace(uncertainty, prediction, label, alone)


def baseline_trace(
    trunk: nn.Module, criterion: Criterion, batches: Iterable[Tensor], label: Tensor, task: Task
) -> Trace:
    """What the undivided network says of S images, as if it were the one exit; uncertainties are of maps alone.

    Args:
        trunk: in eval mode, on the CPU.
        criterion: of the last exit.
        batches: images (B, C, H, W) float32 that add up to S.
        label: of S images.
        task: what the network is asked for.
    """
    if task.partly:
        return trace(undivided(trunk), criterion, batches, label, task)
    answers = trunk_answers(for_inference(trunk), batches)
    return Trace(torch.zeros(len(label), 1), answers[:, None], label)


def trunk_answers(trunk: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """(S,) int64: the classes that the undivided network gives images, batches of (B, C, H, W) float32."""
    with torch.inference_mode():
        answers = [trunk(x).argmax(dim=1) for x in batches]
    return torch.cat(answers)
