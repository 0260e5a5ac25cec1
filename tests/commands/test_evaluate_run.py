"""Evaluating again: from the stored evidence alone where that is enough, with the network where it is not."""

import base64
import gzip
import json
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from branchynet.api import load
from branchynet.commands.app import conf_folder
from branchynet.commands.evaluate import read_run_settings, store_as_in_run
from branchynet.commands.evaluate_run import evaluate_run, hparams
from branchynet.errors import UserError
from branchynet.evaluation.fitting import same_images
from branchynet.exits.criteria import Margin
from branchynet.reporting.caches import CachePoint, CacheStudy
from branchynet.runs.build import build_sweep
from branchynet.runs.finished_run import open_run
from branchynet.runs.stored import read_criterion, write_criterion
from branchynet.runtime.adapt import adapt

pytestmark = pytest.mark.usefixtures("undrawn")
QUICK = ["engine.seconds=0.01"]


def evaluate(run, out, *overrides):
    store_as_in_run(read_run_settings(run))
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("evaluate", overrides=[f"run='{run}'", "page=false", *overrides])
    return evaluate_run(config, out, overrides)


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.fixture
def bare(finished, tmp_path, monkeypatch):
    """A run with nothing left but its evidence; whoever reads a data set or a network fails."""
    run = tmp_path / "bare"
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("checkpoints"))
    for name in ("branchynet.data.module.load_dataset", "branchynet.runs.finished_run.build_network"):
        monkeypatch.setattr(name, lambda *arguments: pytest.fail("network or data set were touched"))
    return run


def test_nothing_overridden_gives_the_runs_own_result_but_for_the_real_run(finished, bare, tmp_path, capsys):
    found = evaluate(bare, tmp_path / "out")
    expected = result_of(finished)
    assert expected["knee"].pop("measured")["accuracy"] == expected["knee"]["accuracy"]
    assert found["knee"].pop("measured") is None
    # The latencies are as doubtful as they were; the run's own reason may be the run for real.
    assert len(found.pop("noise")) == min(1, len(expected.pop("noise")))
    assert found == expected
    for name in ("sweep.csv", "trade_offs.csv", "costs.csv"):
        assert (tmp_path / "out" / name).read_text() == (finished / name).read_text(), name
    out = capsys.readouterr().out
    assert "operating point, predicted" in out and "operating point, measured" not in out
    assert "Not run for real" in out
    # The figures, too, but for the images, which are not there.
    names = {path.name for path in (finished / "figures").iterdir()}
    assert {path.name for path in (tmp_path / "out" / "figures").iterdir()} == names - {"samples.png"}


def test_its_page_names_the_run_and_what_its_thresholds_are_of(bare, tmp_path):
    """Without images, for the data set is not touched."""
    evaluate(bare, tmp_path / "out", "page=true", "sweep.protocol=paper", "sweep/rule=knee")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    packed = re.search(r'id="data">([^<]*)<', page)[1]
    data = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert data["command"] == f"branchynet evaluate run={bare} sweep.protocol=paper"
    assert (data["live"], data["rule"]) == ("test", "knee")
    assert [split["images"] for split in data["splits"].values()] == [None, None]
    evaluate(bare, tmp_path / "out")
    assert not (tmp_path / "out" / "report.html").exists()


def slow_points(folder, split, threshold):
    """Accuracy and rate of exit 1 at a threshold, sample by sample."""
    with np.load(folder / f"trace-{split}.npz") as trace:
        rows = zip(trace["uncertainty"], trace["prediction"], trace["label"], strict=True)
        left = [(u[0] < np.float32(threshold), p, y) for u, p, y in rows]
    right = [p[0 if early else 1] == y for early, p, y in left]
    return np.mean(right), np.mean([early for early, _, _ in left])


def test_a_distance_moves_the_point_to_the_fastest_that_is_allowed(bare, tmp_path, capsys):
    found = evaluate(bare, tmp_path / "out", "sweep/rule=accuracy_floor", "sweep.rule.distance=0.9")["knee"]
    # Anything is accurate enough: everybody leaves at exit 1.
    assert found["exit_rates"][0] == 1
    assert found["accuracy"] == pytest.approx(slow_points(bare, "test", 9.0)[0])
    assert found["latency_us"] == 30 and found["gain_latency"] == pytest.approx(100 / 30)


def test_the_small_networks_of_the_runs_settings_stand_beside_it(bare, tmp_path, capsys):
    path = bare / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    assert config.data.rivals == [] and "rivals" not in result_of(bare)
    config.data.rivals = [{"name": "small", "macs": 1000, "accuracy": 1.0, "source": "its README"}]
    OmegaConf.save(config, path)
    found = evaluate(bare, tmp_path / "out")
    assert found["rivals"] == [{"name": "small", "macs": 1000, "accuracy": 1.0, "source": "its README"}]
    assert "| small | 0.001 | 100.00 | its README |" in (tmp_path / "out" / "report.md").read_text()
    assert "more accurate for no more MACs, as published: small" in capsys.readouterr().out


def test_another_rule_and_protocol(bare, tmp_path, capsys):
    baseline = result_of(bare)["baseline"]
    budget = result_of(bare)["exits"][0]["macs"]
    found = evaluate(bare, tmp_path / "macs", "sweep/rule=mac_budget", f"sweep.rule.budget_macs={budget}")
    assert found["knee"]["rule"] == "mac_budget" and found["knee"]["macs"] == budget
    assert found["baseline"] == baseline

    paper = evaluate(bare, tmp_path / "paper", "sweep.protocol=paper", "sweep/rule=mac_budget")
    assert paper["protocol"] == "paper"
    # The rule's own budget, 300,000: as many may go on as it pays for. The best of test, by trying all.
    early, late = (exit_["macs"] for exit_ in paper["exits"])
    with np.load(bare / "trace-test.npz") as trace:
        limits = sorted({0.0, *trace["uncertainty"][:, 0].tolist(), 9.0})
    allowed = [
        accuracy
        for accuracy, rate in (slow_points(bare, "test", limit) for limit in limits)
        if rate * early + (1 - rate) * late <= 300_000
    ]
    assert paper["knee"]["accuracy"] == pytest.approx(max(allowed))


@pytest.mark.parametrize("source", ["trace", "network"])
def test_on_validation_nothing_is_said_of_test(source, finished, tmp_path, capsys):
    found = evaluate(finished, tmp_path / "out", "split=val", f"from={source}", *QUICK)
    accuracy, rate = slow_points(finished, "val", found["knee"]["thresholds"][0])
    assert found["split"] == "val"
    assert found["knee"]["accuracy"] == pytest.approx(accuracy)
    assert found["knee"]["exit_rates"][0] == pytest.approx(rate)
    measured = found["knee"]["measured"]
    assert measured is None if source == "trace" else measured["accuracy"] == pytest.approx(accuracy)
    with np.load(finished / "trace-val.npz") as trace:
        forced = (trace["prediction"] == trace["label"][:, None]).mean(axis=0)
    assert [e["accuracy"] for e in found["exits"]] == pytest.approx(list(forced))
    assert not (tmp_path / "out" / "trace-test.npz").exists()
    out = capsys.readouterr().out
    assert "on validation" in out and "on test" not in out and "flatter" in out


@pytest.mark.parametrize("source", ["trace", "network"])
def test_on_validation_nothing_that_is_written_names_test(source, copied, tmp_path):
    with_logger(copied)
    # A folder without the word, of which pytest's own names are full.
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        run = Path(shutil.copytree(copied, Path(folder) / "run"))
        out = Path(folder) / "out"
        evaluate(run, out, "split=val", f"from={source}", *QUICK)
        written = [path for path in out.rglob("*") if path.is_file()]
        assert {"report.md", "result.json", "sweep.csv", "trade_offs.csv", "evaluate.yaml", "costs.csv"} <= {
            path.name for path in written
        }
        for path in written:
            assert "test" not in str(path.relative_to(out)).lower()
            # What the figures say is looked at where they are drawn.
            if path.suffix != ".png" and "tfevents" not in path.name:
                content = path.read_bytes().lower().replace(b"fastest", b"")
                assert b"test" not in content, path
        events = EventAccumulator(str(out), size_guidance={"tensors": 0})
        events.Reload()
        tags = [tag for kind in ("scalars", "images", "tensors") for tag in events.Tags()[kind]]
        assert {"operating_point/accuracy", "sweep/trade_off", "sweep/summary/text_summary"} <= set(tags)
        assert not any("test" in tag for tag in tags)
        for tag in events.Tags()["tensors"]:
            (event,) = events.Tensors(tag)
            text = event.tensor_proto.string_val[0].decode(errors="replace").lower().replace("fastest", "")
            assert "test" not in text, tag


def test_other_thresholds_keep_the_runs_rule(bare, tmp_path, capsys):
    found = evaluate(bare, tmp_path / "out", "sweep.thresholds=[0.5]")
    # Besides 0 and one above all.
    assert len((tmp_path / "out" / "sweep.csv").read_text().splitlines()) == 4
    assert found["knee"]["rule"] == "accuracy_floor"


def test_another_criterion_needs_the_network_and_may_be_shown_other_images(finished, tmp_path, capsys):
    found = evaluate(finished, tmp_path / "out", "criterion=margin", "outside=[noise]", *QUICK)
    (noise,) = found["outside"]
    assert noise["source"] == "noise" and sum(noise["exit_rates"]) == pytest.approx(1)
    assert len(noise["auroc"]) == len(noise["exit_rates"]) == len(found["exits"])
    assert "| noise | " in (tmp_path / "out" / "report.md").read_text()
    assert found["knee"]["criterion"] == "margin"
    assert found["knee"]["measured"]["accuracy"] == found["knee"]["accuracy"]
    assert "adaptive" not in found
    run = open_run(finished)
    x, _ = next(run.data.batches("test", 10_000))
    with np.load(tmp_path / "out" / "trace-test.npz") as trace:
        expected = Margin()(run.network(x)[0]).detach().numpy()
        assert trace["uncertainty"][:, 0] == pytest.approx(expected, abs=1e-5)
    assert (tmp_path / "out" / "figures" / "samples.png").is_file()
    assert [e["accuracy"] for e in found["exits"]] == [e["accuracy"] for e in result_of(finished)["exits"]]


def test_thresholds_are_adapted_beside_the_fixed_ones_from_the_stored_traces(finished, tmp_path):
    found = evaluate(finished, tmp_path / "out", "adaptive=true", "from=trace")
    told, knee = found["adaptive"], found["knee"]
    # As `branchynet predict` would, whose profile is the run's.
    with np.load(finished / "trace-test.npz") as stored:
        expected = adapt(open_run(finished).profile, stored["uncertainty"], stored["prediction"])
        right = stored["prediction"] == stored["label"][:, None]
    assert np.isfinite(told["thresholds"]).all() and told["allowed"] == expected.allowed
    assert told["estimated_accuracy"] == expected.accuracy and told["exit_rates"] == list(expected.exit_rates)
    assert abs(told["accuracy"] - knee["accuracy"] - told["accuracy_minus_fixed"]) < 1e-9
    assert right.any(axis=1).mean() >= told["accuracy"] >= right.all(axis=1).mean()
    assert "| adaptive | " in (tmp_path / "out" / "report.md").read_text()


def test_in_place_measures_anew_and_keeps_the_settings(copied, capsys):
    config = (copied / ".hydra" / "config.yaml").read_text()
    before = result_of(copied)
    # No number of the old run may survive by not being written.
    (copied / "result.json").write_text(json.dumps({**before, "machine": "another", "seed": before["seed"]}))
    found = evaluate(copied, copied, "in_place=true", *QUICK)
    assert found == result_of(copied)
    assert found["machine"] == before["machine"] and found["knee"]["measured"]["latency_us"] > 0
    assert found["knee"]["measured"] != before["knee"]["measured"]
    assert [e["accuracy"] for e in found["exits"]] == [e["accuracy"] for e in before["exits"]]
    assert found["baseline"]["latency_us"] != 100
    assert (copied / ".hydra" / "config.yaml").read_text() == config


def with_logger(run):
    """The fixture's run has none."""
    config = OmegaConf.load(run / ".hydra" / "config.yaml")
    config.logger = {"_target_": "lightning.pytorch.loggers.TensorBoardLogger"}
    OmegaConf.save(config, run / ".hydra" / "config.yaml")
    return config


def test_a_folder_that_cannot_be_written_is_told_before_the_work(copied, tmp_path, monkeypatch):
    monkeypatch.setattr("branchynet.commands.evaluate_run.sweep", lambda *_: pytest.fail("it was worked"))
    shutil.rmtree(copied / "figures")
    (copied / "figures").write_text("x")
    before = result_of(copied)
    with pytest.raises(UserError, match=rf"^the folder {copied}/figures cannot be written"):
        evaluate(copied, copied, "in_place=true", *QUICK)
    with pytest.raises(UserError, match=rf"^the folder {copied}/figures/out cannot be written"):
        evaluate(copied, copied / "figures" / "out")
    assert result_of(copied) == before


@pytest.mark.parametrize("in_place", [False, True])
def test_tensorboard_shows_the_evaluation(in_place, copied, tmp_path, capsys):
    config = with_logger(copied)
    out = copied if in_place else tmp_path / "out"
    rule = ["sweep/rule=accuracy_floor", "sweep.rule.distance=0.2"]
    found = evaluate(copied, out, *rule, *(["in_place=true", *QUICK] if in_place else []))
    events = EventAccumulator(str(out))
    events.Reload()
    assert events.Scalars("operating_point/accuracy")[-1].value == pytest.approx(found["knee"]["accuracy"])
    assert events.Scalars("operating_point/latency_us")[-1].value == pytest.approx(
        found["knee"]["latency_us"]
    )
    assert ("sweep/samples" in events.Tags()["images"]) == in_place
    expected = {"rule": "accuracy_floor", "model": config.model.name, "batch_size": config.data.batch_size}
    store_as_in_run(read_run_settings(copied))
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        settings = compose("evaluate", overrides=[f"run='{copied}'", *rule])
    shown = hparams(open_run(copied), build_sweep(settings, "name", 0))
    assert shown.items() >= expected.items()


def test_the_hparams_are_the_runs_with_those_of_the_evaluation(copied):
    store_as_in_run(read_run_settings(copied))
    overrides = [
        f"run='{copied}'",
        "criterion=margin",
        "sweep/rule=knee",
        "engine=onnxruntime",
        "engine.threads=2",
    ]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        settings = compose("evaluate", overrides=overrides)
    shown = hparams(open_run(copied), build_sweep(settings, "name", 0))
    new = {"criterion": "margin", "rule": "knee", "engine": "onnxruntime", "threads": 2}
    assert shown.items() >= new.items()
    kept = {"experiment": "b_lenet_digits", "weights": "1 1", "epochs_joint": 2, "objective": "Joint"}
    assert shown.items() >= kept.items()


def test_in_place_with_another_criterion_the_traces_are_known_to_be_of_that_one(copied, tmp_path, caplog):
    """The run's settings still name the criterion that it was trained with."""
    caplog.set_level("INFO")
    found = evaluate(copied, copied, "criterion=margin", "in_place=true", *QUICK)
    assert found["knee"]["criterion"] == "margin"
    assert read_criterion(copied / "criterion.pt").settings == {
        "_target_": "branchynet.exits.criteria.Margin"
    }
    # Another rule, from the traces, for the criterion that they are of …
    rule = "sweep/rule=knee"
    again = evaluate(copied, tmp_path / "margin", rule, "criterion=margin", "from=trace")
    assert (again["knee"]["criterion"], again["knee"]["rule"]) == ("margin", "knee")
    # … but not for the one of the settings, whatever those say.
    with pytest.raises(UserError, match=r"from=trace is not enough, because .* of the criterion margin"):
        evaluate(copied, tmp_path / "entropy", rule, "from=trace")
    caplog.clear()
    again = evaluate(copied, tmp_path / "entropy", rule, *QUICK)
    assert again["knee"]["criterion"] == "entropy"
    assert "running the network, because the stored traces are of the criterion margin" in caplog.text
    with np.load(tmp_path / "entropy" / "trace-test.npz") as one, np.load(copied / "trace-test.npz") as other:
        assert not np.array_equal(one["uncertainty"], other["uncertainty"])
    # What was evaluated elsewhere is not the run's own.
    assert read_criterion(copied / "criterion.pt").settings["_target_"].endswith("Margin")


def test_exits_of_a_trained_run_may_average(copied, tmp_path, caplog):
    caplog.set_level("INFO")
    plain = result_of(copied)
    with pytest.raises(UserError, match=r"from=trace is not enough, because .* answer otherwise.*Separate"):
        evaluate(copied, tmp_path / "out", "combine=average", "from=trace")
    found = evaluate(copied, copied, "combine=average", "combine.shares=[0,0.5]", "in_place=true", *QUICK)
    assert found["shares"] == [0, 0.5]
    assert [e["static_accuracy"] for e in found["exits"]] == [e["accuracy"] for e in plain["exits"]]
    # It is the run's own from now on: traces, network, and what loads them.
    again = evaluate(copied, tmp_path / "again", "combine=average", "combine.shares=[0,0.5]", "from=trace")
    assert again["exits"] == found["exits"] and again["shares"] == [0, 0.5]
    run = open_run(copied)
    x, _ = next(run.data.batches("test", 10_000))
    with torch.no_grad():
        first, second = run.separate(x)
    with np.load(copied / "trace-test.npz") as stored:
        assert np.array_equal(stored["prediction"][:, 1], (0.5 * second + 0.5 * first).argmax(1).numpy())
    loaded = load(copied)
    loaded.thresholds = [0.0]
    outcome = loaded.run(run.data.images("test"))
    with np.load(copied / "trace-test.npz") as stored:
        assert np.array_equal(outcome.prediction, stored["prediction"][:, 1])
    # Files of two runs are noticed.
    write_criterion(copied / "criterion.pt", replace(run.stored_criterion, shares=(0.0, 0.6)))
    with pytest.raises(UserError, match=r"criterion\.pt is of another run than result\.json"):
        evaluate(copied, tmp_path / "mixed", "from=trace")


def test_what_is_fitted_is_fitted_on_images_that_do_not_choose(copied, tmp_path):
    """On half of validation, which then chooses nothing: in the traces, in the stored run, in the report."""
    found = evaluate(copied, copied, "combine=average", "in_place=true", *QUICK)
    assert found["fitting"] == {"split": "validation", "images": 100, "images_of_choice": 100}
    stored, label = read_criterion(copied / "criterion.pt"), open_run(copied).data.labels("val")
    with np.load(copied / "trace-val.npz") as trace, np.load(copied / "baseline.npz") as baseline:
        assert np.array_equal(trace["label"], label[~stored.fitting.val].numpy())
        assert len(baseline["val_correct"]) == 100
    text = "fitted on 100 validation images; the thresholds were chosen on 100 other validation images."
    assert text in " ".join((copied / "report.md").read_text().split())
    again = evaluate(copied, tmp_path / "again", "combine=average", "from=trace")
    assert again["fitting"] == found["fitting"] and again["knee"]["thresholds"] == found["knee"]["thresholds"]
    assert same_images(read_criterion(tmp_path / "again" / "criterion.pt").fitting, stored.fitting)
    # Reported on validation, run for real there, drawn: on the images that chose.
    val = evaluate(copied, tmp_path / "val", "combine=average", "from=network", "split=val", *QUICK)
    assert val["knee"]["accuracy"] == val["knee"]["measured"]["accuracy"]
    with pytest.raises(UserError, match=r"because what is fitted was fitted with sweep\.fit_share=0.5"):
        evaluate(copied, tmp_path / "other", "combine=average", "from=trace", "sweep.fit_share=0.4")
    assert evaluate(copied, tmp_path / "none", "combine=none", *QUICK).get("fitting") is None
    # A run of before that chose on the images that it had fitted on.
    write_criterion(copied / "criterion.pt", replace(stored, fitting=None))
    with pytest.raises(UserError, match="this run is of before images were set aside"):
        evaluate(copied, tmp_path / "old", "combine=average", "from=trace")


def test_a_criterion_that_learns_is_the_runs_own_from_then_on(copied, tmp_path):
    """It is stored with what it has learned, and whoever loads the run has it; it costs what it multiplies."""
    before = result_of(copied)["exits"]
    learned = ["criterion=mlp", "criterion.inputs=[softmax,features]", "criterion.hidden=4"]
    found = evaluate(copied, copied, *learned, "in_place=true", *QUICK)
    assert found["knee"]["criterion"] == "mlp" and found["fitting"]["images"] == 100
    # ln entropy by itself; then it, ten probabilities and the channels on four units, and those on one.
    channels = [shape[0] for shape in open_run(copied).network.feature_shapes((1, 28, 28))]
    fallen = [criterion.alone for criterion in open_run(copied).criteria]
    own = [1 if alone else 1 + (11 + each) * 4 + 4 for alone, each in zip(fallen, channels, strict=True)]
    assert [e["macs"] for e in found["exits"]] == [
        e["macs"] + sum(own[: n + 1]) for n, e in enumerate(before)
    ]
    assert "What mlp has learned: exit 1: " in (copied / "report.md").read_text()
    run, loaded = open_run(copied), load(copied)
    with np.load(copied / "trace-test.npz") as stored:
        for n, threshold in enumerate((2.0, 0.0)):
            loaded.thresholds = [threshold]
            outcome = loaded.run(run.data.images("test"))
            np.testing.assert_allclose(outcome.uncertainty, stored["uncertainty"][:, n], atol=1e-5)
    again = evaluate(copied, tmp_path / "again", *learned, "from=trace")
    assert again["knee"]["thresholds"] == found["knee"]["thresholds"]
    assert "What mlp has learned" in (tmp_path / "again" / "report.md").read_text()


def test_traces_of_another_engines_own_outputs_are_not_taken_for_pytorchs(copied, tmp_path):
    stored = read_criterion(copied / "criterion.pt")
    write_criterion(copied / "criterion.pt", replace(stored, traced_by="torch_cuda"))
    with pytest.raises(UserError, match="of the outputs of torch_cuda"):
        evaluate(copied, tmp_path / "out", "from=trace")
    found = evaluate(copied, tmp_path / "out", *QUICK)
    assert found["knee"]["measured"] is not None
    assert read_criterion(tmp_path / "out" / "criterion.pt").traced_by == "torch"


def test_a_criterion_with_other_settings_is_another_one(copied, tmp_path):
    """Not the name alone counts: what it was made of does."""
    stored = read_criterion(copied / "criterion.pt")
    write_criterion(
        copied / "criterion.pt", replace(stored, settings={**stored.settings, "temperature": 2.0})
    )
    with pytest.raises(UserError, match="the stored traces are of the criterion entropy"):
        evaluate(copied, tmp_path / "out", "from=trace")


def test_a_run_without_its_evidence_is_run_again(copied, tmp_path, caplog, capsys):
    caplog.set_level("INFO")
    (copied / "baseline.npz").unlink()
    found = evaluate(copied, tmp_path / "out", *QUICK)
    assert "older than baseline.npz" in caplog.text
    assert found["baseline"]["accuracy"] == result_of(copied)["baseline"]["accuracy"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["from=traces"], ["from=traces", "network"]),
        (["from=trace", "criterion=margin"], ["from=trace", "entropy"]),
        (["from=trace", "engine.threads=2"], ["from=trace", "engine.threads=1"]),
        (["from=trace", "engine.compare=[onnxruntime]"], ["from=trace", "onnxruntime"]),
        (["from=trace", "in_place=true"], ["from=trace", "in_place"]),
        (["from=trace", "outside=[noise]"], ["from=trace", "outside"]),
        (["outside=noise"], ["outside=noise", "list"]),
        (["outside=[cats]"], ["outside=cats", "shuffled"]),
        (["trust=perhaps"], ["trust=perhaps", "true or false"]),
        (["split=train"], ["split=train", "test, val"]),
        (["split=val", "sweep.protocol=paper"], ["split=val", "paper"]),
        (["split=val", "in_place=true"], ["in_place", "split=test"]),
        (["from=network"], ["best.ckpt", "train it again"]),
        (["criterion._target_=branchynet.exits.criteria.Entropie"], ["criterion._target_=", "Entropie"]),
        (
            ["criterion=openmax", "sweep.fit_share=0.2"],
            ["has 40 validation images to be fitted on and needs 100"],
        ),
        (["criterion=mlp", "from=trace"], ["from=trace is not enough", "of the criterion entropy"]),
        (
            ["criterion=logistic", "criterion.inputs=[pixels]"],
            ["criterion.inputs=['pixels']", "softmax, sorted"],
        ),
        (["criterion=temperature", "criterion.of=margin"], ["criterion.of=margin", "of logits alone"]),
        (["combine=average", "combine.shares=[0.5,0.5]"], ["combine.shares=[0.5, 0.5]", "the first one 0"]),
        (["sweep.rule._target_=branchynet.exits.rules.Best"], ["sweep.rule._target_=", "Best"]),
        (["sweep.protocol=test"], ["protocol=test", "paper"]),
        (["sweep.rule.distance=-1"], ["sweep.rule.distance=-1"]),
        (["engine.name=abacus"], ["engine.name=abacus", "onnxruntime"]),
        (["in_place=perhaps"], ["in_place=perhaps", "true or false"]),
    ],
)
def test_mistakes_are_told_in_one_line(overrides, words, finished, tmp_path):
    run = tmp_path / "bare"
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(UserError) as caught:
        evaluate(run, tmp_path / "out", *overrides)
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (tmp_path / "out").exists()


def test_the_runs_own_files_are_not_replaced_unasked(copied):
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="in_place=true"):
        evaluate(copied, copied)
    assert before == {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}


def test_in_place_nothing_is_written_through_links(copied, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    shutil.rmtree(copied / "figures")
    (copied / "figures").symlink_to(theirs)
    for name in ("evaluate.yaml", "trace-val.npz", "report.md"):
        (theirs / name).write_bytes((copied / name).read_bytes() if (copied / name).exists() else b"theirs")
        (copied / name).unlink(missing_ok=True)
        (copied / name).symlink_to(theirs / name)
    before = {path: path.read_bytes() for path in theirs.iterdir()}
    evaluate(copied, copied, "in_place=true", *QUICK)
    assert {path: path.read_bytes() for path in theirs.iterdir()} == before
    assert OmegaConf.load(copied / "evaluate.yaml").in_place is True
    assert (copied / "figures" / "trade_off.png").is_file()
    assert not any(path.is_symlink() for path in copied.rglob("*"))


def test_files_of_two_runs_are_noticed(copied, tmp_path):
    with np.load(copied / "trace-val.npz") as trace:
        np.savez(copied / "trace-val.npz", **{name: array[:-1] for name, array in trace.items()})
    with pytest.raises(UserError, match="not of one run"):
        evaluate(copied, tmp_path / "out")


def test_caches_over_the_first_threshold_beside_the_rest(bare, tmp_path, monkeypatch):
    point = CachePoint(0.0, (0.0, 1.0), 9.0, 100.0, {})
    given = []

    def study(run, method, thresholds):
        given.append((method, list(thresholds)))
        return CacheStudy("toy", 1, [point], [], "", "")

    monkeypatch.setattr("branchynet.commands.evaluate_run.study_caches", study)
    result = evaluate(bare, tmp_path / "out", "experiment=thresholds/cache", "caches=model")
    assert given == [("model", result["knee"]["thresholds"])]
    assert (tmp_path / "out" / "caches.csv").is_file() and (tmp_path / "out" / "result.json").is_file()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [(["caches=guess"], "guess"), (["caches=model", "criterion=margin"], "the run's own criterion")],
)
def test_what_cannot_be_counted_is_told_before_any_work(bare, tmp_path, overrides, words):
    with pytest.raises(UserError, match=words):
        evaluate(bare, tmp_path / "out", *overrides)
    assert not (tmp_path / "out").exists()
