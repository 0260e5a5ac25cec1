"""The callback: what it leaves once fitting has ended, of which network, and where."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from branchynet.callbacks.threshold_sweep import ThresholdSweep
from branchynet.evaluation.fitting import part_of_validation
from branchynet.evaluation.settings import Measuring, SweepSettings
from branchynet.exits.combining import Average, fit_shares
from branchynet.exits.criteria import Criterion, Entropy
from branchynet.exits.rules import AccuracyFloor
from branchynet.runs.stored import read_criterion, read_trace
from branchynet.runtime.catalogue import ENGINES

pytestmark = pytest.mark.usefixtures("undrawn")
SETTINGS = {"_target_": "branchynet.exits.criteria.Entropy"}


def settings(**changes):
    measuring = Measuring((ENGINES["torch"],), threads=1, seconds=0.01)
    made = {"experiment": "tiny", "seed": 3, "criterion": Entropy(), "rule": AccuracyFloor()}
    return SweepSettings(**{**made, "measuring": measuring, **changes})


@pytest.fixture
def ended(bright_data, bright_network, tmp_path):
    """A function that ends the fitting of a network, and the folder where the callback's files go."""

    def end(
        network=None,
        baseline=None,
        logger=None,
        first=True,
        stored=SETTINGS,
        hparams=None,
        command=None,
        **changes,
    ):
        trainer = SimpleNamespace(
            is_global_zero=first, datamodule=bright_data, loggers=[logger] if logger else []
        )
        module = SimpleNamespace(network=network or bright_network())
        swept = settings(**changes)
        baseline = baseline or bright_network(5.0)
        sweep = ThresholdSweep(baseline, tmp_path / "run", swept, stored, hparams, command=command)
        sweep.on_fit_end(trainer, module)

    return end, tmp_path / "run"


def test_files_of_the_paper_protocol_are_marked(ended):
    end, folder = ended
    end(protocol="paper")
    assert json.loads((folder / "result.json").read_text())["protocol"] == "paper"
    assert json.loads((folder / "result.json").read_text())["seed"] == 3
    assert (folder / "report.md").read_text().count("protocol: paper") == 2
    chosen_on = {line.split(",")[2] for line in (folder / "trade_offs.csv").read_text().splitlines()[1:]}
    assert chosen_on == {"test"}


def test_a_page_is_written_where_a_command_is_given_for_it(ended):
    end, folder = ended
    end(command="branchynet evaluate run=there")
    assert (folder / "report.html").stat().st_size > 300_000
    end()
    assert not (folder / "report.html").exists(), "it would show other numbers"


def test_it_leaves_the_traces_of_the_fitted_network_and_prints_the_table(
    ended, bright_network, bright_data, capsys
):
    end, folder = ended
    network = bright_network(sharpness=4.0)
    end(network)
    assert "operating point, measured" in capsys.readouterr().out
    for which in ("val", "test"):
        x, y = next(bright_data.batches(which, 10_000))
        found = read_trace(folder / f"trace-{which}.npz")
        with torch.no_grad():
            expected = torch.stack([Entropy()(logits) for logits in network(x)], 1)
        assert torch.allclose(found.uncertainty, expected, atol=1e-6) and torch.equal(found.label, y)
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "trade_off.png",
        "thresholds.png",
        "uncertainty.png",
        "confusion.png",
        "samples.png",
        "rising.png",
    }


def test_the_fitted_network_stays_as_it_was(ended, bright_network):
    end, _ = ended
    network, baseline = bright_network().train(), bright_network(5.0).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    end(network, baseline)
    assert network.training and baseline.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_baseline_is_the_one_that_was_given(ended, bright_network):
    end, folder = ended
    blind = bright_network()
    with torch.no_grad():
        for parameter in blind.heads[-1].parameters():
            parameter.copy_(parameter.flip(0))
    end(bright_network(), blind)
    result = json.loads((folder / "result.json").read_text())
    assert result["baseline"]["accuracy"] < 0.5 < result["exits"][1]["accuracy"]


def test_other_processes_do_nothing(ended):
    end, folder = ended
    end(first=False)
    assert not folder.exists()


class Share(Criterion):
    """1 - the largest probability, times the share of what it is fitted on that the exit is right about."""

    name, unit, learns = "share", "units", True

    def prepare(self, num_classes, shape):
        self.share = nn.Parameter(torch.zeros(1))

    def fit(self, logits, label, features=None):
        with torch.no_grad():
            self.share.fill_((logits.argmax(1) == label).float().mean())

    def forward(self, logits):
        return (1 - logits.softmax(1).amax(1)) * self.share


def test_what_the_criterion_has_learned_is_left_with_its_settings(ended, bright_network, bright_data):
    end, folder = ended
    told = {"_target_": "somewhere.Share", "more": [1, {"two": None}]}
    network = bright_network()
    end(network, stored=told, criterion=Share())
    stored = read_criterion(folder / "criterion.pt")
    assert (stored.settings, stored.traced_by) == (told, "torch")
    (x,), y = stored.fitting.normalised(bright_data), stored.fitting.labels(bright_data)
    assert len(y) == 50, "half of validation; the other half chooses"
    shares = [float((logits.argmax(1) == y).float().mean()) for logits in network(x)]
    assert shares[0] != shares[1]
    assert [float(state["share"]) for state in stored.states] == pytest.approx(shares)
    result = json.loads((folder / "result.json").read_text())
    assert result["knee"]["criterion"] == "share"


def test_tensorboard_gets_the_report_where_there_is_one(ended, tmp_path):
    end, folder = ended
    logger = TensorBoardLogger(save_dir=str(tmp_path / "log"), name="", version="")
    end(logger=logger, hparams={"seed": 3, "rule": "accuracy_floor"})
    logger.experiment.close()
    events = EventAccumulator(str(tmp_path / "log"), size_guidance={"images": 0})
    events.Reload()
    result = json.loads((folder / "result.json").read_text())
    (accuracy,) = events.Scalars("operating_point/accuracy")
    assert accuracy.value == pytest.approx(result["knee"]["accuracy"])
    assert "sweep/samples" in events.Tags()["images"]


def test_a_run_is_finished_when_its_events_are_written(ended, tmp_path, monkeypatch):
    end, _ = ended
    logger = TensorBoardLogger(save_dir=str(tmp_path / "log"), name="", version="")
    seen = []

    def finish(*arguments):
        events = EventAccumulator(str(tmp_path / "log"), size_guidance={"images": 0})
        events.Reload()
        seen.extend(events.Tags()["scalars"] + events.Tags()["images"])

    monkeypatch.setattr("branchynet.callbacks.threshold_sweep.write_run", finish)
    end(logger=logger, hparams={"seed": 3, "rule": "accuracy_floor"})
    logger.experiment.close()
    assert {"operating_point/accuracy", "sweep/samples"} <= set(seen)


def test_other_loggers_get_the_reports_numbers(ended, tmp_path):
    end, folder = ended
    logger = CSVLogger(tmp_path / "log", name="", version="")
    end(logger=logger)
    (row,) = csv.DictReader((tmp_path / "log" / "metrics.csv").read_text().splitlines())
    result = json.loads((folder / "result.json").read_text())
    assert float(row["baseline/accuracy"]) == pytest.approx(result["baseline"]["accuracy"])
    assert "trade_off" in "".join(row)


def test_shares_are_fitted_and_left_with_the_criterion(ended, bright_network, bright_data):
    end, folder = ended
    network = bright_network()
    end(network, combining=Average())
    stored, result = read_criterion(folder / "criterion.pt"), json.loads((folder / "result.json").read_text())
    with torch.no_grad():
        x, y = next(bright_data.batches("val", 10_000))
        fitted = part_of_validation(y, 0.5).val  # the others choose
        assert stored.shares == fit_shares(network(x[fitted]), y[fitted]) == tuple(result["shares"])
        x, y = next(bright_data.batches("test", 10_000))
        expected = [logits.argmax(1) for logits in network(x)]
    assert torch.equal(read_trace(folder / "trace-test.npz").alone, torch.stack(expected, 1))
    assert network.shares is None, "the trained network stays as it was"
