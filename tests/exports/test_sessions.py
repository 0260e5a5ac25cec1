"""An export whose models are not what its manifest says, though all checksums fit. A line in a table is a case."""

import json
import shutil
import time
from dataclasses import replace

import numpy as np
import onnx
import pytest
from damage import damage
from onnx import TensorProto, helper, numpy_helper

from branchynet.errors import UserError
from branchynet.exports.load import load_export
from branchynet.exports.manifest import FILE, checksum, content_checksum, read_manifest, write_manifest

LAST = "segment-3.onnx"


@pytest.fixture
def copied(folders, tmp_path):
    return shutil.copytree(folders["segments"], tmp_path / "export")


def put(folder, name, content):
    """A model's place taken by other bytes, and the manifest changed to fit."""
    (folder / name).write_bytes(content)
    written = read_manifest(folder)
    stated = replace(written.files[name], sha256=checksum(content), bytes=len(content))
    write_manifest(folder, replace(written, files={**written.files, name: stated}))


def state(folder, change):
    """The manifest changed, its checksum made to fit."""
    content = json.loads((folder / FILE).read_text())
    change(content)
    content["sha256"] = content_checksum(content)
    (folder / FILE).write_text(json.dumps(content))


def refused(folder, images=None):
    start = time.perf_counter()
    with pytest.raises(UserError) as caught:
        load_export(folder).run(np.zeros((3, 1, 12, 12), np.uint8) if images is None else images)
    assert "\n" not in str(caught.value) and time.perf_counter() - start < 10
    return str(caught.value)


def answering(
    fewer=0, outputs=("prediction_3", "uncertainty_3", "confidence_3"), kinds=None, says=("batch",)
):
    """A last segment that gives ones, as many as it is given rows or fewer, whatever it says of them."""
    kinds = kinds or [TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT]
    nodes = [
        helper.make_node("Shape", ["features_2"], ["count"], start=0, end=1),
        helper.make_node("Sub", ["count", "fewer"], ["rows"]),
    ]
    for name, kind in zip(outputs, kinds, strict=True):
        value = numpy_helper.from_array(np.ones(1, helper.tensor_dtype_to_np_dtype(kind)))
        nodes.append(helper.make_node("ConstantOfShape", ["rows"], [name], value=value))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("features_2", TensorProto.FLOAT, ["batch", 6, 12, 12])],
        [helper.make_tensor_value_info(n, k, says) for n, k in zip(outputs, kinds, strict=True)],
        [numpy_helper.from_array(np.int64([fewer]), "fewer")],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    ).SerializeToString()


def test_the_trap_works(copied):
    """The model that the cases below change is taken as it is."""
    put(copied, LAST, answering())
    exported = load_export(copied)
    exported.thresholds = [0, 0]
    assert exported.run(np.zeros((3, 1, 12, 12), np.uint8)).prediction.tolist() == [1, 1, 1]


LYING = {
    "no model": (b"no model", "cannot be loaded by ONNX Runtime"),
    "an output too few": (
        answering(outputs=("prediction_3", "uncertainty_3"), kinds=[7, 1]),
        "its outputs are",
    ),
    "another name": (answering(outputs=("prediction_3", "x", "confidence_3")), "its outputs are"),
    "another order": (
        answering(outputs=("uncertainty_3", "prediction_3", "confidence_3"), kinds=[1, 7, 1]),
        "its outputs are",
    ),
    "another type": (answering(kinds=[TensorProto.DOUBLE, 1, 1]), "prediction_3 (B) tensor(double)"),
    "a size": (answering(says=(5,)), "prediction_3 (5) int64"),
    "more rows than memory holds": (answering(fewer=-(10**12)), "cannot be run by ONNX Runtime: "),
    "fewer rows than it says": (answering(fewer=1), "prediction_3 has the shape (2,) for 3 images"),
}


@pytest.mark.parametrize("name", LYING)
def test_a_model_that_lies_is_refused(name, copied, capfd):
    content, words = LYING[name]
    put(copied, LAST, content)
    state(copied, lambda content: content.update(thresholds=[0, 0]))
    message = refused(copied)
    assert words in message and LAST in message, message
    assert capfd.readouterr() == ("", ""), "nothing past the one line, which ONNX Runtime could write"


def set_shape(content, *places):
    for file, side, tensor in places:
        content["files"][file][side][tensor]["shape"] = ["B", 6, 12, 13]


STATED = {
    "another picture": (lambda m: m["input"].update(shape=[1, 13, 12]), "image (B, 1, 13, 12) uint8"),
    "more channels": (
        lambda m: (m["input"].update(shape=[2, 12, 12]), m["normalisation"].update(mean=[0, 0], std=[1, 1])),
        "image (B, 2, 12, 12) uint8",
    ),
    "features": (
        lambda m: set_shape(m, (1, "outputs", 3), (2, "inputs", 0)),
        "features_2 (B, 6, 12, 13) float32",
    ),
    "a type": (lambda m: m["files"][0]["outputs"][0].update(dtype="float32"), "prediction_1 (B) float32"),
    "an output less": (lambda m: m["files"][2]["outputs"].pop(), "its outputs are"),
    "the files in another order": (lambda m: m["files"].reverse(), "it hands on confidence_3 (B) float32"),
    "answers that none hand on": (
        lambda m: m.update(shares=[0, 0.5, 0]),
        "it hands on confidence_1 (B) float32",
    ),
    "a state that none hands on": (
        lambda m: m.update(state=2, format_version=4),
        "it hands on confidence_1 (B) float32",
    ),
    "two exits": (
        lambda m: (m["files"].pop(), m["costs"]["exits"].pop(), m["thresholds"].pop()),
        "its outputs are",
    ),
    "two classes": (lambda m: m.update(classes=["a", "b"]), "the network answers with the class number"),
    "a single model": (
        lambda m: (m.update(format="single"), m.update(files=m["files"][:1])),
        "its inputs are image (B, 1, 12, 12) uint8, its manifest says image (1, 1, 12, 12) uint8, thresholds (2)",
    ),
}


@pytest.mark.parametrize("name", STATED)
def test_a_manifest_that_lies_is_refused(name, copied, pixels):
    change, words = STATED[name]
    state(copied, change)
    message = refused(copied, pixels)
    assert words in message, message


def test_data_in_other_files_are_not_read(copied, tmp_path, monkeypatch):
    """Not those beside the model, and not those in the working directory."""
    model = onnx.load(copied / LAST)
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    (tmp_path / "weights.bin").write_bytes(tensor.raw_data)
    (copied / "weights.bin").write_bytes(tensor.raw_data)
    monkeypatch.chdir(tmp_path)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    put(copied, LAST, model.SerializeToString())
    assert f"{LAST} has data in other files" in refused(copied)


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "huge"])
def test_what_is_no_file_of_that_size_is_not_read(kind, copied):
    damage(copied / LAST, kind)
    if kind == "huge":
        state(copied, lambda content: content["files"][2].update(bytes=10**12))
    assert f"{LAST} cannot be read" in refused(copied)
