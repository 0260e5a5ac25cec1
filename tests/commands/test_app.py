"""How the commands take their arguments, and how they tell of mistakes."""

import logging
import os
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException, InstantiationException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from branchynet.commands import app, predict
from branchynet.commands.app import (
    conf_folder,
    config_folders,
    user_message,
)
from branchynet.errors import UserError, not_allowed


def composed(name, *overrides):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose(name, overrides=list(overrides))


def test_a_name_that_is_no_text_gets_one_line(run_command, capsys, tmp_path, monkeypatch):
    assert run_command(lambda: None, os.fsdecode(b"input=caf\xe9.png")) == 2
    assert "caf\\udce9.png" in (error := capsys.readouterr().err) and error.count("\n") == 1
    try:
        folder = tmp_path / os.fsdecode(b"caf\xe9")
        folder.mkdir()
    except OSError:
        pytest.skip("a file system whose names are texts")
    monkeypatch.chdir(folder)
    assert run_command(lambda: None) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_settings_are_where_every_command_finds_its_own():
    names = {path.stem for path in conf_folder().glob("*.yaml")}
    assert {"train", "evaluate", "export", "predict"} <= names


def typed(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["branchynet train", *arguments])


def test_ones_own_settings_are_looked_up_after_ours(monkeypatch):
    typed(monkeypatch, "--config-dir", "mine", "--help", "trainer")
    assert config_folders() == [conf_folder(), Path("mine")]
    typed(monkeypatch)
    assert config_folders() == [conf_folder()]


def from_cause(error, cause):
    """`error` as `raise error from cause` leaves it."""
    error.__cause__ = cause
    return error


def test_a_users_mistake_is_found_however_deep_it_lies():
    deep = from_cause(RuntimeError("in between"), UserError("look\n  here"))
    assert user_message(from_cause(ValueError("above"), deep)) == "look here"
    assert user_message(not_allowed("n", 0, "above 0")) == "n=0: it is above 0"


def test_hydras_mistakes_say_where_to_look(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["branchynet train"])
    with pytest.raises(MissingConfigException) as caught:
        composed("train", "criterion=entropie")
    message = user_message(caught.value)
    assert "entropie" in message and "margin" in message and "--help" in message
    assert "\n" not in message and "Config search path" not in message
    # One of several.
    with pytest.raises(MissingConfigException) as caught:
        composed("train", "callbacks=[early_stopping,model_sumary]")
    message = user_message(caught.value)
    assert "'callbacks/model_sumary'" in message and "\n" not in message
    assert "Available options in 'callbacks': early_stopping gradient_norms learning_rate_monitor" in message
    # In a group inside another: not the outer one's options.
    with pytest.raises(MissingConfigException) as caught:
        composed("train", "experiment=ablation/nosuch")
    message = user_message(caught.value)
    assert (
        "Available options in 'experiment/ablation': averaging" in message and "b_lenet_mnist" not in message
    )
    # A group that the command has not: what Hydra would have appended is none of ours.
    with pytest.raises(ConfigCompositionException) as caught:
        composed("export", "run=x", "criterion=mlp")
    message = user_message(caught.value)
    assert message.startswith("Could not override 'criterion'") and "append" not in message
    # A setting of another option: which one, where some have it.
    for name, whose in (
        ("sweep.rule.gain", " It is a setting of sweep/rule=gain_floor."),
        ("sweep.rule.no", ""),
    ):
        with pytest.raises(ConfigCompositionException) as caught:
            composed("train", f"{name}=3")
        assert user_message(caught.value).startswith(f"Could not override '{name}'.{whose} (see `--help`")
    with pytest.raises(OmegaConfBaseException) as caught:
        OmegaConf.create({"a": "${nowhere}"}).a  # noqa: B018
    assert "nowhere" in user_message(caught.value)


def test_what_the_machine_forbids_is_no_bug():
    refused = PermissionError(13, "Permission denied", "/a/b")
    assert user_message(refused) == "/a/b cannot be read or written (Permission denied)"
    assert user_message(FileNotFoundError(2, "No such file or directory", "/a/b")) is None


def test_a_bug_of_ours_is_no_user_mistake():
    assert user_message(ZeroDivisionError("division by zero")) is None
    assert user_message(KeyError("missing")) is None
    # Something that Hydra called has failed, and not for its arguments.
    assert user_message(from_cause(InstantiationException("x"), ZeroDivisionError())) is None
    assert user_message(from_cause(InstantiationException("x"), TypeError("no argument 'y'"))) is not None


@pytest.fixture
def run_command(monkeypatch):
    """A function that runs the command `predict` with another `main`, and returns the exit code and what it saw."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    monkeypatch.setattr(sys, "argv", ["pytest"])

    def run(main, *arguments):
        monkeypatch.setattr(predict, "main", main)
        try:
            app.run("predict", arguments or ["a=1"])
        except SystemExit as exit:
            return exit.code
        return 0

    return run


def raises(error):
    def main():
        raise error

    return main


def test_a_command_gets_its_own_arguments(run_command):
    seen = []
    assert run_command(lambda: seen.append((list(sys.argv), os.environ["HYDRA_FULL_ERROR"]))) == 0
    assert seen == [(["branchynet predict", "a=1"], "1")]


def test_a_mistake_is_the_last_line_on_stderr_and_the_code_2(run_command, capsys):
    assert run_command(raises(UserError("a\nb"))) == 2
    assert capsys.readouterr().err == "branchynet: a b\n"


def test_ctrl_c_is_told_and_has_the_shells_code(run_command, capsys):
    assert run_command(raises(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "branchynet: stopped\n"


def test_a_bug_keeps_its_traceback(run_command):
    with pytest.raises(ZeroDivisionError):
        run_command(raises(ZeroDivisionError()))


def test_a_folder_that_hydra_cannot_make_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(sys, "argv", ["pytest"])
    with pytest.raises(SystemExit) as left:
        app.run("train", [f"hydra.run.dir={tmp_path}/file/run"])
    assert left.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith(f"branchynet: the folder {tmp_path}/file/run cannot be written (Not a directory)")
    assert "hydra.run.dir=<folder>" in line and line.count("\n") == 1


def test_the_names_of_runs_know_their_settings(run_command):
    """What conf/ refers to is there once a command runs."""
    seen = []

    def main():
        config = OmegaConf.create(
            {
                "a": "${run_name:'b=1,c=x/y'}",
                "p": "${pid:}",
                "yes": "${if:${q},1,2}",
                "no": "${if:1,1,2}",
                "q": True,
            }
        )
        seen.append(OmegaConf.to_container(config, resolve=True))

    assert run_command(main) == 0
    assert seen == [{"a": "-b=1,c=x_y", "p": os.getpid(), "yes": 1, "no": 2, "q": True}]


def test_a_group_that_is_null_is_a_mistake_of_one_line():
    """As Hydra tells it: a ValueError of its own."""
    message = user_message(ValueError("Config group override must be a string or a list. Got NoneType"))
    assert message is not None and "null" in message and "\n" not in message
    assert user_message(ValueError("something else")) is None


def test_a_closed_pipe_is_told_by_the_exit_code_alone(monkeypatch, tmp_path, capsys):
    """Of a job, too: Hydra would print a line of its own before it."""

    def gone(text=""):
        sys.exit(141)

    def prints(config, folder):
        raise BrokenPipeError(32, "Broken pipe")

    app.register_resolvers()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.root, "handlers", [])  # Hydra's, of another test's stdout
    monkeypatch.setattr(sys, "argv", ["branchynet report", "folders=[x]"])
    monkeypatch.setattr(app.terminal, "check_stdout", gone)
    with pytest.raises(SystemExit) as left:
        app.start(prints, "report")
    assert left.value.code == 141 and capsys.readouterr().err == ""
