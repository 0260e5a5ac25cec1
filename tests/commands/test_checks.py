"""What is looked at before the first epoch, one check after the other."""

from functools import partial

import pytest
import torch

from branchynet.commands.checks import (
    check_epochs,
    check_freeze,
    check_init,
    check_optimizer,
    check_trainer,
)
from branchynet.errors import UserError

CPU = {"accelerator": "cpu", "devices": 1, "precision": "32-true"}


def test_where_joint_training_starts(tmp_path):
    (tmp_path / "best.ckpt").touch()
    for allowed in ("baseline", "scratch", str(tmp_path / "best.ckpt"), tmp_path / "best.ckpt"):
        check_init(allowed)
    for wrong in ("Baseline", str(tmp_path), str(tmp_path / "nowhere.ckpt"), None, 3):
        with pytest.raises(UserError, match="baseline, scratch or the path of a checkpoint"):
            check_init(wrong)


def test_whether_the_trunk_is_frozen():
    assert check_freeze("none", "scratch") is False
    assert check_freeze("trunk", "baseline") is check_freeze("trunk", "some.ckpt") is True
    with pytest.raises(UserError, match=r"^freeze=heads: it is none or trunk$"):
        check_freeze("heads", "baseline")
    with pytest.raises(UserError, match="would leave the trunk untrained"):
        check_freeze("trunk", "scratch")


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

    # 101 images in batches of 10 are 11 steps.
    check_optimizer(optimizer, {"name": "none"}, {"baseline": 1, "joint": 2}, images=101, batch_size=10)
    assert len(built) == 2


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
        ({"gradient_clip_val": 0}, r"^trainer\.gradient_clip_val=0: it is a number above 0"),
        ({"gradient_clip_val": float("nan")}, r"^trainer\.gradient_clip_val=nan"),
        ({"gradient_clip_val": float("inf")}, r"^trainer\.gradient_clip_val=inf"),
        ({"gradient_clip_val": True}, r"^trainer\.gradient_clip_val=True"),
        ({"accelerator": "quantum"}, "the trainer's settings are refused: .*conf/trainer"),
        ({"precision": "8-true"}, "the trainer's settings are refused"),
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


def test_one_process_trains_as_it_was_told():
    for settings in (CPU, {**CPU, "devices": 1, "strategy": "ddp"}):
        assert check_trainer(settings) == settings


def test_a_strategy_that_would_run_the_command_again_is_refused():
    with pytest.raises(
        UserError, match=r"^trainer\.strategy=ddp_find_unused_parameters_false: it is .*ddp_spawn"
    ):
        check_trainer({"accelerator": "cpu", "devices": 2, "strategy": "ddp_find_unused_parameters_false"})
