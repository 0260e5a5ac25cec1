"""Which parts of a network a stage trains, and how fast."""

import copy
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from branchynet.training.module import BranchyClassifier
from branchynet.training.objective import Joint
from branchynet.training.parts import batch_norms, parameter_groups, trained_parts
from branchynet.training.schedules import build_schedule
from branchynet.training.stages import fit


def shapes(parameters):
    return sorted(tuple(parameter.shape) for parameter in parameters)


def test_weight_decay_spares_biases_and_untrained_heads_are_left_out(network):
    decayed, spared = parameter_groups(trained_parts(network(), (False, True)))
    assert shapes(decayed["params"]) == [(3, 16), (4, 1, 3, 3), (4, 4, 3, 3)]
    assert shapes(spared["params"]) == [(3,), (4,), (4,)]
    assert spared["weight_decay"] == 0


def test_what_comes_after_the_last_trained_head_is_left_out(network):
    assert shapes(p for part in trained_parts(network(), (True, False)) for p in part.parameters()) == [
        *((3,), (3, 64)),
        *((4,), (4, 1, 3, 3)),
    ]
    assert shapes(p for part in trained_parts(network(), (True, False), True) for p in part.parameters()) == [
        *((3,), (3, 64)),
    ]


def test_the_trunk_has_a_learning_rate_of_its_own(network):
    net = network()
    groups = parameter_groups(trained_parts(net, (True, True)), net.segments, 0.001)
    assert [(group.get("lr"), group.get("weight_decay"), shapes(group["params"])) for group in groups] == [
        (None, None, [(3, 16), (3, 64)]),
        (None, 0.0, [(3,), (3,)]),
        (0.001, None, [(4, 1, 3, 3), (4, 4, 3, 3)]),
        (0.001, 0.0, [(4,), (4,)]),
    ]


TRAINER = {"accelerator": "cpu", "devices": 1}
SCHEDULES = (
    {"name": "multi_step", "milestones": [0.5], "factor": 0.1},
    {"name": "cosine"},
    {"name": "one_cycle", "warmup": 0.25},
)


class Rates(Callback):
    """The groups' learning rates at the end of every epoch, and what is logged of them at the very end."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    def on_fit_end(self, trainer, pl_module):
        names = ("learning_rate/joint", "learning_rate/joint_trunk")
        self.logged = [float(trainer.callback_metrics[name]) for name in names]


class StopAt(Callback):
    """Raise in the middle of the second epoch, as a kill would come."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 2:
            raise RuntimeError("killed")


@pytest.mark.parametrize("schedule", SCHEDULES, ids=[each["name"] for each in SCHEDULES])
def test_schedules_scale_both_rates_and_a_resume_keeps_them(schedule, data, tmp_path, network):
    def run(name, *callbacks):
        net = network()
        optimizer = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
        made = BranchyClassifier(
            net, Joint((1.0, 1.0)), optimizer, partial(build_schedule, schedule), trunk_lr=0.01
        )
        watch = Rates()
        fit(made, data, 3, tmp_path / name, TRAINER, callbacks=[watch, *callbacks])
        assert watch.logged == pytest.approx([watch.epochs[-1][0], watch.epochs[-1][-1]])
        return net, watch.epochs

    whole, rates = run("whole")
    assert all(spared == rate and trunk == pytest.approx([rate / 10] * 2) for rate, spared, *trunk in rates)
    assert rates[0] != rates[1] or rates[1] != rates[2]
    with pytest.raises(RuntimeError, match="killed"):
        run("stopped", StopAt())
    resumed, rest = run("stopped")
    assert rest == rates[1:]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_the_trunk_goes_at_its_own_pace(data, tmp_path, network):
    """Of one step of plain SGD, by hand: the trunk's is a hundredth."""
    moved = {}
    for trunk_lr in (None, 0.001):
        net = network()
        before = copy.deepcopy(net)
        made = BranchyClassifier(net, Joint((1.0, 1.0)), partial(torch.optim.SGD, lr=0.1), trunk_lr=trunk_lr)
        fit(made, data, 1, tmp_path / str(trunk_lr), {**TRAINER, "limit_train_batches": 1})
        moved[trunk_lr] = [a - b for a, b in zip(net.parameters(), before.parameters(), strict=True)]
    trunk = len(list(network().segments.parameters()))
    for n, (fast, slow) in enumerate(zip(*moved.values(), strict=True)):
        torch.testing.assert_close(slow, fast / 100 if n < trunk else fast, atol=2e-7, rtol=1e-3)


def test_batch_norms_of_the_trunk_stay_as_they_came_and_those_of_heads_do_not(data, tmp_path, with_norms):
    net = with_norms()
    for norm in batch_norms(net):
        torch.nn.init.uniform_(norm.running_mean), torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    assert len(batch_norms(net)) == 3, "those of the heads are the heads' own"
    before = copy.deepcopy(net)
    made = BranchyClassifier(
        net,
        Joint((1.0, 1.0, 1.0)),
        partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
        freeze_batch_norms=True,
    )
    fit(made, data, 2, tmp_path, TRAINER)
    changed = {
        name
        for (name, now), then in zip(net.state_dict().items(), before.state_dict().values(), strict=True)
        if not torch.equal(now, then)
    }
    norms = {f"segments.{n}.1.{own}" for n in range(3) for own in net.segments[0][1].state_dict()}
    assert changed == set(net.state_dict()) - norms
    # In training they normalise as in evaluation, while dropout drops out.
    made.train()
    assert not any(norm.training for norm in batch_norms(net)) and net.segments[0][3].training
    assert net.heads[0][0].training
