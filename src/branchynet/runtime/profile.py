"""What is known of a network at run time: what its exits cost, and what they said on validation. No PyTorch here.

Shapes: N exits, S samples.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from branchynet.exits.certificate import Certificate
from branchynet.exits.point import decimal

QUANTILES = 100  # of an exit's uncertainty: at 0, 1, … 100 %
BINS = 20


@dataclass(frozen=True)
class Validation:
    """What the exits said on validation, at the network's own thresholds: few enough numbers for a manifest.

    `bins` and `right` say how often an exit is right by how unsure it is: in as many equal parts of the samples.
    """

    samples: int  # S
    exit_rates: tuple[float, ...]  # N
    disagreement: float  # share of samples whose answer is not the last exit's
    uncertainty: tuple[tuple[float, ...], ...]  # N-1, over all samples: each exit's quantiles, rising
    bins: tuple[tuple[float, ...], ...]  # N, the uncertainties between the parts, rising
    right: tuple[tuple[float, ...], ...]  # N, the share of each part that the exit is right about


@dataclass(frozen=True)
class Profile:
    """Of a run or an export.

    Args:
        thresholds: N-1, the network's own.
        costs: by name, `latency_us` and `macs`: what leaving at each of the N exits costs.
        validation: what the exits said there.
        most: the largest uncertainty that there can be; None: not known.
        certified: N-1 thresholds that something is promised for; None: nothing is.
    """

    thresholds: tuple[float, ...]
    costs: Mapping[str, tuple[float, ...]]
    validation: Validation
    most: float | None = None
    certified: tuple[float, ...] | None = None

    @property
    def num_exits(self) -> int:
        """N."""
        return len(self.validation.exit_rates)

    def mean_cost(self, cost: str) -> float:
        """Per sample of validation, at the network's own thresholds."""
        rates = self.validation.exit_rates
        return math.fsum(rate * each for rate, each in zip(rates, self.costs[cost], strict=True))

    @cached_property
    def fingerprint(self) -> str:
        """Of what a controller's positions depend on: equal for a run and for its exports."""
        content: Any = [list(self.thresholds), asdict(self.validation), self.most]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def certified_by(certificate: Certificate | None, thresholds: tuple[float, ...]) -> tuple[float, ...] | None:
    """The thresholds above which a certificate ends; None: there is none, or it is of a cost, which they lower."""
    return thresholds if certificate is not None and certificate.against else None


def validation_of(uncertainty: Any, prediction: Any, right: Any, thresholds: Sequence[float]) -> Validation:
    """Put together what the exits said.

    Args:
        uncertainty: (S, N) float32, as array or tensor.
        prediction: (S, N) int64.
        right: (S, N) bool.
        thresholds: N-1.
    """
    uncertainty, prediction, right = (np.asarray(each) for each in (uncertainty, prediction, right))
    samples, exits = uncertainty.shape
    taken = exit_indices(uncertainty, thresholds)
    answers = np.take_along_axis(prediction, taken[:, None], axis=1)[:, 0]
    levels, parts = np.linspace(0, 1, QUANTILES + 1), np.linspace(0, 1, BINS + 1)[1:-1]
    bins = tuple(_quantiles(uncertainty[:, n], parts) for n in range(exits))
    return Validation(
        samples=samples,
        exit_rates=tuple((np.bincount(taken, minlength=exits) / samples).tolist()),
        disagreement=float(np.mean(answers != prediction[:, -1])),
        uncertainty=tuple(_quantiles(uncertainty[:, n], levels) for n in range(exits - 1)),
        bins=bins,
        right=tuple(_right(uncertainty[:, n], right[:, n], bins[n]) for n in range(exits)),
    )


def exit_indices(uncertainty: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """(S,) from 0: where samples leave whose uncertainties (S, N) are known at every exit."""
    sure = np.ones(uncertainty.shape, bool)
    sure[:, :-1] = uncertainty[:, :-1] < np.asarray(thresholds, np.float32)
    return sure.argmax(axis=1)


def bin_of(uncertainty: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """(S,) which part of validation's samples each is as unsure as."""
    return np.searchsorted(np.asarray(edges, np.float32), uncertainty, side="right")


def _quantiles(uncertainty: np.ndarray, levels: np.ndarray) -> tuple[float, ...]:
    return tuple(map(decimal, np.quantile(uncertainty, levels, method="inverted_cdf").tolist()))


def _right(uncertainty: np.ndarray, right: np.ndarray, edges: Sequence[float]) -> tuple[float, ...]:
    part = bin_of(uncertainty, edges)
    counts = np.bincount(part, minlength=BINS)
    found = np.bincount(part, right, minlength=BINS) / np.maximum(counts, 1)
    # Where many are as unsure, parts between them are empty: nothing is known of those.
    return tuple(np.where(counts > 0, found, right.mean()).tolist())
