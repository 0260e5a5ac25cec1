"""The LightningModule and its stages on random images: what is trained, what is logged, resume, stops."""

import copy
import math
from functools import partial

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from branchynet.data.augment import Augmentation
from branchynet.data.module import ImageData
from branchynet.errors import UserError
from branchynet.networks.branched import BranchedNetwork
from branchynet.training.module import BranchyClassifier, parameter_groups, trained_parts
from branchynet.training.schedules import build_schedule
from branchynet.training.stages import fit, load_network

TRAINER = {"accelerator": "cpu", "devices": 1}


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 160)
    # Classes differ in brightness, so there is something to learn.
    images = (rng.integers(0, 60, (160, 6, 6)) + 70 * labels[:, None, None]).astype(np.uint8)
    path = tmp_path / "arrays.npz"
    np.savez(path, x_train=images[:120], y_train=labels[:120], x_test=images[120:], y_test=labels[120:])
    return ImageData(
        "arrays", path=str(path), batch_size=32, validation_size=20, augment={"shift": 1, "flip": True}
    )


def network(seed=0):
    torch.manual_seed(seed)
    segments = [
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5)),
    ]
    heads = [nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), nn.Linear(16, 3)]
    return BranchedNetwork(segments, heads, ["first"])


def module(net, weights=(1.0, 1.0), lr=0.01, stage="joint"):
    return BranchyClassifier(net, weights, partial(torch.optim.AdamW, lr=lr), stage=stage)


def same(first, second):
    return all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_a_head_of_weight_zero_is_left_as_it_was_and_changes_nothing(data, tmp_path):
    net, other = network(), network()
    before = [parameter.clone() for parameter in net.heads[0].parameters()]
    with torch.no_grad():
        for parameter in other.heads[0].parameters():
            parameter.mul_(-3)
    for name, trained in (("a", net), ("b", other)):
        fit(module(trained, (0.0, 1.0)), data, 2, tmp_path / name, TRAINER)
    assert all(torch.equal(a, b) for a, b in zip(before, net.heads[0].parameters(), strict=True))
    assert same(net.segments, other.segments) and same(net.heads[1], other.heads[1])
    assert not same(net.segments, network().segments)


def shapes(parameters):
    return sorted(tuple(parameter.shape) for parameter in parameters)


def test_weight_decay_spares_biases_and_untrained_heads_are_left_out():
    decayed, spared = parameter_groups(trained_parts(network(), (False, True)))
    assert shapes(decayed["params"]) == [(3, 16), (4, 1, 3, 3), (4, 4, 3, 3)]
    assert shapes(spared["params"]) == [(3,), (4,), (4,)]
    assert spared["weight_decay"] == 0


def test_what_lies_behind_the_last_trained_head_is_left_out():
    assert shapes(p for part in trained_parts(network(), (True, False)) for p in part.parameters()) == [
        *((3,), (3, 64)),
        *((4,), (4, 1, 3, 3)),
    ]
    assert shapes(p for part in trained_parts(network(), (True, False), True) for p in part.parameters()) == [
        *((3,), (3, 64)),
    ]


class Calls(Callback):
    """How often each segment runs in training and in validation."""

    def __init__(self):
        self.training, self.validation = [0, 0, 0], [0, 0, 0]

    def on_fit_start(self, trainer, pl_module):
        for n, segment in enumerate(pl_module.network.segments):
            segment.register_forward_hook(partial(self.count, pl_module, n))

    def count(self, pl_module, n, *_):
        (self.training if pl_module.training else self.validation)[n] += 1


def with_norms(seed=0, dropout=0.5):
    """Three exits; the trunk has batch norm and dropout, before and behind the side exits."""
    torch.manual_seed(seed)

    def segment(inputs):
        return nn.Sequential(
            nn.Conv2d(inputs, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout)
        )

    heads = [
        nn.Sequential(nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(144, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(144, 3)),
    ]
    return BranchedNetwork([segment(1), segment(4), segment(4)], heads, ["first", "second"])


def test_a_frozen_trunk_stays_bit_for_bit_and_what_is_behind_the_trained_heads_is_not_run(data, tmp_path):
    net, calls = with_norms(), Calls()
    fit(module(net, (0.0, 0.0, 1.0), stage="baseline"), data, 2, tmp_path / "baseline", TRAINER)
    baseline = copy.deepcopy(net)
    assert baseline.segments[2][1].num_batches_tracked > 0
    joint = BranchyClassifier(net, (1.0, 0.0, 0.3), partial(torch.optim.AdamW, lr=0.01), freeze_trunk=True)
    fit(joint, data, 3, tmp_path / "joint", TRAINER, callbacks=[calls])
    trunk = baseline.trunk_state_dict()
    assert trunk.keys() == net.trunk_state_dict().keys()
    assert all(torch.equal(value, trunk[name]) for name, value in net.trunk_state_dict().items())
    assert not same(net.heads[0], baseline.heads[0]) and same(net.heads[1], baseline.heads[1])
    assert net.heads[0][0].num_batches_tracked > 0
    assert calls.training == [3 * 4, 0, 0] and calls.validation == [3, 0, 0]


def test_a_frozen_trunk_gives_the_heads_the_features_of_eval_mode(data, tmp_path):
    """The heads are trained to the very weights that a head alone gets from features computed once."""
    data.augmentation = Augmentation()
    net = with_norms()
    x, _ = data.split("train")
    with torch.no_grad():
        expected = net.eval().segments[0](x[:8])
    seen = []

    class See(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            with torch.no_grad():
                seen.append(pl_module.network.segments[0](x[:8]))

    joint = BranchyClassifier(net, (1.0, 1.0, 1.0), partial(torch.optim.SGD, lr=0.1), freeze_trunk=True)
    fit(joint, data, 2, tmp_path, TRAINER, callbacks=[See()])
    assert len(seen) == 8 and all(torch.equal(features, expected) for features in seen)


def test_a_frozen_trunk_with_nothing_beside_it_to_train_is_refused():
    with pytest.raises(UserError, match="freeze=trunk"):
        BranchyClassifier(network(), (0.0, 1.0), partial(torch.optim.SGD, lr=0.1), freeze_trunk=True)


def test_channels_last_trains_the_same_and_leaves_a_plain_network(data, tmp_path):
    nets, formats = {}, []

    class See(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            weight = pl_module.network.segments[1][0].weight
            formats.append(weight.is_contiguous(memory_format=torch.channels_last))

    for channels_last in (False, True):
        nets[channels_last] = net = with_norms(dropout=0.0)  # whose draws follow the memory's order
        net.heads[1] = nn.Sequential(nn.Conv2d(4, 8, 1), *net.heads[1])  # a 1×1 kernel: of both layouts
        net.heads[1][2] = nn.Linear(288, 3)
        classifier = BranchyClassifier(
            net, (1.0, 1.0, 1.0), partial(torch.optim.SGD, lr=0.01), channels_last=channels_last
        )
        fit(classifier, data, 1, tmp_path / str(channels_last), TRAINER, callbacks=[See()])
    assert formats == [False] * 4 + [True] * 4
    for plain, other in zip(*(net.state_dict().values() for net in nets.values()), strict=True):
        assert plain.stride() == other.stride()
        assert torch.allclose(plain, other, atol=1e-5)


def test_full_batches_are_compiled_and_no_others(data, tmp_path, monkeypatch):
    sizes = []

    def compiled(forward, **options):
        def call(x, run):
            sizes.append(len(x))
            return forward(x, run=run)

        return call

    monkeypatch.setattr("torch.compile", compiled)
    classifier = BranchyClassifier(network(), (1.0, 1.0), partial(torch.optim.SGD, lr=0.01), compile=True)
    data.batch_size = 48  # of 100 images
    fit(classifier, data, 2, tmp_path, TRAINER)
    assert sizes == [48, 48, 48, 48]


class Metrics(Callback):
    def __init__(self):
        self.epochs = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def test_logged_numbers_are_those_of_a_slow_loop_and_the_best_epoch_is_kept(data, tmp_path):
    net, metrics = network(), Metrics()
    fit(module(net, (1.0, 0.3)), data, 5, tmp_path, TRAINER, callbacks=[metrics])
    best = max(metrics.epochs, key=lambda epoch: epoch["joint/val_accuracy"])

    x, y = data.split("val")
    with torch.no_grad():
        logits = net.eval()(x)

    def pairs(out):
        return zip(out, y, strict=True)

    right = [sum(int(row.argmax()) == int(label) for row, label in pairs(out)) / len(y) for out in logits]
    losses = [
        sum(-math.log(float(row.softmax(0)[label])) for row, label in pairs(out)) / len(y) for out in logits
    ]
    for n in (0, 1):
        assert best[f"joint/val_accuracy_exit_{n + 1}"] == pytest.approx(right[n])
        assert best[f"joint/val_loss_exit_{n + 1}"] == pytest.approx(losses[n], rel=1e-4)
    assert best["joint/val_accuracy"] == pytest.approx((right[0] + 0.3 * right[1]) / 1.3)
    assert best["joint/val_loss"] == pytest.approx(losses[0] + 0.3 * losses[1], rel=1e-4)


class StopAt(Callback):
    """Raise in the middle of an epoch, as a kill would come."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 2:
            raise RuntimeError("killed")


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_a_stopped_stage_resumes_to_the_same_weights(epoch, data, tmp_path):
    whole, stopped = network(), network()
    fit(module(whole), data, 4, tmp_path / "whole", TRAINER)
    with pytest.raises(RuntimeError, match="killed"):
        fit(module(stopped), data, 4, tmp_path / "stopped", TRAINER, callbacks=[StopAt(epoch)])
    resumed = network()
    fit(module(resumed), data, 4, tmp_path / "stopped", TRAINER)
    assert same(whole, resumed)
    last = [torch.load(tmp_path / name / "last.ckpt")["state_dict"] for name in ("whole", "stopped")]
    assert all(torch.equal(last[0][key], last[1][key]) for key in last[0])


@pytest.mark.parametrize("settings", [{"ema": 0.9}, {"trainer": {**TRAINER, "gradient_clip_val": 0.1}}])
def test_a_stopped_stage_with_a_recipe_resumes_to_the_same_weights(settings, data, tmp_path):
    """With everything that has a state of its own: momentum, schedule, averages, channels_last."""

    def run(name, **options):
        net = with_norms()
        classifier = BranchyClassifier(
            net,
            (1.0, 1.0, 1.0),
            partial(torch.optim.SGD, lr=0.02, momentum=0.9, nesterov=True),
            partial(build_schedule, {"name": "multi_step", "milestones": [0.5], "factor": 0.1}),
            label_smoothing=0.1,
            channels_last=True,
        )
        fit(classifier, data, 3, tmp_path / name, **{"trainer": TRAINER, **settings, **options})
        return net

    whole = run("whole")
    with pytest.raises(RuntimeError, match="killed"):
        run("stopped", callbacks=[StopAt(2)])
    assert same(whole, run("stopped"))


class Averages(Callback):
    """The weights after every step, and those that validation sees."""

    def __init__(self):
        self.steps, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append(copy.deepcopy(pl_module.network.state_dict()))

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.validated.append(copy.deepcopy(pl_module.network.state_dict()))


def test_the_averaged_weights_are_validated_and_kept_and_do_not_disturb_training(data, tmp_path):
    plain, net, seen, see = Averages(), with_norms(), Averages(), Metrics()
    fit(module(with_norms(), (1.0,) * 3), data, 3, tmp_path / "plain", TRAINER, callbacks=[plain])
    fit(module(net, (1.0,) * 3), data, 3, tmp_path / "ema", TRAINER, callbacks=[seen, see], ema=0.8)
    for first, second in zip(plain.steps, seen.steps, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)

    averages, average = [], seen.steps[0]
    for step in seen.steps[1:]:
        average = {
            name: 0.8 * average[name] + 0.2 * value if value.is_floating_point() else value
            for name, value in step.items()
        }
        averages.append(average)
    expected = averages[2::4]  # the last of each epoch's four steps

    def close(first, second):
        return all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)

    assert len(expected) == 3
    assert all(close(a, b) for a, b in zip(expected, seen.validated, strict=True))
    accuracies = [epoch["joint/val_accuracy"] for epoch in see.epochs]
    assert close(expected[accuracies.index(max(accuracies))], net.state_dict())
    assert not close(seen.steps[-1], seen.validated[-1])


def test_a_frozen_trunk_stays_bit_for_bit_under_averaging(data, tmp_path):
    net = with_norms()
    fit(module(net, (0.0, 0.0, 1.0), stage="baseline"), data, 2, tmp_path / "baseline", TRAINER)
    trunk = copy.deepcopy(net.trunk_state_dict())
    joint = BranchyClassifier(net, (1.0, 1.0, 0.0), partial(torch.optim.SGD, lr=0.1), freeze_trunk=True)
    fit(joint, data, 2, tmp_path / "joint", TRAINER, ema=0.9)
    assert all(torch.equal(value, trunk[name]) for name, value in net.trunk_state_dict().items())


def test_a_finished_stage_is_not_trained_again(data, tmp_path):
    net, metrics = network(), Metrics()
    fit(module(net), data, 2, tmp_path, TRAINER)
    again = network()
    fit(module(again), data, 2, tmp_path, TRAINER, callbacks=[metrics])
    assert metrics.epochs == [] and same(net, again)


class Poison(Callback):
    """Make a weight nan after the first epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            with torch.no_grad():
                pl_module.network.heads[0][1].weight[0, 0] = math.nan


def test_a_loss_that_is_not_finite_stops_with_one_line_and_the_last_good_checkpoint(data, tmp_path):
    with pytest.raises(UserError) as caught:
        fit(module(network()), data, 3, tmp_path, TRAINER, callbacks=[Poison()])
    message = str(caught.value)
    assert "\n" not in message and "nan" in message and "epoch 2" in message
    assert str(tmp_path / "last.ckpt") in message
    state = torch.load(tmp_path / "last.ckpt")["state_dict"]
    assert all(torch.isfinite(value.double()).all() for value in state.values())


def test_load_network_takes_checkpoints_and_bare_state_dicts_and_refuses_others(data, tmp_path):
    net, other = network(0), network(1)
    fit(module(net), data, 1, tmp_path, TRAINER)
    load_network(other, tmp_path / "best.ckpt")
    assert same(net, other)
    torch.save(network(2).state_dict(), tmp_path / "bare.pt")
    load_network(other, tmp_path / "bare.pt")
    assert same(network(2), other)

    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": nn.Linear(2, 2).state_dict()}, tmp_path / "foreign.ckpt")
    torch.save({"state_dict": L.LightningModule}, tmp_path / "code.ckpt")
    for name, word in {
        "nowhere.ckpt": "no checkpoint",
        "text.ckpt": "not a checkpoint",
        "foreign.ckpt": "another network",
        "code.ckpt": "not a checkpoint",
    }.items():
        with pytest.raises(UserError, match=word) as caught:
            load_network(other, tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("epochs", "word"), [(0, "epochs.joint=0"), (-1, "at least one")])
def test_no_epochs_is_a_mistake(epochs, word, data, tmp_path):
    with pytest.raises(UserError, match=word):
        fit(module(network()), data, epochs, tmp_path, TRAINER)
