"""OpenMax against its definition, a sample at a time in float64; and what is unlike every class."""

import numpy as np
import pytest
import torch
from scipy.stats import weibull_min

from branchynet.errors import UserError
from branchynet.exits.criteria import MaxProbability, for_exits
from branchynet.exits.openmax import OpenMax

CLASSES = 4


def drawn(samples, seed=0, spread=1.0):
    """Logits near 6 for their class and 0 for the others."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, CLASSES, (samples,), generator=generator)
    logits = 6 * torch.nn.functional.one_hot(label, CLASSES) + spread * torch.randn(
        samples, CLASSES, generator=generator
    )
    return logits.float(), label


def fitted(logits, label, **settings):
    (own,) = for_exits(OpenMax(**settings), [(3,)], CLASSES)
    own.fit(logits, label)
    return own


def reference(logits, label, queries, tail, alpha):
    """Algorithms 1 and 2, with logits less their mean."""
    logits, queries = (
        each.double().numpy() - each.double().numpy().mean(1, keepdims=True) for each in (logits, queries)
    )
    models = []
    for k in range(CLASSES):
        own = logits[(logits.argmax(1) == k) & (label.numpy() == k)]
        mean = own.mean(0)
        distance = np.sort(np.linalg.norm(own - mean, axis=1))
        start = distance[-tail - 1] if len(distance) > tail else 0.0
        shape, _, scale = weibull_min.fit(distance[-tail:] - start, floc=0)
        models.append((mean, start, shape, scale))
    found = []
    for row in queries:
        revised, unknown = row.copy(), 0.0
        for rank, k in enumerate(np.argsort(-row)[:alpha]):
            mean, start, shape, scale = models[k]
            too_far = weibull_min.cdf(np.linalg.norm(row - mean) - start, shape, scale=scale)
            lost = max(row[k], 0) * (alpha - rank) / alpha * too_far
            revised[k] -= lost
            unknown += lost
        p = np.exp([unknown, *revised])
        p /= p.sum()
        found.append(1 - p[1:].max())
    return np.array(found)


@pytest.mark.parametrize(("tail", "alpha"), [(20, 1), (20, 3), (500, 4)])
def test_it_is_its_definition(tail, alpha):
    logits, label = drawn(400)
    own = fitted(logits, label, tail=tail, alpha=alpha)
    queries = torch.cat([drawn(50, 1)[0], 3 * torch.randn(50, CLASSES)])
    found = own(queries)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), reference(logits, label, queries, tail, alpha), atol=2e-5)


def test_what_is_unlike_every_class_is_unknown_though_softmax_is_sure():
    own = fitted(*drawn(400))
    (far,) = own.probabilities(torch.tensor([[30.0, 29.0, 0.0, 0.0]]))
    (near,) = own.probabilities(torch.tensor([[6.0, 0.0, 0.0, 0.0]]))
    assert far[0] > 0.5 > 0.02 > near[0]
    assert far.sum().item() == pytest.approx(1) and len(far) == 1 + CLASSES
    alone = torch.tensor([[40.0, 0.0, 0.0, 0.0]])
    assert MaxProbability()(alone) < 1e-9 and own(alone) > 0.5


def test_before_it_has_learned_and_where_classes_have_too_few_it_is_the_softmax_of_one_class_more():
    logits, label = drawn(200)
    (own,) = for_exits(OpenMax(), [(3,)], CLASSES)
    # The unknown class has a logit of 0, which is the mean of the others.
    p = torch.cat([torch.zeros(200, 1), logits - logits.mean(1, keepdim=True)], dim=1).softmax(1)
    torch.testing.assert_close(own(logits), 1 - p[:, 1:].amax(1), atol=1e-6, rtol=1e-4)
    only = label != 2
    own = fitted(logits[only], label[only])
    assert own.known.tolist() == [1, 1, 0, 1]
    assert own.note() == "1 of 4 classes have too few right answers to be unlike"
    assert fitted(logits, label).note() == ""


def test_answers_that_are_all_alike_are_no_distribution():
    label = torch.arange(CLASSES).repeat(30)
    own = fitted(6.0 * torch.nn.functional.one_hot(label, CLASSES), label)
    assert own.known.sum() == 0 and own(torch.eye(CLASSES)).isfinite().all()


def test_the_surest_and_the_strangest_have_a_number():
    own = fitted(*drawn(400))
    strange = torch.cat([torch.eye(CLASSES) * 1e4, -torch.eye(CLASSES) * 1e4, torch.zeros(1, CLASSES)])
    found = own(strange)
    assert found.isfinite().all() and (found >= 0).all() and (found <= 1).all()
    assert own.largest(CLASSES) == 1 and own.least(10) == 100


@pytest.mark.parametrize(("settings", "words"), [({"tail": 4}, "tail=4"), ({"alpha": 0}, "alpha=0")])
def test_settings_that_there_are_not(settings, words):
    with pytest.raises(UserError, match=f"^{words}: it is a whole number"):
        OpenMax(**settings)
