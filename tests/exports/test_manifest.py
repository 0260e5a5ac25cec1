"""manifest.json: what is written is read again, and whatever is wrong with it is said in one line."""

import json
import math
from dataclasses import replace

import pytest

from branchynet.data.image_files import ImageFiles
from branchynet.errors import UserError
from branchynet.exports.manifest import (
    FILE,
    Cost,
    Costs,
    Manifest,
    checksum,
    read_files,
    read_manifest,
    write_manifest,
)

MANIFEST = Manifest(
    format="segments",
    experiment="toy",
    criterion="entropy",
    thresholds=(0.25,),
    classes=("cat", "chien à poil"),
    input_shape=(3, 8, 6),
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
    costs=Costs("onnxruntime", 1, "a machine", Cost(300, 3.5), (Cost(100, 1.5), Cost(320, 4.0))),
    image_files=ImageFiles("refuse", "convert", (10, 20, 30), True, (5, 90)),
    files={"segment-1.onnx": checksum(b"one"), "segment-2.onnx": checksum(b"two")},
)


RULE = {"size": "refuse", "channels": "convert"}


@pytest.fixture
def folder(tmp_path):
    write_manifest(tmp_path, MANIFEST)
    (tmp_path / "segment-1.onnx").write_bytes(b"one")
    (tmp_path / "segment-2.onnx").write_bytes(b"two")
    return tmp_path


def refused(folder):
    with pytest.raises(UserError) as caught:
        read_manifest(folder)
    assert "\n" not in str(caught.value) and FILE in str(caught.value)
    return str(caught.value)


def changed(folder, change):
    content = json.loads((folder / FILE).read_text())
    change(content)
    (folder / FILE).write_text(json.dumps(content))


def test_what_is_written_is_read_again(folder):
    assert read_manifest(folder) == MANIFEST and MANIFEST.num_exits == 2
    assert read_files(folder, MANIFEST) == {"segment-1.onnx": b"one", "segment-2.onnx": b"two"}


def test_older_manifests_say_less_of_image_files(folder):
    changed(folder, lambda content: content.update(image_files=RULE))
    assert read_manifest(folder).image_files == ImageFiles("refuse", "convert")


def test_the_checksum_is_sha256():
    assert checksum(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


NEEDED = """format_version format experiment criterion thresholds classes input input.shape input.dtype
input.layout normalisation.mean normalisation.std image_files.size image_files.channels costs costs.engine
costs.threads costs.machine costs.baseline costs.exits files"""


@pytest.mark.parametrize("key", NEEDED.split())
def test_every_key_is_missed_by_name(key, folder):
    *above, last = key.split(".")

    def change(content):
        for step in above:
            content = content[step]
        del content[last]

    changed(folder, change)
    assert f"it has no {key}" in refused(folder)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("format_version", 3, ["3", "reads 1 and 2"]),
        ("format", "tflite", ["tflite", "segments, single, torch"]),
        ("thresholds", [0.1, 0.2], ["thresholds has 2", "1 belong"]),
        ("thresholds", ["0.1"], ["thresholds", "numbers"]),
        ("thresholds", [math.nan], ["thresholds", "numbers"]),
        ("thresholds", [10**400], ["thresholds", "numbers"]),
        ("thresholds", [True], ["thresholds", "numbers"]),
        ("classes", ["one"], ["classes"]),
        ("input", {"dtype": "float32", "layout": "NCHW", "shape": [1, 2, 3]}, ["input.dtype", "uint8"]),
        ("input", {"dtype": "uint8", "layout": "NCHW", "shape": [3, 8]}, ["input.shape"]),
        ("input", [], ["no input.dtype"]),
        ("normalisation", {"mean": [0.1], "std": [0.1, 0.1, 0.1]}, ["normalisation.mean has 1", "3 belong"]),
        ("image_files", {"size": "crop", "channels": "convert"}, ["crop", "bilinear, refuse"]),
        ("image_files", {**RULE, "background": [0]}, ["image_files.background has 1", "3 belong"]),
        ("image_files", {**RULE, "background": [0, 0, 256]}, ["image_files.background", "0 … 255"]),
        ("image_files", {**RULE, "invert": 1}, ["image_files.invert", "true or false"]),
        ("image_files", {**RULE, "border": [1]}, ["image_files.border", "two"]),
        ("files", [], ["files"]),
        ("files", [{"name": "../up.onnx", "sha256": "0"}] * 2, ["files", "names"]),
        ("files", [{"name": "segment-1.onnx", "sha256": "0"}] * 2, ["files has 1", "2 belong"]),
    ],
)
def test_a_wrong_value_is_named(key, value, words, folder):
    changed(folder, lambda content: content.update({key: value}))
    message = refused(folder)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"3", b'{"format_version": 1}', b"[" * 10**5]
)
def test_a_damaged_manifest_gets_one_line(content, folder):
    (folder / FILE).write_bytes(content)
    assert "damaged" in refused(folder)


def test_a_folder_without_manifest_is_no_export(tmp_path):
    assert "no export" in refused(tmp_path) and "no export" in refused(tmp_path / "nowhere")


def test_a_damaged_or_missing_model_is_named(folder):
    (folder / "segment-2.onnx").write_bytes(b"twp")
    with pytest.raises(UserError, match=r"segment-2\.onnx is damaged: its checksum"):
        read_files(folder, MANIFEST)
    (folder / "segment-2.onnx").unlink()
    with pytest.raises(UserError, match=r"segment-2\.onnx cannot be read"):
        read_files(folder, MANIFEST)


def test_no_number_that_json_does_not_know_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(tmp_path, replace(MANIFEST, thresholds=(math.inf,)))
