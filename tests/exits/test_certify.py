"""P-values against MAPIE's numbers and by counting all outcomes; tests in a fixed order on known populations."""

import math

import numpy as np
import pytest
from scipy.special import bdtr
from scipy.stats import binom, multinomial

from branchynet.exits.certify import (
    binomial_p,
    certified,
    hoeffding_bentkus_p,
    net_p,
    samples_needed,
)

# Mean, samples, limit; compute_hoeffding_bentkus_p_value of MAPIE 1.6.0 with binary=True, and without.
MAPIE = [
    (0.008, 5000, 0.01, 0.0849926578860029, 0.23103399748395803),
    (0.0082, 5000, 0.01, 0.11110548413374059, 0.3020160185628918),
    (0.4, 500, 0.45, 0.013564369543760923, 0.03687177924530863),
    (0.31, 3500, 0.33, 0.006044722811390798, 0.016431260176275476),
    (0.0, 230, 0.01, 0.09910481551887337, 0.09910481551887337),
    (0.0, 229, 0.01, 0.10010587426148826, 0.10010587426148826),
    (0.2, 50, 0.3, 0.07885062482305619, 0.21433822061915533),
]


@pytest.mark.parametrize(("mean", "samples", "limit", "binary", "bounded"), MAPIE)
def test_p_values_are_mapies(mean, samples, limit, binary, bounded):
    assert binomial_p(round(mean * samples), samples, limit) == pytest.approx(binary, rel=1e-9)
    assert hoeffding_bentkus_p(mean, samples, limit) == pytest.approx(bounded, rel=1e-9)


def test_of_5000_samples_40_harmful_ones_are_certified_and_41_are_refused():
    assert binomial_p(40, 5000, 0.01) <= 0.1 < binomial_p(41, 5000, 0.01)
    assert binomial_p(40, 5000, 0.01) == pytest.approx(binom.cdf(40, 5000, 0.01), rel=1e-12)
    # Of the net loss 39 where nothing is helpful, and more where much is.
    assert net_p(39, 0, 5000, 0.01, 0.1) <= 0.1 < net_p(40, 0, 5000, 0.01, 0.1)
    assert net_p(80, 47, 5000, 0.01, 0.1) <= 0.1 < net_p(80, 46, 5000, 0.01, 0.1)


def test_limits_beyond_what_is_possible():
    assert binomial_p(5, 5, 1.0) == hoeffding_bentkus_p(1.0, 5, 1.0) == 0.0
    assert hoeffding_bentkus_p(0.0, 5, 0.0) == hoeffding_bentkus_p(0.5, 5, 0.5) == 1.0
    assert net_p(5, 0, 5, 0.1, 0.1) == net_p(0, 5, 5, 0.1, 0.1) == 1.0  # all differ: nothing is known


@pytest.mark.parametrize("limit", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("differing", [0.0, 0.1, 0.3, 0.5, 0.9])
def test_the_net_loss_is_seldom_certified_where_it_is_at_its_limit(limit, differing):
    """All outcomes are counted, so there is no sampling error."""
    samples, delta = 60, 0.1
    d = max(differing, limit)
    helpful, harmful = np.meshgrid(np.arange(samples + 1), np.arange(samples + 1))
    there = helpful + harmful <= samples
    outcomes = np.stack([harmful[there], helpful[there]], 1)
    rest = samples - outcomes.sum(1)
    chances = multinomial.pmf(
        np.column_stack([outcomes, rest]), samples, [(d + limit) / 2, (d - limit) / 2, 1 - d]
    )
    passed = [net_p(int(a), int(b), samples, limit, delta) <= delta for a, b in outcomes]
    assert chances @ passed <= delta


def draws(risks, samples, number=1000):
    """(number, J): how many of the samples are lost at each of J points, independently."""
    return np.random.default_rng(0).binomial(samples, risks, size=(number, len(risks)))


def test_of_1000_draws_at_most_delta_certify_what_loses_too_much():
    epsilon, delta, samples = 0.01, 0.1, 2000
    # Not monotone: after four safe points bad and good ones in turn.
    risks = np.array([0.001, 0.0, 0.002, 0.003, *[0.0105, 0.004] * 15])
    p_values = bdtr(draws(risks, samples), samples, epsilon)
    last = np.array([len(certified(row, delta)) - 1 for row in p_values])
    broken = (risks[last] > epsilon) & (last >= 0)
    slack = 3 * math.sqrt(delta * (1 - delta) / len(last))
    assert (last >= 3).mean() > 0.95, "what is safe is certified"
    assert 0 < broken.mean() <= delta + slack
    assert np.mean([(risks[: n + 1] > epsilon).any() for n in last]) <= delta + slack
    # Whoever goes on after a refusal takes a bad one far more often.
    skipping = np.array([np.flatnonzero(row <= delta).max() for row in p_values])
    skipped = [(risks[row <= delta] > epsilon).any() for row in p_values]
    assert np.mean(skipped) > 3 * delta and (skipping > last).mean() > 0.9


def test_samples_needed():
    assert samples_needed(lambda n: binomial_p(0, n, 0.01), 0.1) == 230
    assert 0.99**230 <= 0.1 < 0.99**229
    assert samples_needed(lambda n: 1.0, 0.1) is None
    assert samples_needed(lambda n: 0.0, 0.1) == 1
