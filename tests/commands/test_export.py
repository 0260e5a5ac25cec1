"""`branchynet export` from the command line, once per format, and its mistakes."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import child
import numpy as np
import onnxruntime
import pytest
from hydra import compose, initialize_config_dir

from branchynet.commands.app import conf_folder, user_message
from branchynet.commands.export import describe, export
from branchynet.errors import UserError
from branchynet.runs.finished_run import open_run


def started(command, folder):
    """As a user starts it."""
    command = [sys.executable, "-W", "error", "-m", "branchynet", *command]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    return child.Done(done.returncode, done.stdout, done.stderr)


def forked(command, folder):
    """The same in a tenth of the time."""
    return child.call(command, folder, at_start=child.warnings_are_errors)


def composed(*overrides):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("export", overrides=list(overrides))


def test_help_answers_without_torch(tmp_path):
    for command in ("export", "predict"):
        code = (
            "import sys, atexit; from branchynet.__main__ import main;"
            f"sys.argv = ['branchynet', '{command}', '--help'];"
            "atexit.register(lambda: print('torch' if 'torch' in sys.modules else 'no t.', file=sys.stderr));"
            "main()"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout.startswith(f"branchynet {command}: ") and "overwrite" in done.stdout
        assert done.stderr == "no t.\n"
    assert list(tmp_path.iterdir()) == []


def test_predict_brings_image_files_to_size_as_training_did(finished):
    run = open_run(finished)
    assert describe(run, "torch").image_files.size == "bilinear"  # its images were no files
    run.facts = replace(run.facts, files_size="crop")
    assert describe(run, "torch").image_files.size == "crop"
    assert describe(run, "torch", size="refuse").image_files.size == "refuse"
    # As a run of before data.json said it.
    run.facts = replace(run.facts, files_size=None)
    run.config.data.size = 64
    assert describe(run, "torch").image_files.size == "crop"


@pytest.mark.parametrize(
    ("name", "files", "branchynet"),
    [
        ("segments", ["segment-1.onnx", "segment-2.onnx"], started),
        ("single", ["model.onnx"], forked),
        ("torch", ["segment-1.pt2", "segment-2.pt2"], forked),
    ],
)
def test_a_run_is_exported_and_its_export_is_the_run(name, files, branchynet, copied, tmp_path):
    # A folder as a run has it: with what was overridden in its name.
    run = copied.rename(tmp_path / "1-seed=0,weights=early it's")
    done = branchynet(["export", f"run={run}", f"format={name}", "compare=200"], tmp_path)
    assert done.code == 0 and done.err == "", done.err
    folder = run / f"export-{name}"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*files, "manifest.json", "manifest.schema.json"]
    )
    text = " ".join(done.out.split())
    assert "200 test images" in text and "the operating point 0 leave at another exit" in text
    assert ("without torch" in text) == (name != "torch")
    assert all(file in text for file in files)
    assert sorted(path.name for path in tmp_path.iterdir()) == [run.name]

    manifest = json.loads((folder / "manifest.json").read_text())
    result = json.loads((run / "result.json").read_text())
    assert manifest["format"] == name and manifest["experiment"] == result["experiment"]
    assert manifest["thresholds"] == result["knee"]["thresholds"]
    assert manifest["criterion"] == result["knee"]["criterion"]
    assert manifest["uncertainty"] == {"unit": "nats", "least": 0, "most": pytest.approx(math.log(10))}
    assert [cost["macs"] for cost in manifest["costs"]["exits"]] == [e["macs"] for e in result["exits"]]
    assert manifest["input"]["shape"] == [1, 28, 28] and manifest["classes"] == list("0123456789")

    # All test images through the command `predict`, against the trace that training left.
    trace = np.load(run / "trace-test.npz")
    middle = float(np.median(trace["uncertainty"][:, 0])) + 1e-4
    command = ["predict", f"export={folder}", f"input={stored_test_images(tmp_path)}", "format=jsonl"]
    trust = ["trust=true"] if name == "torch" else []
    done = branchynet([*command, f"thresholds=[{middle}]", *trust], tmp_path)
    assert done.code == 0 and done.err == "", done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    first = trace["uncertainty"][:, 0] < np.float32(middle)
    assert 0.3 < first.mean() < 0.7
    assert [row["exit"] for row in rows] == np.where(first, 1, 2).tolist()
    expected = np.where(first, trace["prediction"][:, 0], trace["prediction"][:, 1])
    assert [row["class"] for row in rows] == [str(k) for k in expected]


def stored_test_images(folder):
    """The digits' test images, as bytes in a file."""
    from branchynet.data.datasets import load_dataset

    np.save(folder / "test.npy", load_dataset("digits").test.x.numpy())
    return folder / "test.npy"


def test_nothing_is_written_over_unless_asked(finished, tmp_path):
    output = tmp_path / "export"
    overrides = [f"run={finished}", f"output={output}", "compare=40"]
    export(composed(*overrides), tmp_path)
    (output / "notes.txt").write_text("mine")
    (output / "segment-1.onnx").write_bytes(b"old")
    with pytest.raises(Exception, match="overwrite=true"):
        export(composed(*overrides), tmp_path)
    export(composed(*overrides, "overwrite=true"), tmp_path)
    onnxruntime.InferenceSession(output / "segment-1.onnx")
    assert (output / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["export"], "no scratch folder is left"


def test_another_format_in_its_place_leaves_no_file_of_the_first(finished, tmp_path):
    output = tmp_path / "export"
    overrides = [f"run={finished}", f"output={output}", "compare=40", "overwrite=true"]
    export(composed(*overrides), tmp_path)
    # Of an export that was killed long ago, of one that may be at work, and of another folder's.
    for name in (".export-k1lled_a", ".export-at_work1", ".export-other-k1lled_a"):
        (tmp_path / name).mkdir()
        if "k1lled" in name:
            os.utime(tmp_path / name, (0, 0))
    export(composed(*overrides, "format=single"), tmp_path)
    assert sorted(path.name for path in output.iterdir()) == [
        "manifest.json",
        "manifest.schema.json",
        "model.onnx",
    ]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".export-at_work1", ".export-other-k1lled_a", "export"]


def test_an_export_that_differs_is_an_error_and_leaves_nothing(finished, tmp_path, monkeypatch):
    from branchynet.exports import agreement

    replay = agreement.replay

    def wrong(*arguments, **options):
        return [answer._replace(prediction=answer.prediction + 1) for answer in replay(*arguments, **options)]

    monkeypatch.setattr(agreement, "replay", wrong)
    settings = [f"run={finished}", f"output={tmp_path}/export", "compare=40"]
    with pytest.raises(RuntimeError, match="not the network's"):
        export(composed(*settings), tmp_path)
    assert list(tmp_path.iterdir()) == []
    # An older one stays as it is.
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "manifest.json").write_text("old")
    with pytest.raises(RuntimeError, match="not the network's"):
        export(composed(*settings, "overwrite=true"), tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["export", "manifest.json"]
    assert (tmp_path / "export" / "manifest.json").read_text() == "old"


def test_a_folder_that_cannot_be_written_is_told_before_the_work(finished, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr("branchynet.commands.export.describe", lambda *_: pytest.fail("it was worked"))
    with pytest.raises(
        UserError, match=rf"^the folder {tmp_path}/file cannot be written .*set output=<folder>"
    ):
        export(composed(f"run={finished}", f"output={tmp_path}/file/below"), tmp_path)


def test_images_that_have_moved_are_found_by_data_path(finished, tmp_path):
    """As in `evaluate`; these have not, so that the data set refuses the path that arrives there."""
    with pytest.raises(UserError, match=r"a,b\.npz"):
        export(composed(f"run={finished}", f"output={tmp_path}/x", "data.path='a,b.npz'"), tmp_path)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], ["run=<run folder>"]),
        (["run=nowhere"], ["nowhere", "no run"]),
        (["run=nowhere", "format=tflite"], ["tflite", "segments, single, torch"]),
        (["run=nowhere", "overwrite=1"], ["overwrite=1", "true or false"]),
        (["run=nowhere", "trust=some"], ["trust=some", "true or false"]),
        (["run=nowhere", "compare=0"], ["compare=0", "above 0"]),
        (["run=nowhere", "image_files.size=cut"], ["cut", "bilinear, crop, refuse"]),
        (["run=nowhere", "output=a_file"], ["a_file", "is a file"]),
        (["run=nowhere", "output=full"], ["full", "not empty", "overwrite=true"]),
    ],
)
def test_a_mistake_gets_one_line(overrides, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    (tmp_path / "full" / "something").mkdir(parents=True)
    with pytest.raises(Exception) as caught:
        export(composed(*overrides), tmp_path)
    message = user_message(caught.value)
    assert message is not None and all(word in message for word in words), caught.value
    assert sorted(os.listdir(tmp_path)) == ["a_file", "full"]
