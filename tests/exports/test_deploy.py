"""docs/deploy.md: its Python does what `branchynet.load` does, with ONNX Runtime alone."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from branchynet.data.image_files import ImageFiles
from branchynet.data.pictures import read_image
from branchynet.exits.beem import Beem
from branchynet.exports.load import load_export

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"


@pytest.fixture(scope="module")
def blocks():
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def names(blocks, folders, tmp_path, monkeypatch):
    """What the first two blocks define, beside an export of either format of that name."""
    monkeypatch.chdir(tmp_path)
    os.symlink(folders["segments"], "export-segments")
    found = {}
    exec(compile("".join(blocks[:2]), str(PAGE), "exec"), found)
    return found


def test_it_needs_neither_torch_nor_this_package(blocks):
    modules = set(re.findall(r"^(?:import|from) (\w+)", "".join(blocks), re.MULTILINE))
    assert modules == {"json", "pathlib", "numpy", "onnxruntime", "PIL"}


def test_the_loop_answers_as_load_does(names, folders, pixels):
    exported = load_export(folders["segments"])
    expected = exported.answer(pixels[:60])
    assert set(expected.exit) == {1, 2, 3}
    for x, prediction, exit, uncertainty, confidence in zip(pixels[:60], *expected, strict=True):
        found = names["classify"](x[None])
        assert found[:2] == (exported.classes[prediction], exit)
        assert found[2:] == pytest.approx((uncertainty, confidence), abs=1e-5)


def test_the_loop_hands_answers_and_states_on(blocks, averaged_folder, pixels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(averaged_folder("segments", Beem), "export-segments")
    names = {}
    exec(compile(blocks[0], str(PAGE), "exec"), names)
    exported = load_export(averaged_folder("segments", Beem))
    expected = exported.answer(pixels[:40])
    assert set(expected.exit) == {1, 2}
    for x, prediction, exit in zip(pixels[:40], expected.prediction, expected.exit, strict=True):
        assert names["classify"](x[None])[:2] == (exported.classes[prediction], exit)


def test_a_picture_is_read_as_predict_reads_it(names, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)).save(tmp_path / "a.png")
    expected = read_image(tmp_path / "a.png", (1, 12, 12), ImageFiles())
    assert np.array_equal(names["read"](tmp_path / "a.png"), expected[None])


def test_a_single_model_is_called_as_it_says(names, blocks, folders):
    names["folder"] = folders["single"]
    exec(compile(blocks[2], str(PAGE), "exec"), names)
    expected = load_export(folders["single"]).answer(names["given"]["image"])
    assert names["exit"] == expected.exit and names["prediction"] == expected.prediction
