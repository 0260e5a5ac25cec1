"""Exits that are placed: said on the command line, whatever the model's own are."""

import sys

import pytest
from hydra import compose, initialize_config_dir

from branchynet.commands.app import conf_folder
from branchynet.commands.auto_exits import join_auto_exits
from branchynet.commands.settings import check_settings
from branchynet.commands.train import settled
from branchynet.runs.run_config import plain


@pytest.mark.parametrize("model", ["b_lenet", "resnet18"])
@pytest.mark.parametrize(
    ("exits", "number"), [("{count:1}", 1), ("[{after: input}]", 1), ("{at:[0.2,0.5,0.7]}", 3), ("auto", 2)]
)
def test_exits_are_placed_and_the_settings_say_where(model, exits, number, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["branchynet train", f"model={model}", "data=digits", f"model.exits={exits}"]
    )
    join_auto_exits()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("train", overrides=sys.argv[1:])
    settings = plain(config)
    found, data = settled(settings)
    made = found["model"]
    assert len(made["exits"]) == number and all(each["after"] for each in made["exits"])
    check_settings({**settings, "model": made})
    assert "auto" not in made["trunk"].values() and made["trunk"]["in_channels"] == 1
    assert (data is None) == (found["model"] == settings["model"])
    assert data is None or data.input_shape == (1, 28, 28), "they are handed on, and not read again"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["model.exits=auto", "model.exits.count=3", "seed=1"],
            ["~model.exits", "+model.exits={count:3}", "seed=1"],
        ),
        (["model.exits.at=[0.2,0.5]", "model.exits=auto"], ["~model.exits", "+model.exits={at:[0.2,0.5]}"]),
        (["model.exits={count: 3}"], ["~model.exits", "+model.exits={count: 3}"]),
        (["model.exits=[{after: conv1}]"], ["~model.exits", "+model.exits=[{after: conv1}]"]),
        (["model.exits=auto"], ["model.exits=auto"]),
        (["model.exits.count=3"], ["model.exits.count=3"]),
    ],
)
def test_auto_exits_on_the_command_line_are_one_setting(words, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["branchynet train", *words])
    join_auto_exits()
    assert sys.argv[1:] == expected
