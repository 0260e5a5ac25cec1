"""Patience: exits in a row that agree, against a loop that counts them; which threshold is which patience."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from branchynet.exits.beem import Beem
from branchynet.exits.patience import Patience
from branchynet.exits.sweep import exit_taken
from branchynet.runtime.to_onnx import export_model


def told(predictions, classes=5):
    """(S, N) uncertainties of N exits that predict so, (S, N), with logits of any size."""
    criterion, state, found = Patience(), None, []
    for column in predictions.unbind(dim=1):
        logits = 3 * torch.randn(len(column), classes)
        logits[torch.arange(len(column)), column] = logits.max() + 1
        uncertainty, state = criterion(logits, state)
        assert uncertainty.dtype == state.dtype == torch.float32 and state.shape == (len(column), 2)
        found.append(uncertainty)
    return torch.stack(found, dim=1)


@pytest.fixture(scope="module")
def predictions():
    """(400, 6), which often agree with the one before."""
    torch.manual_seed(0)
    drawn = torch.randint(5, (400, 6))
    for n in range(1, 6):
        drawn[:, n] = torch.where(torch.rand(400) < 0.6, drawn[:, n - 1], drawn[:, n])
    return drawn


def test_it_counts_the_exits_in_a_row_that_agree(predictions):
    found = told(predictions)
    for row, line in zip(predictions.tolist(), found.tolist(), strict=True):
        for n in range(6):
            count = 1
            while count <= n and row[n - count] == row[n]:
                count += 1
            assert line[n] == pytest.approx(1 / count)
    assert (found[:, 0] == 1).all() and (found[:, 5] == torch.tensor(1 / 6)).any()


@pytest.mark.parametrize("patience", [1, 2, 3, 4])
def test_a_threshold_of_one_over_t_is_the_papers_patience_t(patience, predictions):
    """Their algorithm: a counter of agreements with the exit before, 0 where it does not agree."""
    taken = exit_taken(told(predictions), torch.full((5,), 1 / patience))
    for row, exit in zip(predictions.tolist(), taken.tolist(), strict=True):
        counter, expected = 0, 5
        for n in range(5):
            counter = counter + 1 if n and row[n] == row[n - 1] else 0
            if counter == patience:
                expected = n
                break
        assert exit == expected


def test_it_is_one_object_for_all_exits_with_nothing_to_learn():
    assert not Patience().learns and Patience.of_history and not Patience().state_dict()
    assert Patience().largest(10) == 1


class Given(nn.Module):
    """A criterion that may be called without a state."""

    def __init__(self, criterion):
        super().__init__()
        self.criterion = criterion

    def forward(self, logits, state=None):
        return self.criterion(logits, state)


@pytest.mark.parametrize("criterion", [Patience(), Beem()], ids=["patience", "beem"])
def test_onnx_runtime_gives_the_same(criterion):
    """At the first exit and behind it, for one row and for several."""
    torch.manual_seed(0)
    logits = [torch.randn(40, 5) * 3, torch.randn(40, 5) * 9]
    state = None
    for out in logits:
        given = {"x": out} if state is None else {"x": out, "state": state}
        model = export_model(Given(criterion), given, ["uncertainty", "behind"])
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        expected = criterion(out, state)
        for rows in (slice(None), slice(1)):
            found = session.run(None, {name: tensor[rows].numpy() for name, tensor in given.items()})
            for ours, theirs in zip(found, expected, strict=True):
                assert ours.dtype == np.float32
                np.testing.assert_allclose(ours, theirs[rows], rtol=1e-6, atol=1e-7)
        state = expected[1]
