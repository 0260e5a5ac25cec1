"""Shared and ramped gradients: by hand, against weights that are changed from step to step, and over a resume."""

import math
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from branchynet.errors import UserError
from branchynet.training.distilled import Distilled
from branchynet.training.gradients import Gradients
from branchynet.training.module import BranchyClassifier
from branchynet.training.objective import Joint
from branchynet.training.stages import fit

TRAINER = {"accelerator": "cpu", "devices": 1}


@pytest.fixture
def train(data, tmp_path):
    """A function that trains, four steps an epoch, and gives the weights after the last one."""

    def run(net, objective, name, gradients=None, epochs=2, callbacks=()):
        own = {} if gradients is None else {"gradients": gradients}
        classifier = BranchyClassifier(net, objective, partial(torch.optim.SGD, lr=0.02, momentum=0.9), **own)
        fit(classifier, data, epochs, tmp_path / name, TRAINER, callbacks=callbacks)
        return torch.load(tmp_path / name / "last.ckpt")["state_dict"]

    return run


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


class Stop(Callback):
    """In the middle of the second epoch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 6:
            raise RuntimeError("killed")


class Ramping:
    """Joint, with weights of its own in every training step: what a ramp is to be."""

    of_features = False
    weights, needs = (1.0, 0.5, 0.3), (True, True, True)

    def __init__(self, shares):
        self.shares = iter(shares)

    def __call__(self, logits, target, features=None):
        share = next(self.shares) if torch.is_grad_enabled() else 1
        return Joint((share * 1.0, share * 0.5, 0.3))(logits, target)


def test_side_exits_weights_grow_to_their_own_over_the_stage(train, with_norms):
    shares = [0.2 + 0.8 * step / 7 for step in range(8)]
    expected = train(with_norms(), objective := Ramping(shares), "expected")
    assert next(objective.shares, None) is None, "eight steps"
    objective = Joint(Ramping.weights)
    found = train(with_norms(), objective, "found", Gradients(start=0.2))
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)
    constant = train(with_norms(), objective, "constant")
    assert not all(torch.allclose(found[name], constant[name], atol=1e-4) for name in constant)
    assert same(constant, train(with_norms(), objective, "default", Gradients()))


def test_a_stopped_stage_resumes_to_the_same_weights(train, with_norms):
    gradients, objective = Gradients("mean", start=0.1), Distilled((1.0, 1.0, 1.0))
    whole = train(with_norms(), objective, "whole", gradients)
    with pytest.raises(RuntimeError, match="killed"):
        train(with_norms(), objective, "stopped", gradients, callbacks=[Stop()])
    assert same(whole, train(with_norms(), objective, "stopped", gradients))


class Sharing(Callback):
    """What the network is told, in training and in validation."""

    def __init__(self):
        self.told = {True: set(), False: set()}

    def on_fit_start(self, trainer, pl_module):
        inner = pl_module.network.with_features

        def spy(x, run, sharing):
            self.told[pl_module.training].add(sharing)
            return inner(x, run, sharing)

        pl_module.network.with_features = spy


def test_the_trunk_gets_the_mean_in_training(train, with_norms):
    watch, objective = Sharing(), Joint((1.0, 0.0, 0.3))
    mean = train(with_norms(), objective, "mean", Gradients("mean"), 1, [watch])
    assert watch.told == {True: {(2, 1, 1)}, False: {None}}
    assert not same(mean, train(with_norms(), objective, "sum", epochs=1))


def test_of_how_many_exits_a_segment_gets_the_gradient():
    mean = Gradients("mean")
    assert mean.sharing((1.0, 0.5, 0.3)) == (3, 2, 1) and mean.sharing((1.0, 0.0, 0.0)) == (1, 0, 0)
    assert Gradients().sharing((1.0, 1.0)) is None


def test_the_share_by_hand():
    ramp = Gradients(start=0.5)
    assert [ramp.share(step, 5) for step in range(5)] == [0.5, 0.625, 0.75, 0.875, 1.0]
    assert ramp.share(0, 1) == 0.5 and Gradients().share(3, 9) == 1
    logits = [torch.ones(1, 2, requires_grad=True), None, torch.ones(1, 2, requires_grad=True)]
    first, none, last = ramp.ramped(logits, 1, 5)
    (first.sum() + last.sum()).backward()
    assert (
        none is None and logits[0].grad.tolist() == [[0.625, 0.625]] and logits[2].grad.tolist() == [[1, 1]]
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"trunk_gradient": "max"}, "trunk_gradient=max: it is one of sum, mean"),
        ({"start": 1.5}, "start=1.5: it is the share of their weights that side exits begin with, 0 … 1"),
        ({"start": -0.1}, "start=-0.1: it is the share"),
        ({"start": math.nan}, "start=nan: it is the share"),
        ({"start": None}, "start=None: it is the share"),
    ],
)
def test_wrong_settings_get_one_line(settings, says):
    with pytest.raises(UserError) as caught:
        Gradients(**settings)
    assert says in str(caught.value) and "\n" not in str(caught.value)
