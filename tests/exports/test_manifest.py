"""manifest.json: what is written is read again, and whatever is wrong with it is said in one line."""

import hashlib
import json
import math
import re
from dataclasses import replace

import pytest
from damage import damage

from branchynet.data.image_files import ImageFiles
from branchynet.errors import UserError
from branchynet.exits.certificate import Certificate
from branchynet.exports.manifest import (
    FILE,
    SCHEMA,
    Cost,
    Costs,
    Manifest,
    ModelFile,
    checksum,
    content_checksum,
    read_files,
    read_manifest,
    write_manifest,
)
from branchynet.exports.tensors import of_segment
from branchynet.runtime.profile import Validation

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
    unit="nats",
    most=0.7,
    files={
        "segment-1.onnx": ModelFile(checksum(b"one"), 3, of_segment(1, (3, 8, 6), (4, 2, 2))),
        "segment-2.onnx": ModelFile(checksum(b"two"), 3, of_segment(2, (4, 2, 2), None)),
    },
)


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


def test_what_is_written_is_read_again(folder):
    assert read_manifest(folder) == MANIFEST and MANIFEST.num_exits == 2
    assert read_files(folder, MANIFEST) == {"segment-1.onnx": b"one", "segment-2.onnx": b"two"}


def test_a_promise_is_kept_and_manifests_without_one_are_read(folder):
    assert "certificate" not in json.loads((folder / FILE).read_text())
    promised = Certificate("a promise.", "harmful", 0.01, 0.1, 5000, 0, 0.008, 0.085, "last", 40, 12)
    write_manifest(folder, replace(MANIFEST, certificate=promised))
    assert read_manifest(folder).certificate == promised
    content = json.loads((folder / FILE).read_text())
    content["certificate"]["delta"] = 1.0
    content["sha256"] = content_checksum(content)
    (folder / FILE).write_text(json.dumps(content))
    assert "certificate.delta is '1.0'" in refused(folder)


VALIDATION = Validation(500, (0.7, 0.3), 0.02, ((0.0, 0.25, 0.6),), ((0.2,), ()), ((1.0, 0.5), (0.9,)))


def test_what_is_known_of_validation_is_read_again_and_older_manifests_do_without(folder, tmp_path):
    with pytest.raises(UserError, match="export the run again"):
        _ = read_manifest(folder).profile
    (tmp_path / "with").mkdir()
    written = replace(MANIFEST, validation=VALIDATION)
    write_manifest(tmp_path / "with", written)
    found = read_manifest(tmp_path / "with")
    assert found == written and found.profile.fingerprint == written.profile.fingerprint
    assert found.profile.costs == {"latency_us": (1.5, 4.0), "macs": (100, 320)}
    assert found.profile.certified is None and found.profile.most == 0.7
    promise = Certificate("…", "harmful", 0.01, 0.1, 1000, 1000, 0.005, 0.05, "last")
    assert replace(written, certificate=promise).profile.certified == (0.25,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"exit_rates": (1.0,)}, "exit_rates"),
        ({"uncertainty": ((0.2, 0.1),)}, "do not rise"),
        ({"uncertainty": ((0.1, 0.2), (0.1, 0.2))}, r"validation\.uncertainty has 2 entries where 1 belong"),
        ({"samples": 0}, "samples"),
        ({"disagreement": 1.5}, "disagreement"),
        ({"bins": ((0.2,),)}, "one number more"),
        ({"bins": ((math.inf,), ())}, "bins"),
        ({"right": ((1.0,), (0.9,))}, "one number more"),
    ],
)
def test_what_cannot_be_known_of_validation_is_not_written(change, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        write_manifest(tmp_path, replace(MANIFEST, validation=replace(VALIDATION, **change)))


def test_the_checksum_is_sha256():
    assert checksum(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"3", b'{"format_version": 1}', b"[" * 10**5]
)
def test_a_damaged_manifest_gets_one_line(content, folder):
    (folder / FILE).write_bytes(content)
    assert "damaged" in refused(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("thresholds", [0.26]),
        ("thresholds", [0.2]),  # cut short on a disk that was full, say
        ("classes", ["a", "b"]),
        ("image_files", {"size": "bilinear", "channels": "convert"}),
        ("somebody's own", 1),
    ],
)
def test_whatever_was_changed_afterwards_is_told(key, value, folder):
    content = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(content))
    assert read_manifest(folder) == MANIFEST, "other spaces are no change"
    (folder / FILE).write_text(json.dumps({**content, key: value}))
    message = refused(folder)
    assert (
        "is damaged: its content is not what was written" in message and "thresholds are set where" in message
    )


def test_the_checksum_of_the_content_can_be_computed_by_anybody(folder):
    content = json.loads((folder / FILE).read_text())
    stated = content.pop("sha256")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert stated == hashlib.sha256(text.encode("ascii")).hexdigest() == content_checksum(content)


def test_a_manifest_of_the_first_form_is_read(folder):
    content = json.loads((folder / FILE).read_text())
    for key in ("sha256", "uncertainty", "stop_rule", "loop"):
        del content[key]
    content["image_files"] = {"size": "refuse", "channels": "convert"}
    content["files"] = [{"name": file["name"], "sha256": file["sha256"]} for file in content["files"]]
    (folder / FILE).write_text(json.dumps({**content, "format_version": 1}))
    files = {name: ModelFile(file.sha256) for name, file in MANIFEST.files.items()}
    found = read_manifest(folder)
    assert found == replace(
        MANIFEST,
        unit="",
        most=None,
        image_files=ImageFiles("refuse", "convert"),
        files=files,
        format_version=1,
    )
    assert set(read_files(folder, found)) == set(files)


def test_a_later_form_is_named(folder):
    (folder / FILE).write_text('{"format_version": 6}')
    assert "has the format_version 6, this branchynet reads 1, 2, 3, 4, 5" in refused(folder)


def test_the_schema_lies_beside_it(folder):
    schema = json.loads((folder / SCHEMA).read_text())
    assert (
        set(schema["required"]) <= set(json.loads((folder / FILE).read_text())) <= set(schema["properties"])
    )


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "huge", "cut", "empty"])
def test_a_file_that_cannot_be_read_gets_one_line(kind, folder):
    for name in ("segment-2.onnx", FILE):
        damage(folder / name, kind)
        with pytest.raises(UserError, match=re.escape(name)) as caught:
            read_files(folder, MANIFEST) if name != FILE else read_manifest(folder)
        assert "\n" not in str(caught.value) and "export the run again" in str(caught.value)


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
    with pytest.raises(ValueError, match="finite"):
        write_manifest(tmp_path, replace(MANIFEST, thresholds=(math.inf,)))
