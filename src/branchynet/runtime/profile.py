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


@dataclass(frozen=True)
class Validation:
    """What the exits said on validation, at the network's own thresholds: few enough numbers for a manifest.

    An exit's `sure_below` is the uncertainty below which as many samples lie as it gets right. The share of other
    samples below it estimates its accuracy there without their labels (ATC: Garg et al., 2022).
    """

    samples: int  # S
    exit_rates: tuple[float, ...]  # N
    disagreement: float  # share of samples whose answer is not the last exit's
    uncertainty: tuple[tuple[float, ...], ...]  # N-1, over all samples: each exit's quantiles, rising
    sure_below: tuple[float, ...]  # N


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
    levels = np.linspace(0, 1, QUANTILES + 1)
    return Validation(
        samples=samples,
        exit_rates=tuple((np.bincount(taken, minlength=exits) / samples).tolist()),
        disagreement=float(np.mean(answers != prediction[:, -1])),
        uncertainty=tuple(
            tuple(map(decimal, np.quantile(uncertainty[:, n], levels, method="inverted_cdf").tolist()))
            for n in range(exits - 1)
        ),
        sure_below=tuple(_sure_below(uncertainty[:, n], int(right[:, n].sum())) for n in range(exits)),
    )


def exit_indices(uncertainty: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """(S,) from 0: where samples leave whose uncertainties (S, N) are known at every exit."""
    sure = np.ones(uncertainty.shape, bool)
    sure[:, :-1] = uncertainty[:, :-1] < np.asarray(thresholds, np.float32)
    return sure.argmax(axis=1)


def _sure_below(uncertainty: np.ndarray, right: int) -> float:
    """A number with `right` of the uncertainties (S,) below it."""
    rising = np.sort(uncertainty)
    return decimal(rising[right]) if right < len(rising) else 2 * decimal(rising[-1]) + 1
