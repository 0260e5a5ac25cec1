"""Learned criteria: where entropy is all that there is they are entropy, where there is more they find it."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch.utils.flop_counter import FlopCounterMode

from branchynet.errors import UserError
from branchynet.exits.criteria import Entropy, for_exits
from branchynet.exits.learned import FEW, Learned, Logistic, Mlp, surer

BOTH = pytest.mark.parametrize("kind", [Logistic, Mlp])
SAMPLES, CLASSES = 800, 4


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(Mlp, "decays", (0.1, 0.01))
    monkeypatch.setattr(Mlp, "rounds", 4)


def drawn(seed, hidden=0.0, samples=SAMPLES):
    """Logits (S, K), labels and features (S, 3), where the label is drawn from the softmax itself: then nothing but
    the probabilities says which answer is right. `hidden`: how much the first feature says of it, too."""
    generator = torch.Generator().manual_seed(seed)
    scale = 0.3 + 3 * torch.rand(samples, 1, generator=generator)
    logits = torch.randn(samples, CLASSES, generator=generator) * scale
    features = torch.randn(samples, 3, generator=generator)
    # Sharper or flatter than they say, by a feature.
    truth = logits * (hidden * features[:, :1]).exp()
    label = truth.softmax(dim=1).multinomial(1, generator=generator)[:, 0]
    return logits, label, features


def fitted(criterion, logits, label, features):
    (own,) = for_exits(criterion, [tuple(features.shape[1:])], logits.shape[1])
    own.fit(logits, label, features if own.of_features else None)
    return own.requires_grad_(False)


def unsure(own, logits, features):
    return own(logits, features) if own.of_features else own(logits)


def area(uncertainty, logits, label):
    return roc_auc_score(logits.argmax(1) == label, -uncertainty)


@BOTH
@pytest.mark.parametrize("inputs", [["sorted_logits"], ["softmax", "sorted_logits", "features"]])
def test_where_entropy_is_the_best_there_is_nothing_is_lost(kind, inputs):
    """Two classes: whether an answer is right depends on the entropy alone."""
    logits, _, features = drawn(0)
    own = fitted(kind(inputs), logits[:, :2], two(logits, 1), features)
    test, _, more = drawn(1, samples=4000)
    found, best = unsure(own, test[:, :2], more), Entropy()(test[:, :2])
    label = two(test, 2)
    assert area(found, test[:, :2], label) >= area(best, test[:, :2], label) - 0.003
    if not own.note().startswith("AUROC"):
        assert (found[best.argsort()].diff() >= -1e-6).all(), "entropy, by another name"


def two(logits, seed):
    """Labels of the first two classes, drawn from their softmax."""
    generator = torch.Generator().manual_seed(seed)
    return logits[:, :2].softmax(dim=1).multinomial(1, generator=generator)[:, 0]


@BOTH
def test_where_features_say_more_it_is_found(kind):
    logits, label, features = drawn(0, hidden=1.0)
    test, true, more = drawn(1, hidden=1.0, samples=4000)
    entropy = area(Entropy()(test), test, true)
    own = fitted(kind(["sorted_logits", "features"]), logits, label, features)
    assert area(unsure(own, test, more), test, true) > entropy + 0.02
    held, of_entropy, _ = own.held_out.tolist()
    assert own.note() == f"AUROC on held-out samples {held:.3f}, of entropy {of_entropy:.3f}"
    assert held > of_entropy + 0.02
    # And it is p(right): of those that say 0.3 about 0.3 are wrong.
    found = unsure(own, test, more)
    for low in (0.1, 0.3, 0.5):
        among = (found > low) & (found < low + 0.2)
        assert (test.argmax(1) != true)[among].float().mean() == pytest.approx(low + 0.1, abs=0.1)


@BOTH
def test_noise_is_not_learned(kind):
    """As many inputs as there are wrong answers; they say nothing."""
    logits, label, _ = drawn(0, samples=300)
    noise = torch.randn(300, 60, generator=torch.Generator().manual_seed(5))
    own = fitted(kind(["features"]), logits, label, noise)
    test, true, _ = drawn(1, samples=4000)
    more = torch.randn(4000, 60, generator=torch.Generator().manual_seed(6))
    assert area(unsure(own, test, more), test, true) > area(Entropy()(test), test, true) - 0.005


@BOTH
@pytest.mark.parametrize(("wrong", "right"), [(0, 100), (100, 0), (FEW - 1, 100), (100, FEW - 1)])
def test_with_answers_of_one_kind_it_is_entropy_and_says_so(kind, wrong, right):
    logits, _, features = drawn(0, samples=wrong + right)
    label = logits.argmax(1)
    label[:wrong] = (label[:wrong] + 1) % CLASSES
    own = fitted(kind(), logits, label, features)
    assert (
        own.note() == f"entropy alone, for {right} right and {wrong} wrong answers are too few to learn from"
    )
    test = drawn(1)[0]
    found, entropy = own(test), Entropy()(test)
    order = entropy.argsort(stable=True)
    assert (found[order].diff() >= 0).all() and len(found.unique()) > 0.95 * len(entropy.unique())
    assert found.min() >= 0 and found.max() <= 1
    # Nothing of what was not learned is computed, here and where it is loaded again.
    (again,) = for_exits(kind(), [(3,)], CLASSES)
    again.load_state_dict(own.state_dict())
    for each in (own, again):
        with FlopCounterMode(display=False) as counter:
            assert torch.equal(each(test), found)
        assert counter.get_total_flops() == 2 * len(test)


def test_entropy_that_misleads_is_turned_around():
    """The surer, the more often wrong."""
    logits, _, features = drawn(0)
    wrong = torch.rand(SAMPLES) < torch.where(Entropy()(logits) < 0.7, 0.8, 0.2)
    label = torch.where(wrong, (logits.argmax(1) + 1) % CLASSES, logits.argmax(1))
    own = fitted(Logistic(), logits, label, features)
    assert area(own(logits), logits, label) > 0.7 > 0.3 > area(Entropy()(logits), logits, label)


def test_where_nothing_says_what_is_right_it_still_rises_with_entropy():
    """By chance the fitted slope falls for some."""
    logits = drawn(0, samples=120)[0]
    order, fallen = Entropy()(logits).argsort(), 0
    for seed in range(6):
        wrong = torch.rand(120, generator=torch.Generator().manual_seed(seed)) < 0.4
        label = torch.where(wrong, (logits.argmax(1) + 1) % CLASSES, logits.argmax(1))
        own = fitted(Logistic(), logits, label, logits[:, :3])
        if own.note().startswith("entropy alone"):
            assert (own(logits)[order].diff() >= -1e-6).all()
            fallen += own.base.weight.item() == -1
    assert fallen, "one of them would have fallen"


def test_it_is_scikit_learns_logistic_regression():
    """At the penalty that was chosen, on the same inputs, ln entropy unpenalised."""
    logits, label, features = drawn(0, hidden=1.0)
    (own,) = for_exits(Logistic(["features"]), [(3,)], CLASSES)
    own.decays, own.rounds = (0.01,), 20
    own.fit(logits, label, features)
    assert own.note().startswith("AUROC")
    with torch.no_grad():
        x = ((own.seen(logits, features) - own.mean) * own.scale).numpy()
        right = (logits.argmax(1) == label).numpy()
        # ln entropy once more, so large that its penalty is none.
        x = np.hstack([100 * x[:, :1], x]).astype(np.float64)
        theirs = LogisticRegression(C=1 / (0.01 * SAMPLES), solver="newton-cholesky", tol=1e-8).fit(x, right)
        expected = theirs.predict_proba(x)[:, 0]
        np.testing.assert_allclose(own(logits, features).numpy(), expected, atol=2e-3)


@BOTH
def test_the_surest_and_the_strangest_have_a_number(kind):
    logits, label, features = drawn(0, hidden=1.0, samples=200)
    own = fitted(kind(["softmax", "sorted_logits", "features"]), logits, label, features)
    strange = torch.cat([torch.eye(CLASSES) * 1e4, -torch.eye(CLASSES) * 1e4, torch.zeros(1, CLASSES)])
    for size in (0.0, 1e4, -1e4):
        found = own(strange, torch.full((9, 3), size))
        assert found.dtype == torch.float32 and found.isfinite().all() and (found >= 0).all()


def test_the_same_samples_give_the_same_criterion_and_leave_the_random_numbers_alone():
    before = torch.get_rng_state()
    first, second = (fitted(Mlp(), *drawn(0, samples=200)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    logits = drawn(1)[0]
    assert torch.equal(first(logits), second(logits))
    # What is stored is all that it is.
    (third,) = for_exits(Mlp(), [(3,)], CLASSES)
    assert not third.alone, "before it has learned, its cost is counted whole"
    third.load_state_dict(first.state_dict())
    assert torch.equal(third(logits), first(logits)) and third.note() == first.note()


@pytest.mark.parametrize(
    ("shape", "means"),
    [((2, 3, 4), (2, 3)), ((3, 3, 5), (1, 2)), ((6, 5), (1,)), ((7,), ())],
    ids=["maps", "channels last", "tokens", "vectors"],
)
def test_features_are_the_means_of_their_channels(shape, means):
    (own,) = for_exits(Logistic(["features"]), [shape], CLASSES)
    features = torch.randn(5, *shape)
    expected = features.mean(dim=means) if means else features
    torch.testing.assert_close(own.seen(torch.zeros(5, CLASSES), features)[:, 1:], expected)
    assert own(torch.zeros(5, CLASSES), features).shape == (5,)


def test_surer_is_the_area_one_wrong_answer_at_a_time():
    generator = torch.Generator().manual_seed(0)
    uncertainty = torch.randint(0, 20, (200,), generator=generator).double()
    right = torch.rand(200, generator=generator) < 0.7
    found = surer(uncertainty, right)
    assert len(found) == int((~right).sum())
    assert found.mean().item() == pytest.approx(roc_auc_score(right, -uncertainty))


@pytest.mark.parametrize("inputs", ["softmax", [], ["pixels"], None, [3]])
def test_inputs_that_there_are_not(inputs):
    with pytest.raises(
        UserError, match=r"^inputs=.*: it is a list of one or more of softmax, sorted_logits, feat"
    ):
        Logistic(inputs)


def test_more_settings_that_there_are_not():
    with pytest.raises(UserError, match=r"^hidden=0: it is a whole number, 1 … 1024"):
        Mlp(hidden=0)
    assert Logistic().largest(10) == 1 and Logistic().least(10) == 50 and Mlp().least(10) == 100
    assert not Logistic().of_features and Logistic(["features"]).of_features
    with pytest.raises(NotImplementedError):
        Learned().prepare(10, (3,))


def test_the_mean_of_each_channel_is_all_that_is_kept_of_maps(monkeypatch):
    """And what is learned from it is what is learned from the maps."""
    monkeypatch.setattr(Logistic, "decays", (0.1,))
    logits, label, features = drawn(0, hidden=1.0, samples=200)
    maps = features[:, :, None, None] + torch.randn(len(features), 3, 4, 4) / 10
    whole, kept = (Logistic(["features"]) for _ in range(2))
    whole, kept = fitted(whole, logits, label, maps), for_exits(kept, [(3, 4, 4)], logits.shape[1])[0]
    kept.fit(logits, label, torch.cat([kept.kept(part) for part in maps.split(70)]))
    assert kept.kept(maps).shape == (len(maps), 3) and torch.equal(kept(logits, maps), whole(logits, maps))
