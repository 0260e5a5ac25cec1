"""Loading an export: without PyTorch, and only what is whole, fits and is trusted."""

import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from branchynet.errors import UserError
from branchynet.exports.load import Answer, Exported, by_exit, load_export, torch_step
from branchynet.exports.manifest import ModelFile, checksum, read_manifest, write_manifest


@pytest.mark.parametrize("module", ["load", "face", "manifest", "replay"])
def test_importing_it_imports_no_torch_and_needs_none(module):
    for start in ("import sys", "import sys; sys.modules['torch'] = None"):
        code = f"{start}; import branchynet.exports.{module}; print(sys.modules.get('torch'))"
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert done.stdout == "None\n"


def test_steps_after_the_exit_that_was_taken_are_not_run():
    def first(x):
        return np.zeros(len(x), np.int64), np.float32(x), np.ones(len(x), np.float32), x

    def fail(x):
        assert x.tolist() == [5, 7], "only those that did not leave, in their order"
        return np.ones(2, np.int64), np.float32([9, 8]), np.ones(2, np.float32)

    answer = by_exit([first, fail])(np.float32([1, 5, 2, 7]), (3.0,))
    assert answer.exit.tolist() == [1, 2, 1, 2] and answer.exit_index.tolist() == [0, 1, 0, 1]
    assert answer.uncertainty.tolist() == [1, 9, 2, 8]
    assert (by_exit([first, fail])(np.float32([1, 2]), (3.0,)).exit_index == 0).all()


def test_a_program_of_torch_runs_on_the_threads_asked_for_and_records_no_gradients():
    seen = []

    def module(x):
        seen.append((torch.get_num_threads(), x.dtype))
        return x * torch.ones(1, requires_grad=True), x

    before = torch.get_num_threads()
    outputs = torch_step(module, before + 1)(np.uint8([1, 2]))
    assert seen == [(before + 1, torch.uint8)] and torch.get_num_threads() == before
    assert [output.tolist() for output in outputs] == [[1, 2], [1, 2]]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["segments", "single"])
def test_models_run_on_the_threads_asked_for(name, threads, folders, monkeypatch):
    from branchynet.runtime import session

    asked, load = [], session.load_session

    def watched(model, threads):
        asked.append(threads)
        return load(model, threads)

    monkeypatch.setattr(session, "load_session", watched)
    load_export(str(folders[name]), threads=threads)
    assert asked == [threads] * (3 if name == "segments" else 1)


@pytest.fixture
def copied(folders, tmp_path):
    return shutil.copytree(folders["segments"], tmp_path / "export")


def test_a_damaged_model_is_refused(copied):
    content = bytearray((copied / "segment-2.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copied / "segment-2.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"segment-2\.onnx is damaged"):
        load_export(copied)


def test_a_model_that_is_none_gets_one_line_even_where_the_checksum_fits(copied):
    written = read_manifest(copied)
    (copied / "segment-2.onnx").write_bytes(b"no model")
    files = {**written.files, "segment-2.onnx": ModelFile(checksum(b"no model"), 8, None)}
    write_manifest(copied, replace(written, files=files, format_version=1))
    with pytest.raises(UserError, match="ONNX Runtime") as caught:
        load_export(copied)
    assert "\n" not in str(caught.value)


def test_programs_of_torch_are_loaded_only_where_they_are_trusted(folders, tmp_path):
    folder = shutil.copytree(folders["torch"], tmp_path / "export")
    for file in folder.glob("*.pt2"):
        file.unlink()  # it is not even looked at
    with pytest.raises(UserError, match="trust=true"):
        load_export(folder)


def test_a_missing_onnx_runtime_is_named(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    with pytest.raises(UserError, match="needs the package onnxruntime: install it") as caught:
        load_export(folders["segments"])
    assert "\n" not in str(caught.value)


def test_wrong_thresholds_and_threads_get_one_line(exported, folders):
    with pytest.raises(UserError, match="give 2"):
        exported.thresholds = (1.0,)
    with pytest.raises(UserError, match="threads=0"):
        load_export(folders["segments"], threads=0)


def test_an_answer_begins_as_an_outcome_does(exported, pixels):
    assert Answer._fields[:3] == exported.run(pixels[:2])._fields


def test_it_begins_with_the_manifests_thresholds(folders, manifest, pixels):
    fresh = load_export(folders["segments"])
    assert fresh.thresholds == tuple(float(np.float32(value)) for value in manifest.thresholds)
    assert fresh.classes == manifest.classes and fresh.input_shape == manifest.input_shape


def test_a_single_model_of_the_first_form_counts_from_0(folders, pixels, tmp_path):
    """As 0.1 wrote it."""
    folder = shutil.copytree(folders["single"], tmp_path / "export")
    model = onnx.load(folder / "model.onnx")
    written = read_manifest(folder)
    limits = np.float32(written.thresholds)
    model.graph.initializer.append(numpy_helper.from_array(limits, "thresholds"))  # they could be left out

    def count_from_0(graph):
        for constant in graph.initializer:
            if constant.name.startswith("exit_") and "/" not in constant.name:
                constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant) - 1, constant.name))
        for node in graph.node:
            for attribute in node.attribute:
                count_from_0(attribute.g)

    count_from_0(model.graph)
    content = model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    files = {"model.onnx": ModelFile(checksum(content))}
    write_manifest(folder, replace(written, files=files, format_version=1))
    found, now = (load_export(each).run(pixels[:40]) for each in (folder, folders["single"]))
    assert set(now.exit) == {1, 2, 3} and found.exit.tolist() == now.exit.tolist()


WRONG = {
    "class number 10": {"prediction": [3, 10]},
    "class number -1": {"prediction": [-1, 0]},
    "exit 4": {"exit": [1, 4]},
    "exit 0": {"exit": [1, 0]},
    "uncertainty of inf": {"uncertainty": [0, np.inf]},
    "uncertainty of nan": {"uncertainty": [np.nan, 1]},
    "confidence of nan": {"confidence": [0.5, np.nan]},
    "confidence of 2": {"confidence": [2, 0.5]},
}


@pytest.mark.parametrize("words", WRONG)
def test_an_answer_that_no_whole_network_gives_is_refused(words, manifest):
    right = {"prediction": [3, 9], "exit": [1, 3], "uncertainty": [0.5, 9], "confidence": [0, 1]}
    images = np.zeros((2, 1, 12, 12), np.uint8)

    def answering(values):
        return Exported(manifest, lambda x, thresholds: Answer(**{k: np.array(v) for k, v in values.items()}))

    assert answering(right).run(images).exit_index.tolist() == [0, 2]
    with pytest.raises(UserError, match=rf"^the network answers with the {words}.* damaged$"):
        answering({**right, **WRONG[words]}).run(images)


def test_a_program_of_torch_that_is_none_gets_one_line(folders, tmp_path):
    folder = shutil.copytree(folders["torch"], tmp_path / "export")
    (folder / "segment-1.pt2").write_bytes(b"no program")
    written = read_manifest(folder)
    files = {**written.files, "segment-1.pt2": replace(written.files["segment-1.pt2"], bytes=10)}
    files["segment-1.pt2"] = replace(files["segment-1.pt2"], sha256=checksum(b"no program"))
    write_manifest(folder, replace(written, files=files))
    with pytest.raises(UserError, match=r"segment-1\.pt2 cannot be loaded by PyTorch") as caught:
        load_export(folder, trust=True)
    assert "\n" not in str(caught.value)
