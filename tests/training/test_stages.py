"""The stages on random images: resume, averages, stops."""

import copy
import logging
import math
from functools import partial

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelSummary, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from branchynet.errors import UserError
from branchynet.training.module import BranchyClassifier, logged_names
from branchynet.training.objective import Joint
from branchynet.training.schedules import build_schedule
from branchynet.training.stages import check_resumable, fit, make_contiguous, quieten_logs

TRAINER = {"accelerator": "cpu", "devices": 1}


def same(first, second):
    """Whether two modules have the same weights, bit for bit."""
    return all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


class StopAt(Callback):
    """Raise in the middle of an epoch, as a kill would come."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 2:
            raise RuntimeError("killed")


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_a_stopped_stage_resumes_to_the_same_weights(epoch, data, tmp_path, network, module):
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
def test_a_stopped_stage_with_a_recipe_resumes_to_the_same_weights(settings, data, tmp_path, with_norms):
    """With everything that has a state of its own: momentum, schedule, averages, channels_last."""

    def run(name, **options):
        net = with_norms()
        classifier = BranchyClassifier(
            net,
            Joint((1.0, 1.0, 1.0), label_smoothing=0.1),
            partial(torch.optim.SGD, lr=0.02, momentum=0.9, nesterov=True),
            partial(build_schedule, {"name": "multi_step", "milestones": [0.5], "factor": 0.1}),
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


def test_the_averaged_weights_are_validated_and_kept_and_do_not_disturb_training(
    data, tmp_path, with_norms, module, metrics
):
    plain, net, seen, see = Averages(), with_norms(), Averages(), metrics()
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


def test_a_frozen_trunk_stays_bit_for_bit_under_averaging(data, tmp_path, with_norms, module):
    net = with_norms()
    fit(module(net, (0.0, 0.0, 1.0), stage="baseline"), data, 2, tmp_path / "baseline", TRAINER)
    trunk = copy.deepcopy(net.trunk_state_dict())
    joint = BranchyClassifier(
        net, Joint((1.0, 1.0, 0.0)), partial(torch.optim.SGD, lr=0.1), freeze_trunk=True
    )
    fit(joint, data, 2, tmp_path / "joint", TRAINER, ema=0.9)
    assert all(torch.equal(value, trunk[name]) for name, value in net.trunk_state_dict().items())


def test_a_finished_stage_is_not_trained_again(data, tmp_path, network, module, metrics):
    net, metrics = network(), metrics()
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


def test_a_loss_that_is_not_finite_stops_with_one_line_and_the_last_good_checkpoint(
    data, tmp_path, network, module
):
    with pytest.raises(UserError) as caught:
        fit(module(network()), data, 3, tmp_path, TRAINER, callbacks=[Poison()])
    message = str(caught.value)
    assert "\n" not in message and "nan" in message and "epoch 2" in message
    assert str(tmp_path / "last.ckpt") in message
    state = torch.load(tmp_path / "last.ckpt")["state_dict"]
    assert all(torch.isfinite(value.double()).all() for value in state.values())


@pytest.mark.parametrize(("epochs", "word"), [(0, "epochs.joint=0"), (-1, "at least one")])
def test_no_epochs_is_a_mistake(epochs, word, data, tmp_path, network, module):
    with pytest.raises(UserError, match=word):
        fit(module(network()), data, epochs, tmp_path, TRAINER)


def test_only_a_checkpoint_of_a_stage_can_be_resumed_from(data, tmp_path, network, module):
    net = network()
    fit(module(net), data, 1, tmp_path / "done", TRAINER)
    last = tmp_path / "done" / "last.ckpt"
    check_resumable(last, net)
    whole = last.read_bytes()
    torch.save(network().state_dict(), tmp_path / "bare.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    for name in ("bare", "list", "cut", "text"):
        with pytest.raises(UserError, match=rf"{name}\.ckpt is not a checkpoint .*delete it") as caught:
            check_resumable(tmp_path / f"{name}.ckpt", net)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"last\.ckpt is of another network: .*delete it"):
        check_resumable(last, nn.Linear(2, 2))

    # `fit` looks before it trains, and loses nothing.
    def again():
        fit(module(network()), data, 2, tmp_path / "done", TRAINER)

    best = last.with_name("best.ckpt")
    for damaged in (last, best):
        damaged.write_bytes(whole[:-100])
        with pytest.raises(UserError, match=rf"{damaged.name} is not a checkpoint .*delete it"):
            again()
        assert damaged.read_bytes() == whole[:-100] and (last if damaged is best else best).exists()
        damaged.write_bytes(whole)
    # What only shows as it is taken over.
    content = torch.load(last)
    for damage in ({"optimizer_states": [{}]}, {"loops": 3}, {"optimizer_states": []}):
        torch.save({**content, **damage}, last)
        before = last.read_bytes()
        words = "cannot be gone on from" if damage != {"optimizer_states": []} else "is not a checkpoint"
        with pytest.raises(UserError, match=rf"last\.ckpt {words} .*delete it") as caught:
            again()
        assert "\n" not in str(caught.value) and last.read_bytes() == before
    # As it is told: then the stage begins again.
    last.unlink()
    again()
    assert torch.load(last)["epoch"] == 1


def test_tensors_lie_in_memory_as_a_new_networks_do_and_keep_their_values():
    net = nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3))
    plain = copy.deepcopy(net)
    net.to(memory_format=torch.channels_last)
    net[1].running_mean = torch.arange(16.0)[::2]
    assert not net[2].weight.is_contiguous() and net[0].weight.stride() != plain[0].weight.stride()
    parameters = list(net.parameters())
    make_contiguous(net)
    assert all(a is b for a, b in zip(parameters, net.parameters(), strict=True)), (
        "the optimiser has the old ones"
    )
    for name, value in net.state_dict().items():
        assert value.stride() == plain.state_dict()[name].stride()
    assert torch.equal(net[2].weight, plain[2].weight)
    assert torch.equal(net[1].running_mean, torch.arange(16.0)[::2])


class Spoil(Callback):
    """Turn the heads around at the end of every epoch but the first, which so is the best."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch and trainer.is_last_batch:
            with torch.no_grad():
                for parameter in pl_module.network.heads.parameters():
                    parameter.mul_(-3)


def test_the_network_has_the_best_epochs_weights_before_other_callbacks_see_the_end(
    data, tmp_path, network, module
):
    seen = []

    class See(Callback):
        def on_fit_end(self, trainer, pl_module):
            seen.append(copy.deepcopy(pl_module.network.state_dict()))

    net = network()
    fit(module(net, lr=0.1), data, 3, tmp_path, TRAINER, callbacks=[Spoil(), See()])
    best, last = (
        torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["state_dict"] for name in ("best", "last")
    )
    assert not torch.equal(best["network.heads.1.weight"], last["network.heads.1.weight"])
    assert all(torch.equal(value, best[f"network.{name}"]) for name, value in seen[0].items())
    assert all(torch.equal(value, seen[0][name]) for name, value in net.state_dict().items())


def early():
    return EarlyStopping("val_accuracy", mode="max", patience=2)


def still(network, **options):
    """A module whose weights do not move: validation gets no better."""
    return BranchyClassifier(network, Joint((1.0, 1.0)), partial(torch.optim.SGD, lr=0.0), **options)


class Epochs(Callback):
    """Counts those that are trained."""

    def __init__(self):
        self.trained = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.trained.append(trainer.current_epoch)


def test_a_stage_may_stop_early_and_stays_stopped(data, tmp_path, network):
    """The best epoch's weights are taken; killed afterwards and resumed, nothing more is trained."""
    first, again = network(), network()
    epochs = Epochs()
    fit(still(first), data, 20, tmp_path, TRAINER, callbacks=[early(), epochs])
    assert epochs.trained == [0, 1, 2]
    best = torch.load(tmp_path / "best.ckpt")["state_dict"]
    assert torch.equal(first.heads[1].weight, best["network.heads.1.weight"])

    more = Epochs()
    fit(still(again), data, 20, tmp_path, TRAINER, callbacks=[early(), more])
    assert more.trained == [] and same(first, again)


def test_a_stage_that_is_killed_stops_early_where_it_would_have(data, tmp_path, network):
    """How long it has waited is remembered."""
    with pytest.raises(RuntimeError, match="killed"):
        fit(still(network()), data, 20, tmp_path, TRAINER, callbacks=[early(), StopAt(2)])
    epochs = Epochs()
    fit(still(network()), data, 20, tmp_path, TRAINER, callbacks=[early(), epochs])
    assert epochs.trained == [2]


def test_what_a_stage_is_said_to_log_is_what_callbacks_find(data, tmp_path, network, module):
    seen = []

    class Look(Callback):
        def on_train_end(self, trainer, pl_module):
            seen.extend(trainer.callback_metrics)

    fit(module(network()), data, 1, tmp_path, TRAINER, callbacks=[Look()])
    names = logged_names([1.0, 1.0])
    assert {*names, *(f"joint/{name}" for name in names), "learning_rate/joint"} == set(seen)
    assert logged_names([0.0, 1.0])[4:] == [
        f"{split}_{kind}_exit_2" for split in ("val", "train") for kind in ("accuracy", "loss")
    ]


def test_several_loggers_have_the_same_curves(data, tmp_path, network, module):
    loggers = [CSVLogger(tmp_path, name, "") for name in ("a", "b")]
    fit(module(network()), data, 2, tmp_path / "stage", TRAINER, logger=loggers)
    rows = [(tmp_path / name / "metrics.csv").read_text() for name in ("a", "b")]
    assert rows[0] == rows[1] and "joint/val_accuracy_exit_1" in rows[0]
    assert ",val_accuracy" not in rows[0], "what is for callbacks is not logged twice"


def test_what_profilers_and_summaries_say_is_shown(data, tmp_path, network, module, caplog):
    quieten_logs()
    logging.getLogger("lightning.pytorch").propagate = True
    fit(
        module(network()),
        data,
        1,
        tmp_path,
        {**TRAINER, "profiler": "simple"},
        callbacks=[ModelSummary(max_depth=2)],
    )
    assert "run_training_epoch" in caplog.text and "network.heads" in caplog.text
    assert "GPU available" not in caplog.text
    assert not logging.getLogger("lightning").handlers, "said once"


def test_a_stage_that_is_stopped_before_an_epoch_has_ended(data, tmp_path, network, module):
    class AtOnce(Callback):
        def on_train_start(self, trainer, pl_module):
            raise MisconfigurationException("not\nhere")

    with pytest.raises(UserError, match=r"^Lightning refuses the settings of training: not here$"):
        fit(module(network()), data, 1, tmp_path, TRAINER, callbacks=[AtOnce()])
    with pytest.raises(UserError, match=r"^the joint stage was stopped before its first epoch had ended"):
        fit(module(network()), data, 1, tmp_path, {**TRAINER, "max_steps": 0})


def test_another_progress_bar_takes_the_place(data, tmp_path, network, module):
    fit(module(network()), data, 1, tmp_path, TRAINER, callbacks=[TQDMProgressBar(refresh_rate=0)])
    assert (tmp_path / "best.ckpt").exists()
