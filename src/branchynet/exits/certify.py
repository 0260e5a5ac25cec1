"""What samples say of a mean: p-values, tests in a fixed order, and how many samples are needed. Arithmetic alone.

A p-value here is of the null hypothesis that a mean over new samples is **above** a limit: where that is so, it is
at most α with a probability of at most α, over the draw of the samples, whatever their distribution and number.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
from scipy.special import bdtr, bdtri

# Of δ, what the number of samples that differ at all may be misjudged with, see `net_p`.
NUISANCE = 0.05
# More samples than this are not asked for: nobody has them.
MANY = 10**8


def binomial_p(count: int, samples: int, limit: float) -> float:
    """Of losses that are 0 or 1, `count` of them 1: exact.

    >>> f"{binomial_p(40, 5000, 0.01):.4f} {binomial_p(41, 5000, 0.01):.4f}"
    '0.0850 0.1111'
    """
    return float(bdtr(count, samples, limit)) if limit < 1 else 0.0


def hoeffding_bentkus_p(mean: float, samples: int, limit: float) -> float:
    """Of losses between 0 and 1 whose mean is `mean` (Bates et al., 2021; Angelopoulos et al., 2021).

    The lesser of Hoeffding's bound and Bentkus' one, e times a binomial tail. Both hold for the worst distribution.
    """
    if limit >= 1:
        return 0.0
    if limit <= 0 or mean >= limit:
        return 1.0
    divergence = (mean * math.log(mean / limit) if mean > 0 else 0.0) + (1 - mean) * math.log(
        (1 - mean) / (1 - limit)
    )
    bentkus = math.e * float(bdtr(math.ceil(samples * mean), samples, limit))
    return min(math.exp(-samples * divergence), bentkus, 1.0)


def net_p(harmful: int, helpful: int, samples: int, limit: float, delta: float) -> float:
    """Of losses that are 1 (`harmful`), -1 (`helpful`) or 0, for a test at the level `delta`.

    The sum of the losses has a known distribution, but for d, the probability that a loss is not 0: given d, the
    null hypothesis is at its worst where the mean is at the limit. So d is bounded from above by an exact (Clopper
    and Pearson) bound that fails with a probability of γ = NUISANCE · δ, the p-value is taken there, and γ is added
    (Berger and Boos, 1994). A lower d gives a lower p-value: by d, P(sum ≤ x) has the derivative
    n/2 · [P(rest = x + 1) - P(rest = x)], `rest` being the sum of n - 1 losses. For d ≤ 1/2 that is, up to a shift,
    a sum of independent indicators (the generating polynomial of a loss has real roots), so unimodal with its mode
    less than 1 from its mean (Darroch, 1964), and the derivative is not below 0 for x ≤ (n - 1) · limit - 2.
    Elsewhere 1 is returned.
    """
    gamma = NUISANCE * delta
    total, differing = harmful - helpful, harmful + helpful
    # The d at which so few differ with a probability of γ.
    d = float(bdtri(differing, samples, gamma)) if differing < samples else 1.0
    d = max(d, limit)
    if d > 0.5 or total > (samples - 1) * limit - 2:
        return 1.0
    number = np.arange(samples + 1)  # of losses that are not 0
    weight = np.diff(bdtr(number, samples, d), prepend=0.0)
    there = weight > 0
    number, weight = number[there], weight[there]
    # Of these losses, those that are 1, each with the same probability: at most so many give at most that sum.
    most = np.floor((total + number) / 2)
    tail = np.where(most < 0, 0.0, bdtr(np.clip(most, 0, number), number, (1 + limit / d) / 2))
    return min(1.0, float(weight @ tail) + gamma)


def certified(p_values: Iterable[float], delta: float) -> list[float]:
    """The p-values of those that are certified: of a fixed sequence all before the first one above δ.

    Each is tested at the whole of δ, for none after a refusal is looked at: so with a probability of at most δ is
    there one among them whose null hypothesis is true (fixed-sequence testing, see Angelopoulos et al., 2021).
    The order is not to hang on the samples that the p-values are of.

    >>> certified([0.01, 0.09, 0.2, 0.01], 0.1)
    [0.01, 0.09]
    """
    found = []
    for p in p_values:
        if p > delta:
            break
        found.append(p)
    return found


def samples_needed(p_value: Callable[[int], float], delta: float) -> int | None:
    """How many samples make a p-value at most δ, give or take rounding; None: not even a hundred million do.

    Args:
        p_value: by the number of samples; falling, but for rounding.

    >>> samples_needed(lambda samples: binomial_p(0, samples, 0.01), 0.1)
    230
    """
    high = 1
    while p_value(high) > delta:
        high *= 2
        if high > MANY:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if p_value(middle) <= delta else (middle, high)
    return high
