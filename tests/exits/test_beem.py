"""Agreement-weighted confidence against the paper's sum in float64; what an exit weighs."""

import pytest
import torch

from branchynet.errors import UserError
from branchynet.exits.beem import Beem
from branchynet.exits.criteria import for_exits

EXITS, CLASSES = 4, 3


@pytest.fixture(scope="module")
def logits():
    """Four exits' (300, 3), the later ones surer, some surer than 1 - 1e-7."""
    torch.manual_seed(0)
    common = torch.randn(300, CLASSES)
    return [(common + 0.7 * torch.randn(300, CLASSES)) * (2.0 + 5 * n) for n in range(EXITS)]


def told(criteria, logits):
    """(S, N)."""
    state, found = None, []
    for criterion, out in zip(criteria, logits, strict=True):
        uncertainty, state = criterion(out, state)
        assert uncertainty.dtype == state.dtype == torch.float32 and state.shape == (len(out), 4)
        found.append(uncertainty)
    return torch.stack(found, dim=1)


def by_the_paper(weights, logits):
    """(S, N): what S_n falls short of the sum of the weights by, as a share of it, sample by sample."""
    rows = []
    for sample in zip(*(out.double().softmax(dim=1).tolist() for out in logits), strict=True):
        score, before, row = 0.0, None, []
        for n, p in enumerate(sample):
            said = p.index(max(p))
            score = weights[n] * max(p) + (score if said == before else 0.0)
            before = said
            row.append(1 - score / sum(weights[: n + 1]))
        rows.append(row)
    return torch.tensor(rows)


def test_depth_weighs_exit_n_by_n(logits):
    one = Beem()
    assert for_exits(one, [(8,)] * EXITS, CLASSES) == (one,) * EXITS and not one.learns
    found = told([one] * EXITS, logits)
    torch.testing.assert_close(found, by_the_paper([1, 2, 3, 4], logits), rtol=1e-5, atol=1e-6)
    assert ((found >= 0) & (found <= 1)).all()


def test_accuracy_weighs_an_exit_as_often_as_it_is_right(logits):
    label = logits[-1].argmax(dim=1)
    criteria = for_exits(Beem("accuracy"), [(8,)] * EXITS, CLASSES)
    right = [(out.argmax(dim=1) == label).double().mean().item() for out in logits]
    for criterion, out in zip(criteria, logits, strict=True):
        criterion.fit(out, label)
        assert list(criterion.state_dict()) == ["weight"]
    assert right[0] < right[-1] == 1
    found = told(criteria, logits)
    torch.testing.assert_close(found, by_the_paper(right, logits), rtol=1e-5, atol=1e-6)


def test_an_exit_that_is_never_right_still_weighs(logits):
    (criterion,) = for_exits(Beem("accuracy"), [(8,)], CLASSES)
    criterion.fit(logits[0], (logits[0].argmax(dim=1) + 1) % CLASSES)
    assert criterion.weight == pytest.approx(0.5 / 300) and told([criterion], logits[:1]).isfinite().all()


def test_very_sure_exits_keep_their_digits():
    """Three times 1 - 2e-9 and less: float32 has none of it below 1."""
    sure = torch.tensor([[20.0, 0.0], [30.0, 0.0]])
    found = told([Beem()] * 3, [sure] * 3)
    torch.testing.assert_close(found[:, 2], (-torch.tensor([20.0, 30.0])).exp(), rtol=1e-5, atol=0)


def test_disagreeing_begins_anew():
    """Exit 2 of weight 2 says another class with confidence 0.8: s_2 = 1.6, of 3."""
    logits = [torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.2, 0.8]]).log()]
    assert told([Beem()] * 2, logits).tolist() == [pytest.approx([0.1, 1 - 1.6 / 3], abs=1e-6)]
    agreeing = [logits[0], torch.tensor([[0.8, 0.2]]).log()]
    assert told([Beem()] * 2, agreeing).tolist() == [pytest.approx([0.1, 1 - 2.5 / 3], abs=1e-6)]


@pytest.mark.parametrize("weights", ["cost", None, 1])
def test_other_weights_are_one_line(weights):
    with pytest.raises(UserError, match=r"weights=.*: it is one of depth, accuracy"):
        Beem(weights)
