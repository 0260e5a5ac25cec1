"""Temperature scaling finds the temperature that the logits were made with."""

import pytest
import torch

from branchynet.errors import UserError
from branchynet.exits.criteria import Entropy, MaxProbability, for_exits
from branchynet.exits.learned import Logistic
from branchynet.exits.patience import Patience
from branchynet.exits.temperature import LEAST, MOST, Temperature


def drawn(samples=4000):
    """Logits, and labels drawn from their softmax."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(samples, 5, generator=generator)
    return logits, logits.softmax(dim=1).multinomial(1, generator=generator)[:, 0]


def fitted(logits, label, of=None):
    (own,) = for_exits(Temperature(of), [(3,)], 5)
    own.fit(logits, label)
    return own


@pytest.mark.parametrize("t", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("of", [Entropy(), MaxProbability()])
def test_the_temperature_is_found(t, of):
    logits, label = drawn()
    own = fitted(logits * t, label, of)
    assert own.temperature.item() == pytest.approx(t, rel=0.06)
    assert own.note() == f"temperature {own.temperature.item():.3g}"
    torch.testing.assert_close(own(logits * t), of(logits * t / own.temperature))
    assert own.unit == of.unit and own.largest(5) == of.largest(5) and own.name == "temperature"
    assert own.of_probability is of.of_probability


def test_no_temperature_is_better_a_little_to_either_side():
    logits, label = drawn()
    found = fitted(3 * logits, label).temperature

    def loss(t):
        return torch.nn.functional.cross_entropy(3 * logits / t, label)

    assert loss(found) < min(loss(found * 1.02), loss(found / 1.02))


def test_without_a_wrong_answer_nothing_is_learned_and_worse_than_guesses_has_an_end():
    logits, _ = drawn(100)
    own = fitted(logits, logits.argmax(1))
    assert own.temperature == 1 and own.note() == "temperature 1, for no answer is wrong"
    assert torch.equal(own(logits), Entropy()(logits))
    worst = fitted(logits, logits.argmin(1))
    assert worst.temperature == MOST > LEAST and worst(logits).isfinite().all()


@pytest.mark.parametrize("of", [Logistic(), Patience(), Temperature(), "words"])
def test_what_it_cannot_be_of(of):
    with pytest.raises(UserError, match=r"^of=.*: it is a criterion of logits alone that learns nothing"):
        Temperature(of)
    assert Temperature().least(10) == 20
