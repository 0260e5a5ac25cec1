"""What is looked at before the first epoch, one check after the other."""

import inspect
import math
from functools import partial

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn

from branchynet.commands.app import conf_folder
from branchynet.commands.checks import (
    RESERVED,
    check_epochs,
    check_freeze,
    check_init,
    check_memory,
    check_optimizer,
    check_trainer,
    check_trunk_lr,
)
from branchynet.errors import UserError
from branchynet.networks.branched import BranchedNetwork

CPU = {"accelerator": "cpu", "devices": 1, "precision": "32-true"}


def test_where_joint_training_starts(tmp_path):
    (tmp_path / "best.ckpt").touch()
    for allowed in ("baseline", "scratch", str(tmp_path / "best.ckpt"), tmp_path / "best.ckpt"):
        check_init(allowed)
    for wrong in ("Baseline", str(tmp_path), str(tmp_path / "nowhere.ckpt"), None, 3):
        with pytest.raises(UserError, match="baseline, pretrained, scratch or the path of a checkpoint"):
            check_init(wrong)


def test_whether_the_trunk_is_frozen():
    plain = BranchedNetwork([nn.Identity()], [nn.Linear(1, 1)], [])
    normed = BranchedNetwork([nn.Sequential(nn.BatchNorm1d(1))], [nn.Linear(1, 1)], [])
    assert check_freeze("none", "scratch", plain) == (False, False)
    assert (
        check_freeze("trunk", "baseline", plain) == check_freeze("trunk", "some.ckpt", plain) == (True, False)
    )
    assert check_freeze("batch_norms", "baseline", normed) == (False, True)
    with pytest.raises(UserError, match=r"^freeze=heads: it is none, trunk or batch_norms$"):
        check_freeze("heads", "baseline", plain)
    with pytest.raises(UserError, match="would leave the trunk untrained"):
        check_freeze("trunk", "scratch", plain)
    with pytest.raises(UserError, match="would leave the trunk's batch norms untrained"):
        check_freeze("batch_norms", "scratch", normed)
    with pytest.raises(UserError, match="the trunk has none"):
        check_freeze("batch_norms", "baseline", plain)


def test_a_learning_rate_of_the_trunk():
    check_trunk_lr(None, "trunk", "pretrained")
    check_trunk_lr(1e-4, "trunk", "baseline")  # of stage 1
    for wrong in (0, -1, "low", True, math.nan, math.inf):
        with pytest.raises(UserError, match=rf"^optimizer\.trunk_lr={wrong}: it is a learning rate above 0"):
            check_trunk_lr(wrong, "none", "baseline")
    with pytest.raises(UserError, match="the trunk is not trained at all"):
        check_trunk_lr(1e-4, "trunk", "pretrained")


def test_every_stage_has_an_epoch():
    check_epochs({"baseline": 1, "joint": 40})
    for wrong in (0, -1, 1.5, "many", True, None):
        with pytest.raises(UserError, match=rf"^epochs\.joint={wrong}: it is a whole number above 0$"):
            check_epochs({"baseline": 1, "joint": wrong})


SGD = partial(torch.optim.SGD, lr=0.1)


def test_optimiser_and_schedule_are_built_once_for_every_stage():
    built = []

    def optimizer(groups):
        made = SGD(groups)
        built.append(made)
        return made

    # 102 images in batches of 10 are 11 steps.
    check_optimizer(optimizer, {"name": "none"}, {"baseline": 1, "joint": 2}, images=102, batch_size=10)
    assert len(built) == 2


def test_a_single_image_that_is_left_is_no_step():
    one_cycle = {"name": "one_cycle", "warmup": 0.2}
    check_optimizer(SGD, one_cycle, {"joint": 2}, images=42, batch_size=10)
    with pytest.raises(UserError, match=r"^schedule=one_cycle: 8 steps are too few"):
        check_optimizer(SGD, one_cycle, {"joint": 2}, images=41, batch_size=10)


@pytest.mark.parametrize(
    ("optimizer", "schedule", "words"),
    [
        (partial(SGD, momentum=-1), {"name": "none"}, "the optimizer's settings are refused: .*momentum"),
        (partial(SGD, speed=3), {"name": "none"}, "the optimizer's settings are refused: .*speed"),
        (SGD, {"name": "linear"}, r"^schedule\.name=linear"),
        (SGD, {"name": "multi_step", "milestones": [0.75, 0.5], "factor": 0.1}, r"^schedule\.milestones"),
    ],
)
def test_mistakes_in_optimiser_and_schedule(optimizer, schedule, words):
    with pytest.raises(UserError, match=words):
        check_optimizer(optimizer, schedule, {"baseline": 1}, images=10, batch_size=10)


def test_a_trainer_as_this_machine_has_it():
    check_trainer(CPU)
    check_trainer({**CPU, "gradient_clip_val": None})
    check_trainer({**CPU, "gradient_clip_val": 0.5})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_epochs": "abc"}, r"^trainer\.min_epochs=abc: it is a whole number, 0 or more"),
        ({"min_steps": -1}, r"^trainer\.min_steps=-1: it is a whole number, 0 or more"),
        ({"log_every_n_steps": "abc"}, r"^trainer\.log_every_n_steps=abc: input should be a valid integer"),
        ({"gradient_clip_val": 0}, r"^trainer\.gradient_clip_val=0: it is a number above 0"),
        ({"gradient_clip_val": float("nan")}, r"^trainer\.gradient_clip_val=nan"),
        ({"gradient_clip_val": float("inf")}, r"^trainer\.gradient_clip_val=inf"),
        ({"gradient_clip_val": True}, r"^trainer\.gradient_clip_val=True"),
        ({"accelerator": "quantum"}, "the trainer's settings are refused: .*conf/trainer"),
        ({"precision": "8-true"}, r"^trainer\.precision=8-true: it is one of auto, 32-true"),
        ({"speed": 3}, "the trainer's settings are refused: .*speed"),
        ({"devices": 0}, "the trainer's settings are refused"),
    ],
)
def test_mistakes_in_the_trainer(settings, words):
    with pytest.raises(UserError, match=words):
        check_trainer({**CPU, **settings})


def test_a_gpu_that_is_not_there_is_told_as_such(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for accelerator in ("gpu", "cuda"):
        with pytest.raises(UserError, match=r"there is no GPU here .*take trainer=cpu"):
            check_trainer({**CPU, "accelerator": accelerator})


@pytest.mark.parametrize(
    "strategy", [{}, {"strategy": "auto"}, {"strategy": "ddp"}, {"strategy": "ddp_spawn"}]
)
def test_several_processes_are_started_for_training_alone(strategy):
    """Lightning's own choice would run `sys.argv[0]` once more, and that is two words here."""
    settings = {**CPU, "devices": 2, **strategy}
    assert check_trainer(settings) == {**settings, "strategy": "ddp_spawn"}


def test_several_machines_are_not_waited_for_where_nobody_started_their_processes():
    with pytest.raises(UserError, match=r"^trainer\.num_nodes=2: it is 1 where neither torchrun nor srun"):
        check_trainer({**CPU, "strategy": "ddp", "num_nodes": 2})
    check_trainer({**CPU, "strategy": "ddp", "num_nodes": 1})


def test_one_process_trains_as_it_was_told():
    for settings in (CPU, {**CPU, "devices": 1, "strategy": "ddp"}):
        assert check_trainer(settings) == settings


def test_a_strategy_that_would_run_the_command_again_is_refused():
    with pytest.raises(
        UserError, match=r"^trainer\.strategy=ddp_find_unused_parameters_false: it is .*ddp_spawn"
    ):
        check_trainer({"accelerator": "cpu", "devices": 2, "strategy": "ddp_find_unused_parameters_false"})


@pytest.mark.parametrize("name", RESERVED)
def test_what_a_stage_sets_itself_says_what_to_do_instead(name):
    with pytest.raises(UserError, match=rf"^trainer\.{name}=3: it is not for `trainer`; ") as caught:
        check_trainer({**CPU, name: 3})
    assert RESERVED[name] in str(caught.value)


def test_what_a_stage_sets_itself_is_what_it_says():
    """Every one is an argument of Lightning's, and every one that a stage gives is among them."""
    known = inspect.signature(Trainer).parameters
    assert set(RESERVED) <= set(known)
    given = {"max_epochs", "default_root_dir", "logger", "callbacks", "num_sanity_val_steps", "plugins"}
    given |= {"enable_model_summary", "enable_progress_bar", "use_distributed_sampler"}
    assert given <= set(RESERVED)


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "64-true"},
        {"precision": "bf16-true"},
        {"limit_train_batches": 0},
        {"limit_val_batches": -1},
        {"limit_val_batches": "some"},
        {"limit_train_batches": math.nan},
        {"profiler": {"_target_": "os.getcwd"}},
        {"profiler": "nosuch"},
        {"max_time": 0},
        {"devices": 1000},
        {"accumulate_grad_batches": "x"},
        {"strategy": 7},
    ],
)
def test_a_trainer_that_could_not_train_is_refused(settings):
    (name,) = settings
    with pytest.raises(UserError, match=name) as caught:
        check_trainer({**CPU, **settings})
    assert "\n" not in str(caught.value)


def test_what_limits_an_epoch_is_taken():
    check_trainer({**CPU, "limit_train_batches": 0.5, "limit_val_batches": 2, "profiler": "simple"})


def test_two_callbacks_that_lightning_cannot_tell_apart():
    twice = [EarlyStopping("val_loss"), EarlyStopping("val_loss")]
    with pytest.raises(UserError, match="trainer's settings are refused"):
        check_trainer(CPU, twice)


def model_of(*overrides):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("train", overrides=["model=b_lenet", *overrides]).model


def test_what_fits_into_memory_is_taken():
    check_memory(model_of(), (1, 28, 28), 10, 512, False)


@pytest.mark.parametrize(
    ("overrides", "batch", "words"),
    [
        (["model.exits.0.convs=[1000000000]"], 1, "GiB are free here"),
        (["model.exits.0.convs=[100000000000000000]"], 1, "than can be counted"),
        (["model.exits.0.fc=[1000000000]"], 1, "GiB are free here"),
        ([], 10**9, "GiB are free here"),
    ],
)
def test_what_is_larger_than_the_machine_is_told_before_it_is_laid_out(overrides, batch, words):
    with pytest.raises(UserError, match="smaller") as caught:
        check_memory(model_of(*overrides), (1, 28, 28), 10, batch, False)
    assert "\n" not in str(caught.value) and words in str(caught.value)


def test_a_trunk_that_does_not_know_the_meta_device_is_built_as_ever(monkeypatch):
    def fail(*arguments):
        raise NotImplementedError("no such device")

    monkeypatch.setattr("branchynet.commands.checks.build_network", fail)
    check_memory(model_of(), (1, 28, 28), 10, 10**9, False)


def test_what_makes_no_optimiser():
    with pytest.raises(UserError, match="makes a list and no optimizer"):
        check_optimizer(list, {"name": "none"}, {"joint": 1}, images=1, batch_size=1)
