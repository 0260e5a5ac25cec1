"""Loggers and callbacks from settings: several, of others, and what is refused in one line."""

import importlib.util

import pytest
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from branchynet.commands.app import conf_folder
from branchynet.commands.observers import build_callbacks, build_loggers, of_tensorboard
from branchynet.errors import UserError
from branchynet.runs.run_config import plain

LOGGED = ["val_accuracy", "val_loss"]


def group(name, *overrides):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return plain(compose("train", overrides=list(overrides)).get(name))


def test_several_loggers_at_once(tmp_path):
    loggers = build_loggers(group("logger", "logger=[tensorboard,csv]"), tmp_path, {"lr": 0.1})
    assert [type(logger) for logger in loggers] == [TensorBoardLogger, CSVLogger]
    board, table = loggers
    assert board.log_dir.rstrip("/") == str(tmp_path), "its event file lies at the run's root"
    assert dict(board.hparams) == {"lr": 0.1}
    assert table.log_dir == str(tmp_path / "csv" / "version_0")
    table.log_metrics({"a": 1.0})
    table.save()
    assert "lr: 0.1" in (tmp_path / "csv" / "version_0" / "hparams.yaml").read_text()
    assert of_tensorboard(loggers) and not of_tensorboard([table])


@pytest.mark.parametrize("overrides", [["logger=none"], ["~logger"], ["logger=[]"]])
def test_no_logger(overrides, tmp_path):
    assert build_loggers(group("logger", *overrides), tmp_path, {}) == []


def test_a_logger_of_earlier_settings_and_a_folder_of_its_own(tmp_path):
    settings = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(tmp_path / "own")}
    (logger,) = build_loggers(settings, tmp_path, {})
    assert logger.log_dir.startswith(str(tmp_path / "own"))


def test_several_callbacks_and_new_ones_for_every_stage():
    chosen = group(
        "callbacks",
        "callbacks=[early_stopping,model_summary]",
        "callbacks.early_stopping.patience=2",
        "+callbacks.mine._target_=lightning.pytorch.callbacks.Timer",
    )
    first, second = build_callbacks(chosen, LOGGED), build_callbacks(chosen, LOGGED)
    assert len(first) == 3 and first[0].patience == 2 and isinstance(first[0], EarlyStopping)
    assert not any(a is b for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("overrides", [[], ["callbacks=none"], ["~callbacks"], ["callbacks=[]"]])
def test_no_callback(overrides):
    assert build_callbacks(group("callbacks", *overrides), LOGGED) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"_target_": "lightning.pytorch.callbacks.EarlyStoppin"}, "there is no such object"),
        ({"_target_": "lightning.pytorch.callbacks.EarlyStopping"}, "'monitor'"),
        (
            {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "val_acc"},
            "one of val_accuracy",
        ),
        ({"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "monitor": "x"}, "one of val_accuracy"),
        (
            {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "val_loss", "mode": "most"},
            "most",
        ),
        (
            {
                "_target_": "lightning.pytorch.callbacks.EarlyStopping",
                "monitor": "val_loss",
                "min_delta": "abc",
            },
            "mine.min_delta=abc: input should be a valid number",
        ),
        (
            {
                "_target_": "lightning.pytorch.callbacks.EarlyStopping",
                "monitor": "val_loss",
                "patience": None,
            },
            "mine.patience=None: input should be a valid integer",
        ),
        (
            {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "val_loss", "patience": -1},
            "mine.patience=-1: it is a whole number, 0 or more",
        ),
        ({"_target_": "lightning.pytorch.callbacks.ModelSummary", "depth": 1}, "depth"),
        ({"_target_": "lightning.pytorch.callbacks.ModelSummary", "max_depth": -7}, "-7"),
        ({"_target_": "os.getcwd"}, "where Callback is wanted"),
        ({"_target_": "os.mkdir"}, "refused"),
    ],
)
def test_what_is_wrong_with_a_callback_is_one_line(settings, words):
    with pytest.raises(UserError, match=words) as caught:
        build_callbacks({"mine": settings}, LOGGED)
    assert "callbacks.mine" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"_target_": "lightning.pytorch.loggers.CSVLoger"}, "there is no such object"),
        ({"_target_": "lightning.pytorch.loggers.CSVLogger", "speed": 1}, "speed"),
        ({"_target_": "lightning.pytorch.loggers.CSVLogger", "name": ["a"]}, "mine.name=.*a valid string"),
        ({"_target_": "builtins.dict"}, "where Logger is wanted"),
    ],
)
def test_what_is_wrong_with_a_logger_is_one_line(settings, words, tmp_path):
    with pytest.raises(UserError, match=words) as caught:
        build_loggers({"mine": settings}, tmp_path, {})
    assert "logger.mine" in str(caught.value) and "\n" not in str(caught.value)


def test_rich_is_asked_for_where_it_is_missing():
    if importlib.util.find_spec("rich"):
        assert len(build_callbacks(group("callbacks", "callbacks=rich_progress"), LOGGED)) == 1
    else:
        with pytest.raises(UserError, match="pip install"):
            build_callbacks(group("callbacks", "callbacks=rich_progress"), LOGGED)
