"""What exits make of images from outside, on traces made by hand."""

from functools import partial

import torch

from branchynet.evaluation.evidence import trace
from branchynet.evaluation.outside import look_outside, uncertainties
from branchynet.exits.trace import Trace


def test_areas_and_exit_rates_by_hand():
    zeros = torch.zeros(4, 2, dtype=torch.int64)
    own = Trace(torch.tensor([[0.1, 0.1], [0.2, 0.1], [0.3, 0.1], [0.6, 0.1]]), zeros, zeros[:, 0])
    far, alike = torch.tensor([[0.9, 0.8], [0.5, 0.8]]), torch.tensor([[0.1, 0.1]])
    found = look_outside(own, {"far": far, "alike": alike}, [0.55])
    # At exit 1, 7 of 8 pairs are in order (0.6 is less sure than 0.5), at exit 2 all.
    assert found[0].auroc == (7 / 8, 1.0) and found[0].exit_rates == (0.5, 0.5) and found[0].early == 0.5
    assert found[1].auroc == (1 / 8, 0.5) and found[1].exit_rates == (1.0, 0.0)
    assert [(each.source, each.samples) for each in found] == [("far", 2), ("alike", 1)]


def test_engines_of_another_precision_say_themselves_how_unsure_they_are(
    bright_network, bright_data, coarse, make_settings
):
    settings = make_settings()
    network = bright_network()
    x, y = next(bright_data.batches("test", 10_000))
    batches, shape = partial(x.split, 30), bright_data.input_shape
    criteria = [settings.criterion] * network.num_exits
    exact = uncertainties(batches, 100, network, criteria, settings.engine, 1, shape)
    assert torch.allclose(exact, trace(network, criteria, x, y).uncertainty, atol=1e-6)
    rough = uncertainties(batches, 100, network, criteria, coarse, 1, shape)
    assert torch.equal(rough, (2 * rough).round() / 2) and rough.shape == exact.shape


def test_nothing_shown_gives_nothing():
    own = Trace(torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    assert look_outside(own, {}, [0.5]) == ()
