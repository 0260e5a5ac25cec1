"""Maps all the way: from a few shapes to a report, another choice, an export and masks; and what refuses maps.

A network of two exits on 16 pixels, trained for two epochs: its numbers mean nothing, but all have to fit.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from branchynet.api import load
from branchynet.commands.app import conf_folder
from branchynet.commands.evaluate import read_run_settings, store_as_in_run
from branchynet.commands.evaluate_run import evaluate_run
from branchynet.commands.export import export
from branchynet.commands.predict import predict
from branchynet.commands.train_run import train_run
from branchynet.data import shapes
from branchynet.errors import UserError
from branchynet.evaluation.evidence import trace
from branchynet.exits.maps import MapTrace, mean_iou
from branchynet.exits.sweep import exit_taken
from branchynet.runs.finished_run import open_run
from branchynet.runs.run_config import plain
from branchynet.runs.started_run import start_run
from branchynet.runs.stored import read_trace
from branchynet.runtime.catalogue import get_backend
from branchynet.runtime.costs import Latencies, Latency

TINY = [
    "experiment=b_unet_shapes",
    "trainer=cpu",
    "schedule=none",
    "model.trunk.size=16",
    "model.trunk.widths=[4,6]",
    "model.trunk.blocks=1",
    "model.exits=[{after: down1, convs: [4]}]",
    "epochs.baseline=1",
    "epochs.joint=2",
    "engine=torch",
    "engine.compare=[]",
    "engine.seconds=0.01",
    "logger=tensorboard",
    "cache=null",
]


def composed(command, *overrides):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose(command, overrides=list(overrides))


def evaluating(run, *overrides):
    store_as_in_run(read_run_settings(run))
    return composed("evaluate", f"run='{run}'", *overrides)


def fixed_latencies(*arguments):
    def timed(*medians):
        return tuple(Latency(median, median / 10) for median in medians)

    return Latencies(*timed(100.0), timed(30.0, 120.0), timed(25.0, 101.0), timed(20.0, 95.0))


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    """A finished run of maps; not to be changed."""
    folder = tmp_path_factory.mktemp("segmented") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "PARTS", {"train": 60, "val": 40, "test": 50})
        patch.setattr(shapes, "SIDE", 16)
        patch.setattr("branchynet.evaluation.evidence.measure_latencies", fixed_latencies)
        config = composed("train", *TINY)
        start_run(folder, plain(config))
        train_run(OmegaConf.create(plain(config)), folder)
        yield folder


def test_the_result_is_that_of_the_maps(segmented):
    """Image IoU and data set IoU of the operating point, from the network's own maps."""
    result, run = json.loads((segmented / "result.json").read_text()), open_run(segmented)
    stored = read_trace(segmented / "trace-test.npz")
    assert isinstance(stored, MapTrace) and result["task"] == "segmentation"
    label = run.data.labels("test")
    x = torch.cat([x for x, _ in run.data.batches("test", 20)])
    with torch.no_grad():
        maps = torch.stack([answer.argmax(dim=1) for answer in run.network(x)], dim=1)
    taken = exit_taken(stored.uncertainty, torch.tensor(run.thresholds))
    chosen = maps[torch.arange(50), taken]
    both, either = (
        torch.stack([((chosen == k) & (label == k)).sum((1, 2)) for k in range(4)], dim=1),
        torch.stack([((chosen == k) | (label == k)).sum((1, 2)) for k in range(4)], dim=1),
    )
    assert result["iou"]["knee"]["mean_iou"] == pytest.approx(mean_iou(both, either), abs=1e-3)
    assert result["knee"]["accuracy"] == pytest.approx(
        float(run.task.right(chosen, label, 4).mean()), abs=1e-3
    )
    assert result["knee"]["measured"]["accuracy"] == pytest.approx(result["knee"]["accuracy"], abs=1e-3)
    assert result["exits"][1]["accuracy"] == pytest.approx(stored.correct[:, 1].mean().item(), abs=1e-9)
    assert "recall" not in result and "balanced_accuracy" not in result["knee"]
    assert result["iou"]["pixels"] == label.flatten().bincount(minlength=4).tolist()


def test_the_report_speaks_of_iou(segmented):
    page = (segmented / "report.md").read_text()
    assert "IoU %" in page and "accuracy %" not in page and "**mean IoU**" in page
    assert "Run for real on torch: 50 samples, all as the sweep predicts" in page.replace("\n  ", " ")
    figures = {each.name for each in (segmented / "figures").iterdir()}
    assert {"trade_off.png", "thresholds.png", "uncertainty.png", "samples.png"} <= figures
    assert "confusion.png" not in figures and not (segmented / "report.html").exists()


def test_tensorboard_shows_the_iou_of_classes_and_no_recall(segmented):
    events = EventAccumulator(str(segmented)).Reload()
    tags = events.Tags()["scalars"]
    assert {"joint/val_accuracy_exit_1", "operating_point/mean_iou", "iou/background"} <= set(tags)
    assert not [tag for tag in tags if "recall" in tag or "balanced" in tag]
    result = json.loads((segmented / "result.json").read_text())
    found = events.Scalars("operating_point/mean_iou")[-1].value
    assert found == pytest.approx(result["iou"]["knee"]["mean_iou"])


@pytest.mark.usefixtures("undrawn")
def test_another_rule_chooses_from_what_is_stored(segmented, tmp_path):
    rule = ["sweep/rule=mac_budget", "sweep.rule.budget_macs=1e12"]
    result = evaluate_run(evaluating(segmented, *rule), tmp_path / "other")
    assert result["knee"]["rule"] == "mac_budget" and result["knee"]["measured"] is None
    before = json.loads((segmented / "result.json").read_text())
    for name in ("baseline", "exits"):
        assert result["iou"][name] == before["iou"][name], name


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["sweep/rule=certified"], "the rule certified counts right and wrong answers"),
        (["combine=average"], "combine=average averages one answer for an image"),
        (["criterion=patience"], "the criterion patience judges one answer for an image"),
        (["adaptive=true"], "adaptive=True: with task=segmentation there is none"),
        (["outside=[noise]"], "with task=segmentation there is none"),
    ],
)
def test_what_is_for_one_class_is_refused_in_one_line(segmented, tmp_path, overrides, said):
    with pytest.raises(UserError, match=said):
        evaluate_run(evaluating(segmented, *overrides), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_engines_answer_with_the_same_maps_alone_and_in_batches(segmented):
    run = open_run(segmented)
    x = torch.cat([x for x, _ in run.data.batches("test", 20)]).numpy()
    # Between two images, not on one, which rounding would let leave on one engine alone.
    limits = [float(trace_of(run).uncertainty[:, 0].sort().values[24:26].mean())]
    found = {}
    for name in ("torch", "onnxruntime"):
        engine = get_backend(name).engine(run.network, run.criteria, limits, run.facts.input_shape, 1)
        found[name] = engine.run(x)
        alone = [engine.run(x[s : s + 1]) for s in range(12)]
        for s, each in enumerate(alone):
            assert (each.prediction[0] != found[name].prediction[s]).mean() < 0.01
            assert each.exit[0] == found[name].exit[s]
        baseline = get_backend(name).classifier(run.network.trunk().eval(), run.facts.input_shape, 1)
        assert baseline(x[:1]).shape == (16, 16)
    one, other = found.values()
    assert one.prediction.shape == (50, 16, 16) and set(one.exit) == {1, 2}
    assert (one.prediction != other.prediction).mean() < 0.001
    assert np.allclose(one.uncertainty, other.uncertainty, atol=1e-5)


def trace_of(run):
    x = torch.cat([x for x, _ in run.data.batches("test", 20)])
    return trace(run.network, run.criteria, x, run.data.labels("test"), run.task)


def test_an_export_gives_maps_and_predict_writes_them(segmented, tmp_path, capsys):
    config = composed("export", f"run={segmented}", f"output={tmp_path / 'export'}", "compare=40")
    written = export(config, Path())
    assert written.maps and written.format_version == 5
    prediction = written.files["segment-1.onnx"].tensors.outputs[0]
    assert prediction.shape == ("B", 16, 16) and prediction.layout == "NHW"

    images = open_run(segmented).data.images("test")[:3].numpy()
    np.save(tmp_path / "x.npy", images)
    answers = load(tmp_path / "export").run(images)
    settings = [f"export={tmp_path / 'export'}", f"input={tmp_path / 'x.npy'}", f"masks={tmp_path / 'masks'}"]
    predict(composed("predict", *settings, "format=csv"), Path())
    assert "background" in capsys.readouterr().out
    for s in range(3):
        with Image.open(tmp_path / "masks" / f"x.npy[{s}].png") as mask:
            assert np.array_equal(np.asarray(mask), answers.prediction[s])
    with pytest.raises(UserError, match=r"masks=.* is not empty: add overwrite=true"):
        predict(composed("predict", *settings), Path())
    with pytest.raises(UserError, match="this network gives maps, and controllers and adapted thresholds"):
        predict(composed("predict", *settings[:2], "thresholds=adaptive"), Path())


def test_one_model_with_the_exits_inside_refuses_maps(segmented, tmp_path):
    config = composed("export", f"run={segmented}", f"output={tmp_path / 'export'}", "format=single")
    with pytest.raises(UserError, match="format=single gives one class for an image"):
        export(config, Path())
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task=classification"], "task=classification: the labels of data=shapes are maps"),
        (
            ["data=digits", "data.validation_size=100"],
            "task=segmentation: the labels of data=digits are a class",
        ),
        (["criterion=beem"], "the criterion beem judges one answer for an image"),
    ],
)
def test_what_does_not_fit_the_task_is_told_before_training(monkeypatch, tmp_path, overrides, said):
    monkeypatch.setattr(shapes, "PARTS", {"train": 8, "val": 8, "test": 8})
    monkeypatch.setattr(shapes, "SIDE", 16)
    config = composed("train", *TINY, *overrides)
    with pytest.raises(UserError, match=said):
        train_run(OmegaConf.create(plain(config)), tmp_path)
    assert not (tmp_path / "checkpoints").exists()
