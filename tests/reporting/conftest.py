"""Tiny reports whose every number can be worked out by hand.

S = 8 samples, N = 2 exits, K = 3 classes. Exit 1 is right on 5 of 8 samples, exit 2 on 7 of 8. Uncertainties
at exit 1 are 0.0, 0.1, … 0.7, so at the threshold 0.45 the first five samples leave there, four of them
rightly, and the other three leave at exit 2, all rightly: 7/8. Leaving at exit 1 takes 10 µs and 100 MACs, at
exit 2 50 µs and 500 MACs.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from branchynet.exits.rules import Selection
from branchynet.exits.sweep import evaluate
from branchynet.exits.trace import Trace
from branchynet.evaluation.report import Report, Verified
from branchynet.runtime.costs import Latencies, Latency, Macs


def trace_of(right: list[list[int]]) -> Trace:
    """N exits that are right where `right` (N, 8) is 1; exit n's uncertainties are 0, 0.1/n, … 0.7/n."""
    label = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    prediction = torch.where(torch.tensor(right).T == 1, label[:, None], (label[:, None] + 1) % 3)
    uncertainty = torch.stack([torch.arange(8) / (10 * n) for n in range(1, len(right) + 1)], 1)
    return Trace(uncertainty.float(), prediction, label)


def latency(median_us: float) -> Latency:
    return Latency(median_us=median_us, iqr_us=median_us / 8, runs=100)


def latencies(
    baseline: float, exits: list[float], static: list[float], trunk_only: list[float], factor: float = 1.0
) -> Latencies:
    def scaled(medians: list[float]) -> tuple[Latency, ...]:
        return tuple(latency(factor * median) for median in medians)

    return Latencies(latency(factor * baseline), scaled(exits), scaled(static), scaled(trunk_only))


TWO = trace_of([[1, 1, 1, 0, 1, 0, 0, 1], [1, 1, 0, 1, 1, 1, 1, 1]])
TWO_POINTS = evaluate(TWO, torch.tensor([[0.0], [0.25], [0.45], [0.9]]))
TWO_LATENCIES = (40.0, [10.0, 50.0], [8.0, 42.0], [4.0, 38.0])
BASE = Report(
    experiment="b_lenet_mnist",
    seed=3,
    protocol="validation",
    engine="onnxruntime",
    threads=1,
    machine="a machine",
    versions={"torch": "2.15.0"},
    criterion="entropy",
    num_classes=3,
    classes=("a", "b", "c"),
    trace_val=TWO,
    trace_test=TWO,
    baseline_accuracy=0.75,
    baseline_val_accuracy=0.75,
    macs=Macs(baseline=425, exits=(100, 500), static=(90, 445), trunk_only=(40, 400)),
    latencies={"onnxruntime": latencies(*TWO_LATENCIES), "torch": latencies(*TWO_LATENCIES, factor=3.0)},
    points_val=TWO_POINTS,
    points_test=TWO_POINTS,
    frontier=torch.tensor([3, 2, 1]),
    selection=Selection(index=2, feasible=True, cheaper=True, note=""),
    rule={"name": "accuracy_floor", "distance": 0.0},
    verified={
        "onnxruntime": Verified(
            accuracy=0.875,
            exit_rates=(0.625, 0.375),
            latency_us=30.0,
            latency_iqr_us=2.0,
            baseline_latency_us=45.0,
            differences=0,
            near_threshold=0,
            unexplained=0,
        )
    },
)


@pytest.fixture(scope="session")
def make_report() -> Callable[..., Report]:
    """The tiny report with some of its fields changed."""

    def make(**changes: Any) -> Report:
        return dataclasses.replace(BASE, **changes)

    return make


@pytest.fixture(scope="session")
def report() -> Report:
    return BASE


@pytest.fixture(scope="session")
def three_exits() -> Report:
    """The same with a third exit in between, right on 6 of 8; T = (0.25, 0.21): 3, 2 and 3 samples leave."""
    trace = trace_of([[1, 1, 1, 0, 1, 0, 0, 1], [1, 1, 0, 1, 1, 1, 0, 1], [1, 1, 0, 1, 1, 1, 1, 1]])
    points = evaluate(trace, torch.tensor([[0.0, 0.0], [0.25, 0.21], [0.9, 0.9]]))
    timed = latencies(40.0, [10.0, 30.0, 60.0], [8.0, 25.0, 42.0], [4.0, 20.0, 38.0])
    verified = dataclasses.replace(BASE.verified["onnxruntime"], exit_rates=(0.375, 0.25, 0.375))
    return dataclasses.replace(
        BASE,
        experiment="three",
        trace_val=trace,
        trace_test=trace,
        macs=Macs(425, (100, 300, 600), (90, 250, 445), (40, 200, 400)),
        latencies={"onnxruntime": timed},
        points_val=points,
        points_test=points,
        frontier=torch.tensor([2, 1]),
        selection=Selection(index=1, feasible=True, cheaper=True, note=""),
        verified={"onnxruntime": verified},
    )


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    """(8, 1, 6, 6) uint8."""
    return (torch.arange(8 * 36) % 256).to(torch.uint8).reshape(8, 1, 6, 6)
