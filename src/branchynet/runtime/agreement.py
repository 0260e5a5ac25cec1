"""The proof of an export: its answers, from another process, against the network's own.

Shapes: C channels, H, W, N exits, P threshold vectors, S samples.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from branchynet.exits.criteria import get_criterion
from branchynet.networks.branched import BranchedNetwork
from branchynet.runtime.engine import Outcome, forced
from branchynet.runtime.manifest import Manifest
from branchynet.runtime.replay import replay
from branchynet.runtime.verify import Differences, compare

CHUNK = 500  # images per forward pass


@dataclass(frozen=True)
class Agreement:
    """How an export's answers to S images compare with the network's."""

    images: int
    operating_point: Differences  # with the manifest's thresholds
    elsewhere: Differences  # with half leaving at every exit, and with all at exit 1, 2 … N, added up
    uncertainty: float  # the largest difference in all of these
    confidence: float


def agreement(
    folder: Path, network: BranchedNetwork, manifest: Manifest, x: np.ndarray, normalised: Tensor
) -> Agreement:
    """Run an export in a process of its own, without PyTorch where its format allows, and compare.

    Every exit is compared, whatever the operating point makes of it.

    Args:
        folder: the export's.
        network: N exits, in eval mode, on the CPU.
        x: (S, C, H, W) uint8: what the export is given.
        normalised: the same images, float32, as in training and not by the export's own code: what the network
            is given.
    """
    criterion = get_criterion(manifest.criterion)
    with torch.inference_mode():
        parts = [network(part) for part in normalised.split(CHUNK)]
        logits = [torch.cat(one_exit) for one_exit in zip(*parts, strict=True)]
        prediction = torch.stack([out.argmax(dim=1) for out in logits], dim=1).numpy()
        uncertainty = torch.stack([criterion(out) for out in logits], dim=1).numpy()
        confidence = torch.stack([out.softmax(dim=1).amax(dim=1) for out in logits], dim=1).numpy()
    last = len(logits) - 1
    halves = np.median(uncertainty[:, :last], axis=0)
    points = [manifest.thresholds, halves, *(forced(n, last + 1) for n in range(last + 1))]
    answers = replay(folder, x, np.array(points, np.float32), trust=manifest.format == "torch")
    rows = np.arange(len(x))
    found = [
        compare(Outcome(*answer[:3]), uncertainty, prediction, thresholds)
        for answer, thresholds in zip(answers, points, strict=True)
    ]
    return Agreement(
        images=len(x),
        operating_point=found[0],
        elsewhere=Differences(*(sum(column) for column in zip(*map(_numbers, found[1:]), strict=True))),
        uncertainty=max(float(np.abs(a.uncertainty - uncertainty[rows, a.exit]).max()) for a in answers),
        confidence=max(float(np.abs(a.confidence - confidence[rows, a.exit]).max()) for a in answers),
    )


def _numbers(found: Differences) -> tuple[int, int, int]:
    return found.differences, found.near_threshold, found.unexplained
