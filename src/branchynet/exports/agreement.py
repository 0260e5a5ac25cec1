"""The proof of an export: its answers, from another process, against the network's own.

Shapes: C channels, H, W, N exits, P threshold vectors, S samples.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from branchynet.exits.criteria import Criterion
from branchynet.exits.sweep import Differences, compare
from branchynet.exits.trace import run_all
from branchynet.exports.manifest import Manifest
from branchynet.exports.replay import replay
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.base import forced
from branchynet.runtime.steps import exit_steps


@dataclass(frozen=True)
class Agreement:
    """How an export's answers to S images compare with the network's."""

    images: int
    operating_point: Differences  # with the manifest's thresholds
    elsewhere: Differences  # with half leaving at every exit, and with all at exit 1, 2 … N, added up
    uncertainty: float  # the largest difference in all of these
    confidence: float


def agreement(
    folder: Path,
    network: BranchedNetwork,
    criteria: Sequence[Criterion],
    manifest: Manifest,
    x: np.ndarray,
    normalised: Iterable[Tensor],
) -> Agreement:
    """Run an export in a process of its own, without PyTorch where its format allows, and compare.

    Every exit is compared, whatever the operating point makes of it.

    Args:
        folder: the export's.
        network: N exits, in eval mode, on the CPU.
        criteria: N.
        manifest: of the export.
        x: (S, C, H, W) uint8: what the export is given.
        normalised: the same images, in batches (B, C, H, W) float32, as in training and not by the export's own
            code: what the network is given.
    """
    outputs = run_all(exit_steps(network, criteria), normalised)
    last = network.num_exits - 1
    halves = np.median(outputs.uncertainty[:, :last].numpy(), axis=0)
    points = [manifest.thresholds, halves, *(forced(n, last + 1) for n in range(last + 1))]
    answers = replay(folder, x, np.array(points, np.float32), trust=manifest.format == "torch")
    found = [
        compare(
            outputs,
            list(thresholds),
            torch.from_numpy(answer.exit_index),
            torch.from_numpy(answer.prediction),
        )
        for answer, thresholds in zip(answers, points, strict=True)
    ]

    def largest(name: str) -> float:
        """The largest difference of a field of the answers."""
        expected, rows = getattr(outputs, name).numpy(), np.arange(len(x))
        return max(
            float(np.abs(getattr(answer, name) - expected[rows, answer.exit_index]).max())
            for answer in answers
        )

    return Agreement(
        images=len(x),
        operating_point=found[0],
        elsewhere=Differences(*(sum(column) for column in zip(*map(astuple, found[1:]), strict=True))),
        uncertainty=largest("uncertainty"),
        confidence=largest("confidence"),
    )
