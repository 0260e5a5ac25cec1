"""What the package gives: `branchynet.load` with one face for runs and exports, and no import unasked."""

import ast
import pydoc
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import branchynet
from branchynet.commands.export import describe
from branchynet.errors import UserError
from branchynet.exports.face import OnImages
from branchynet.exports.write import write_export
from branchynet.runs.finished_run import open_run
from branchynet.runtime.early_exit import EagerTorch


@pytest.fixture(scope="module")
def images(finished):
    return open_run(finished).data.images("test")


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """The same as an export."""
    folder = tmp_path_factory.mktemp("export")
    run = open_run(finished)
    write_export(folder, run.network, run.criteria, describe(run, "segments"))
    return folder


@pytest.mark.parametrize("engine", [None, "onnxruntime"])
def test_every_image_leaves_where_figure_2_says(engine, finished, images):
    network = branchynet.load(finished, engine=engine)
    assert network.input_shape == (1, 28, 28) and network.classes == tuple("0123456789")
    with np.load(finished / "trace-test.npz") as trace:
        uncertainty, prediction = trace["uncertainty"], trace["prediction"]
    middle = float(np.median(uncertainty[:, 0]))
    for threshold in (*network.thresholds, middle, 0.0):
        network.thresholds = [threshold]
        found = network.run(images)
        assert found.prediction.shape == found.exit.shape == found.uncertainty.shape == (360,)
        for s in range(len(images)):
            if abs(uncertainty[s, 0] - threshold) <= 1e-5:
                continue  # within rounding, it may leave at either
            left = 0 if uncertainty[s, 0] < np.float32(threshold) else 1
            assert (found.exit[s], found.exit_index[s]) == (left + 1, left)
            assert found.prediction[s] == prediction[s, left]
            assert found.uncertainty[s] == pytest.approx(uncertainty[s, left], abs=1e-5)
    assert found.exit.tolist() == [2] * 360


def test_arrays_and_more_images_than_a_batch_give_the_same(finished, images, monkeypatch):
    network = branchynet.load(str(finished))
    expected = network.run(images)
    monkeypatch.setattr("branchynet.api.BATCH", 100)
    for found, one in zip(network.run(images.numpy()), expected, strict=True):
        assert found == pytest.approx(one, abs=1e-5)


WRONG = [
    (torch.zeros(2, 1, 28, 28), ["float32", "uint8"]),
    (torch.zeros(2, 3, 28, 28, dtype=torch.uint8), ["(2, 3, 28, 28)", "(B, 1, 28, 28)"]),
    (torch.zeros(28, 28, dtype=torch.uint8), ["(28, 28)", "(B, 1, 28, 28)"]),
    (torch.zeros(0, 1, 28, 28, dtype=torch.uint8), ["(0, 1, 28, 28)"]),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG)
def test_wrong_images_are_refused_with_the_same_words_by_both(wrong, words, finished, exported):
    said = []
    for network in (branchynet.load(finished), branchynet.load(exported)):
        for images in (wrong, wrong.numpy()):
            with pytest.raises(UserError) as caught:
                network.run(images)
            said.append(str(caught.value))
    assert all(word in said[0] for word in words)
    assert len(set(said)) == 1, said


def test_a_run_and_an_export_have_one_face(finished, exported):
    run, export = branchynet.load(finished), branchynet.load(exported)
    for network in (run, export):
        assert network.classes == tuple("0123456789")
        assert network.input_shape == (1, 28, 28)
        assert all(isinstance(value, float) for value in network.thresholds)
        network.thresholds = [0.1]
        assert network.thresholds == (float(np.float32(0.1)),), "as float32 holds it"
        found = network.run(np.zeros((3, 1, 28, 28), np.uint8))
        assert [(each.shape, each.dtype) for each in found] == [((3,), np.int64)] * 2 + [((3,), np.float32)]
        assert found._fields == ("prediction", "exit", "uncertainty")
    assert isinstance(run, OnImages) and isinstance(export, OnImages)


@pytest.mark.parametrize("wrong", [[0.1, 0.2], [], [float("nan")]])
def test_wrong_thresholds_are_refused_with_the_same_words_by_both(wrong, finished, exported):
    said = []
    for network in (branchynet.load(finished), branchynet.load(exported)):
        before = network.thresholds
        with pytest.raises(UserError) as caught:
            network.thresholds = wrong
        said.append(str(caught.value))
        assert network.thresholds == before
    assert said[0] == said[1]


def test_wrong_thresholds_and_folders_are_refused(finished, tmp_path):
    network = branchynet.load(finished)
    with pytest.raises(UserError, match="2 thresholds"):
        network.thresholds = [0.1, 0.2]
    with pytest.raises(UserError, match="no run"):
        branchynet.load(tmp_path)
    with pytest.raises(UserError, match="engine=abacus"):
        branchynet.load(finished, engine="abacus")


def test_an_export_is_loaded_too_and_gives_the_same(finished, exported, images):
    network, export = branchynet.load(finished), branchynet.load(exported)
    assert export.thresholds == network.thresholds
    # Well away from all uncertainties, so that rounding decides nothing.
    observed = np.sort(network.run(images).uncertainty)
    widest = int(np.diff(observed).argmax())
    export.thresholds = network.thresholds = [float(observed[widest : widest + 2].mean())]
    one, other = network.run(images), export.run(images.numpy())
    assert one.exit.tolist() == other.exit.tolist() and one.prediction.tolist() == other.prediction.tolist()
    assert one.uncertainty == pytest.approx(other.uncertainty, abs=1e-5)
    with pytest.raises(UserError, match="engine=torch"):
        branchynet.load(exported, engine="torch")


def test_an_engine_may_be_an_object_and_a_run_may_have_more_threads(finished, images):
    network = branchynet.load(finished, engine=EagerTorch(), threads=2)
    assert (
        network.run(images[:5]).prediction.tolist()
        == branchynet.load(finished).run(images[:5]).prediction.tolist()
    )
    with pytest.raises(UserError, match="threads=0"):
        branchynet.load(finished, threads=0)


def test_somebody_elses_classes_are_refused_unless_trusted(copied):
    path = copied / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    config.optimizer = {"_target_": "os.mkdir", "path": str(copied / "code has run")}
    OmegaConf.save(config, path)
    with pytest.raises(UserError, match=r"os\.mkdir"):
        branchynet.load(copied)
    assert branchynet.load(copied, trust=True).classes
    assert not (copied / "code has run").exists(), "nothing needs the optimiser here"


def test_importing_it_is_cheap():
    code = "import sys, branchynet; print(sorted({'torch', 'numpy', 'hydra'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    with pytest.raises(AttributeError, match="nothing"):
        _ = branchynet.nothing


def imported_by(code, *arguments):
    """The modules that a process has at the end of `code`."""
    code = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


RUN_IT = """
import numpy as np, branchynet
network = branchynet.load(sys.argv[1])
network.run(np.zeros((2, *network.input_shape), np.uint8))
"""
HOLD_IT = """
network.hold("latency_us", tell=print)
network.run(np.zeros((40, *network.input_shape), np.uint8))
branchynet.adapt(network.profile, *network.every_exit(np.zeros((4, *network.input_shape), np.uint8)))
"""


def test_a_run_is_loaded_and_run_without_what_trains_and_draws(copied):
    path = copied / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    # As every run has it that was not told otherwise.
    config.logger = {"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "name": "", "version": ""}
    OmegaConf.save(config, path)
    heavy = {
        "lightning",
        "pytorch_lightning",
        "torchmetrics",
        "matplotlib",
        "tensorboard",
        "torch.utils.tensorboard",
        "sklearn",
    }
    assert not heavy & imported_by(RUN_IT, copied)


def test_an_export_is_loaded_and_run_without_torch(exported):
    assert not {"torch", "lightning", "hydra", "omegaconf"} & imported_by(RUN_IT + HOLD_IT, exported)


def test_a_run_and_its_export_hold_the_same_from_the_same_state(finished, exported, images, tmp_path):
    run, export = branchynet.load(finished), branchynet.load(exported)
    assert run.profile == export.profile
    found = []
    for network in (run, export):
        network.hold("latency_us", 90.0, step=0.05, tell=print)
        network.run(images[:100])
        network.controller.save(tmp_path / "state.json")
        found.append(network.controller.state())
    assert found[0].pop("drift") == pytest.approx(found[1].pop("drift"), abs=1e-5)  # rounding
    assert found[0] == found[1]
    again = branchynet.load(finished)
    again.hold("latency_us", 90.0, step=0.05, tell=print).load(tmp_path / "state.json")
    assert again.run(images[100:]).exit.tolist() == export.run(images[100:]).exit.tolist()


def test_what_the_package_gives_is_listed_and_described():
    assert branchynet.__all__ == [
        "BranchedNetwork",
        "Controller",
        "Criterion",
        "Entropy",
        "Margin",
        "MaxProbability",
        "UserError",
        "adapt",
        "attach",
        "load",
        "load_export",
        "make_engine",
        "sweep",
        "trace",
    ]
    assert set(branchynet.__all__) <= set(dir(branchynet)) and "__version__" in dir(branchynet)
    for name in branchynet.__all__:
        found = getattr(branchynet, name)
        assert callable(found) and found.__doc__, name
        assert found.__module__.startswith("branchynet."), name
    shown = pydoc.plain(pydoc.render_doc(branchynet))
    assert "load(" in shown and "sweep(" in shown and "class BranchedNetwork" in shown
    everything = {}
    exec("from branchynet import *", everything)
    assert set(branchynet.__all__) <= set(everything)


def test_what_type_checkers_are_told_is_what_there_is():
    """The names imported for them alone are those of `__all__`, from the same places."""
    tree = ast.parse(Path(branchynet.__file__).read_text())
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {alias.name: node.module for node in guarded.body for alias in node.names}
    assert sorted(told) == branchynet.__all__
    for name, module in told.items():
        assert getattr(import_module(module), name) is getattr(branchynet, name), name


def test_the_ways_of_the_package_lead_from_a_trunk_to_thresholds(images, finished):
    """attach, trace and sweep, as the documentation chains them."""
    run = open_run(finished)
    x, label = next(run.data.batches("val", 10_000))
    found = branchynet.trace(run.network, branchynet.Margin(), x, label)
    points = branchynet.sweep(found, thresholds=[0.5])
    assert found.num_exits == 2 and len(points) == 3
    assert points[0].thresholds == (0.0,) and points[0].left == (0, 200)
    trunk = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(784, 8), torch.nn.ReLU(), torch.nn.Linear(8, 10)
    )
    network = branchynet.attach(trunk, [{"after": "1", "fc": []}], (1, 28, 28), 10)
    assert isinstance(network, branchynet.BranchedNetwork)
    engine = branchynet.make_engine("torch", network.eval(), branchynet.Entropy(), [0.0], (1, 28, 28))
    assert engine.run(x[:3].numpy()).exit.tolist() == [2, 2, 2]


def test_type_checkers_are_told_that_the_package_has_types():
    assert (Path(branchynet.__file__).parent / "py.typed").is_file()
