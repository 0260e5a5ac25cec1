"""`branchynet.load`: the same answers as the run's own trace, thresholds that are set, no import unasked."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import branchynet
from branchynet.commands.export import describe
from branchynet.runs.finished_run import open_run
from branchynet.errors import UserError
from branchynet.exports.write import write_export


@pytest.fixture(scope="module")
def images(finished):
    return open_run(finished).data.images("test")


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
            assert (found.exit[s], found.prediction[s]) == (left, prediction[s, left])
            assert found.uncertainty[s] == pytest.approx(uncertainty[s, left], abs=1e-5)
    assert found.exit.tolist() == [1] * 360


def test_arrays_and_more_images_than_a_batch_give_the_same(finished, images, monkeypatch):
    network = branchynet.load(str(finished))
    expected = network.run(images)
    monkeypatch.setattr("branchynet.api.BATCH", 100)
    for found, one in zip(network.run(images.numpy()), expected, strict=True):
        assert found == pytest.approx(one, abs=1e-5)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (torch.zeros(2, 1, 28, 28), ["float32", "uint8"]),
        (torch.zeros(2, 3, 28, 28, dtype=torch.uint8), ["(2, 3, 28, 28)", "(B, 1, 28, 28)"]),
        (torch.zeros(28, 28, dtype=torch.uint8), ["(28, 28)", "(B, 1, 28, 28)"]),
        (torch.zeros(0, 1, 28, 28, dtype=torch.uint8), ["(0, 1, 28, 28)"]),
    ],
)
def test_wrong_images_are_refused(wrong, words, finished):
    with pytest.raises(UserError) as caught:
        branchynet.load(finished).run(wrong)
    assert all(word in str(caught.value) for word in words)


def test_wrong_thresholds_and_folders_are_refused(finished, tmp_path):
    network = branchynet.load(finished)
    with pytest.raises(UserError, match="2 thresholds"):
        network.thresholds = [0.1, 0.2]
    with pytest.raises(UserError, match="no run"):
        branchynet.load(tmp_path)
    with pytest.raises(UserError, match="engine=abacus"):
        branchynet.load(finished, engine="abacus")


def test_an_export_is_loaded_too_and_gives_the_same(finished, images, tmp_path):
    run = open_run(finished)
    write_export(tmp_path, run.network, describe(run, "segments"))
    network, export = branchynet.load(finished), branchynet.load(tmp_path)
    assert export.thresholds == network.thresholds
    # Well away from all uncertainties, so that rounding decides nothing.
    observed = np.sort(network.run(images).uncertainty)
    widest = int(np.diff(observed).argmax())
    export.thresholds = network.thresholds = [float(observed[widest : widest + 2].mean())]
    one, other = network.run(images), export.run(images.numpy())
    assert one.exit.tolist() == other.exit.tolist() and one.prediction.tolist() == other.prediction.tolist()
    assert one.uncertainty == pytest.approx(other.uncertainty, abs=1e-5)
    with pytest.raises(UserError, match="engine=torch"):
        branchynet.load(tmp_path, engine="torch")


def test_importing_it_is_cheap():
    code = "import sys, branchynet; print(sorted({'torch', 'numpy', 'hydra'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    with pytest.raises(AttributeError, match="nothing"):
        _ = branchynet.nothing
