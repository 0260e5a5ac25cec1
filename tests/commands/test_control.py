"""The settings of a controller become one, or a line that says what is wrong."""

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from branchynet.commands.app import conf_folder
from branchynet.commands.control import build_controller, state_file, wanted
from branchynet.errors import UserError
from branchynet.runtime.profile import Profile, validation_of

UNSURE = np.linspace(0, 1, 200, dtype=np.float32).reshape(100, 2)
PROFILE = Profile(
    (0.5,),
    {"latency_us": (10.0, 50.0), "macs": (1.0, 5.0)},
    validation_of(UNSURE, UNSURE.astype(int), UNSURE < 2, (0.5,)),
    1.0,
)


def settings(*overrides):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("predict", overrides=list(overrides)).controller


@pytest.mark.parametrize(
    ("name", "hold", "target"),
    [("latency", "latency_us", 30), ("macs", "macs", 2.5), ("rates", "exit_rates", [0.25])],
)
def test_every_option_makes_one(name, hold, target):
    given = settings(f"controller={name}", f"controller.target={target}", "controller.every=3")
    assert wanted(given) and state_file(given) is None
    made = build_controller(given, PROFILE)
    assert (made.hold, made.every) == (hold, 3)
    assert made.target == (tuple(target) if isinstance(target, list) else target)


def test_by_default_there_is_none():
    assert not wanted(settings())


def test_limits_by_name_and_by_number():
    given = settings("controller=latency", "controller.target=10", "controller.limit=[0.2]")
    assert build_controller(given, PROFILE).thresholds[0] <= np.float32(0.2)  # as engines compare
    for name in ("none", "certified"):
        assert build_controller(
            settings("controller=latency", f"controller.limit={name}"), PROFILE
        ).thresholds


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("controller.target=9", r"^controller\.target=9: it is at least 10\.0 µs"),
        ("+controller.speed=1", r"^controller\.speed: there is no such setting; there are hold, target,"),
        ("controller.limit=[1,2]", r"^controller\.limit=\[1, 2\]"),
    ],
)
def test_misuse_is_one_line_with_the_settings_name(override, words):
    with pytest.raises(UserError, match=words):
        build_controller(settings("controller=latency", override), PROFILE)


def test_a_controller_that_is_no_group():
    with pytest.raises(UserError, match="it is a group"):
        wanted("latency")


def test_a_state_that_could_not_be_written_is_told_before_the_images(tmp_path):
    there = tmp_path / "state.json"
    assert state_file(settings("controller=latency", f"controller.state={there}")) == there
    assert list(tmp_path.iterdir()) == [], "it is written at the end"
    with pytest.raises(UserError, match=r"controller\.state=.*there is no folder"):
        state_file(settings("controller=latency", f"controller.state={tmp_path}/none/state.json"))
