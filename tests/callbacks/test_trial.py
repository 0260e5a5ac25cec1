"""A trial of a search: a run that is judged on validation, and can be finished later."""

import json

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from branchynet.callbacks.trial import TellAccuracy, Trial, read_trial
from branchynet.commands.app import conf_folder
from branchynet.commands.train_run import train_run
from branchynet.data.module import ImageData
from branchynet.runs.result_schema import TRIAL
from branchynet.runs.run_config import plain
from branchynet.runs.started_run import start_run


class Stop(Exception):
    """What ends a trial."""


def settings(finished, *overrides):
    """Those of the tiny finished run, so that its baseline is in the cache; with an exit on the image."""
    exits = "model.exits=[{after:input,convs:[4],kernel:5,stride:4}]"
    common = [
        "experiment=b_lenet_digits",
        "trainer=cpu",
        "epochs.baseline=1",
        "epochs.joint=2",
        "schedule=none",
    ]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose(
            "train",
            [*common, "logger=csv", f"cache={finished.parent}/cache", exits, "engine=torch", *overrides],
        )
    return OmegaConf.create(plain(config))


def test_a_trial_is_trained_told_and_judged_without_the_test_split(finished, tmp_path, monkeypatch, caplog):
    batches, seen, told, looked = ImageData.batches, set(), [], []

    def watched(self, which, *arguments):
        seen.add(which)
        return batches(self, which, *arguments)

    def no_clock(*arguments, **named):
        raise AssertionError("an engine is timed")

    monkeypatch.setattr(ImageData, "batches", watched)
    monkeypatch.setattr(ImageData, "test_dataloader", no_clock)
    monkeypatch.setattr("branchynet.evaluation.evidence.measure_latencies", no_clock)
    config = settings(finished)
    start_run(tmp_path, plain(config))
    with caplog.at_level("INFO"):
        found = train_run(config, tmp_path, Trial(0.0, lambda *each: told.append(each), looked.append))
    assert "the baseline is taken from" in caplog.text
    assert found == read_trial(tmp_path) == json.loads((tmp_path / TRIAL).read_text())
    assert "test" not in seen and not (tmp_path / "result.json").exists()
    # One side exit, whose accuracy on validation is told after each of the two epochs; the best epoch is kept.
    assert [epoch for epoch, _ in told] == [0, 1]
    assert found["exits"][0] in [pytest.approx(accuracy, abs=0.011) for _, accuracy in told]
    (macs,) = looked
    assert macs.baseline == found["baseline_macs"] and 0 < macs.exits[0] < macs.exits[1]
    (metrics,) = (path.read_text() for path in tmp_path.rglob("metrics.csv"))
    assert "trial/gain" in metrics.splitlines()[0]


def test_what_is_told_may_end_it(finished, tmp_path):
    def tell(epoch, accuracy):
        raise Stop

    config = settings(finished)
    start_run(tmp_path, plain(config))
    with pytest.raises(Stop):
        train_run(config, tmp_path, Trial(0.0, tell))
    assert not (tmp_path / TRIAL).exists()

    with pytest.raises(Stop):  # and before anything is trained
        train_run(config, tmp_path / "other", Trial(0.0, tell, lambda macs: (_ for _ in ()).throw(Stop)))
    assert not (tmp_path / "other" / "checkpoints").exists()


def test_the_mean_is_of_the_side_exits_that_are_trained():
    class Fake:
        num_exits = 4
        current_epoch = 7
        callback_metrics = {  # noqa: RUF012
            "joint/val_accuracy_exit_1": 0.5,
            "joint/val_accuracy_exit_3": 0.7,
            "joint/val_accuracy_exit_4": 0.9,
            "joint/val_accuracy": 0.1,
        }

    Fake.network = Fake
    told = []
    TellAccuracy(lambda *each: told.append(each)).on_train_epoch_end(Fake, Fake)
    assert told == [(7, pytest.approx(0.6))]
    Fake.callback_metrics = {"joint/val_accuracy_exit_4": 0.9}
    TellAccuracy(lambda *each: told.append(each)).on_train_epoch_end(Fake, Fake)
    assert len(told) == 1, "no side exit is trained"
