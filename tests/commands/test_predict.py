"""`branchynet predict`: rows for images of every kind, and a line for every mistake."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from branchynet.commands.app import conf_folder, user_message
from branchynet.commands.export import describe
from branchynet.commands.predict import COLUMNS, opened, predict
from branchynet.data.datasets import load_dataset
from branchynet.data.image_files import ImageFiles
from branchynet.errors import UserError
from branchynet.exports.manifest import content_checksum, read_manifest, write_manifest
from branchynet.exports.write import write_export
from branchynet.runs.finished_run import open_run


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    run = open_run(finished)
    write_export(folder, run.network, run.criteria, describe(run, "segments"))
    return folder


@pytest.fixture(scope="module")
def threshold(finished):
    """Half of the test images leave at exit 1, and none of them near it."""
    low, high = np.sort(np.load(finished / "trace-test.npz")["uncertainty"][:, 0])[[179, 180]]
    return float(low + high) / 2


@pytest.fixture(scope="module")
def half(threshold):
    return f"thresholds=[{threshold}]"


@pytest.fixture(scope="module")
def x():
    return load_dataset("digits").test.x.numpy()[:150]


@pytest.fixture
def pictures(x, tmp_path):
    """Five images as files; one of them in colour and larger, one in a folder of its own."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for i in range(3):
        Image.fromarray(x[i, 0]).save(folder / f"{i}.png")
    Image.fromarray(x[3, 0]).convert("RGB").resize((56, 56)).save(folder / "3.png")
    Image.fromarray(x[4, 0]).save(folder / "sub" / "4.png")
    return folder


def predicted(*overrides):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("predict", overrides=list(overrides))
    predict(config, None)


def refused(*overrides):
    with pytest.raises(Exception) as caught:
        predicted(*overrides)
    message = user_message(caught.value)
    assert message is not None, caught.value
    return message


def test_json_lines_are_what_the_network_says(exported, finished, x, threshold, half, tmp_path, capsys):
    np.save(tmp_path / "x.npy", x)
    predicted(f"export={exported}", f"input={tmp_path}/x.npy", "format=jsonl", half)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    trace, result = np.load(finished / "trace-test.npz"), json.loads((finished / "result.json").read_text())
    exits = np.where(trace["uncertainty"][:150, 0] < threshold, 0, 1)
    assert 10 < exits.sum() < 140
    for i, (row, exit) in enumerate(zip(rows, exits, strict=True)):
        assert tuple(row) == COLUMNS
        assert (row["image"], row["exit"]) == (f"x.npy[{i}]", exit + 1)
        assert row["class"] == str(trace["prediction"][i, exit])
        assert row["uncertainty"] == pytest.approx(float(trace["uncertainty"][i, exit]), abs=1e-5)
        assert (row["macs"], row["latency_us"]) == (
            result["exits"][exit]["macs"],
            result["exits"][exit]["latency_us"],
        )
        assert 0.1 <= row["confidence"] <= 1


def test_csv_and_files_give_the_same_as_the_array(exported, x, half, pictures, tmp_path, capsys):
    np.save(tmp_path / "x.npy", x[:5])
    predicted(f"export={exported}", f"input={tmp_path}/x.npy", "format=csv", half)
    from_array = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    output = tmp_path / "out.csv"
    predicted(f"export={exported}", f"input={pictures}", "format=csv", half, f"output={output}")
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err == ""
    from_files = list(csv.DictReader(output.read_text().splitlines()))
    assert [row["image"] for row in from_files] == ["0.png", "1.png", "2.png", "3.png", "sub/4.png"]
    for i in (0, 1, 2, 4):
        assert {**from_files[i], "image": ""} == {**from_array[i], "image": ""}
    message = refused(f"export={exported}", f"input={pictures}", f"output={output}")
    assert "overwrite=true" in message and len(output.read_text().splitlines()) == 6
    predicted(f"export={exported}", f"input={pictures}", f"output={output}", "overwrite=true")
    assert "exit" in output.read_text().splitlines()[1]


def test_the_table_adds_up(exported, finished, x, half, tmp_path, capsys):
    np.save(tmp_path / "x.npy", x)
    predicted(f"export={exported}", f"input={tmp_path}/x.npy", half)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["image", "class", "confidence"]
    exits = [int(line.split()[3]) for line in lines[3:153]]
    first, second = exits.count(1), exits.count(2)
    assert f"150 images left at exits 1 … 2: {first}, {second}." in lines[154]
    costs = json.loads((finished / "result.json").read_text())["exits"]
    mean = (first * costs[0]["macs"] + second * costs[1]["macs"]) / 150
    assert f"On average {mean / 1e6:,.3f} M MACs" in lines[154]


def test_a_run_answers_as_its_export_does(exported, finished, half, pictures, capsys):
    rows = []
    for source in (f"export={exported}", f"run={finished}"):
        predicted(source, f"input={pictures}", "format=jsonl", half)
        rows.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    for first, second in zip(*rows, strict=True):
        for key in ("image", "class", "exit", "macs", "latency_us"):
            assert first[key] == second[key]
        assert first["confidence"] == pytest.approx(second["confidence"], abs=1e-5)


def test_unreadable_images_get_a_line_each_and_the_rest_goes_on(exported, pictures, tmp_path):
    (pictures / "1.png").write_bytes((pictures / "1.png").read_bytes()[:60])
    (pictures / "bad.png").write_bytes(b"no image")
    # As users call it, with no torch to import.
    code = (
        "import sys; from branchynet.exports.replay import NoTorch; sys.meta_path.insert(0, NoTorch());"
        "sys.argv[0] = 'branchynet'; from branchynet.__main__ import main; main()"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            code,
            "predict",
            f"export={exported}",
            "input=pictures",
            "format=csv",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert [line.split(",")[0] for line in done.stdout.splitlines()[1:]] == [
        "0.png",
        "2.png",
        "3.png",
        "sub/4.png",
    ]
    first, second, last = done.stderr.splitlines()
    assert "1.png cannot be read" in first and "bad.png cannot be read" in second
    assert last == "branchynet: 2 of 6 images were left out for the reasons above"
    assert os.listdir(tmp_path) == ["pictures"], "nothing else is left behind"


def test_the_manifests_rule_is_kept(exported, pictures, tmp_path, capsys):
    strict = shutil.copytree(exported, tmp_path / "strict")
    written = read_manifest(strict)
    for rule, words in (
        ({"size": "refuse", "channels": "convert"}, "is 56×56, must be 28×28"),
        ({"size": "bilinear", "channels": "refuse"}, "is RGB, must be L"),
    ):
        write_manifest(strict, replace(written, image_files=ImageFiles(**rule)))
        assert words in refused(f"export={strict}", f"input={pictures}/3.png")
        predicted(f"export={strict}", f"input={pictures}/2.png")
        assert "2.png" in capsys.readouterr().out


def test_mistakes_get_one_line(exported, finished, pictures, x, tmp_path):
    np.save(tmp_path / "colour.npy", np.zeros((2, 3, 28, 28), np.uint8))
    (tmp_path / "empty").mkdir()
    export, image = f"export={exported}", f"input={pictures}/0.png"
    for overrides, words in (
        ([image], ["one of export=", "run="]),
        ([export, f"run={finished}", image], ["one of export="]),
        ([export], ["input="]),
        ([export, "input="], ["input="]),
        ([export, image, "format=xml"], ["xml", "table, csv, jsonl"]),
        ([f"export={tmp_path}/nowhere", image], ["nowhere", "no export"]),
        ([f"export={finished}", image], ["no export"]),
        ([f"run={tmp_path}/nowhere", image], ["nowhere", "no run"]),
        ([export, f"input={tmp_path}/nowhere"], ["nowhere", "is not there"]),
        ([export, f"input={tmp_path}/empty"], ["no image files"]),
        ([export, f"input={tmp_path}/colour.npy"], ["(2, 3, 28, 28)", "(S, 1, 28, 28)"]),
        ([export, image, "thresholds=[1,2]"], ["2 thresholds", "give 1"]),
        ([export, image, "thresholds=0.3"], ["thresholds=0.3", "[0.3]"]),
        ([export, image, "threads=0"], ["threads=0"]),
        ([export, image, "trust=1"], ["trust=1"]),
        ([export, image, f"output={tmp_path}/no/folder.csv"], ["folder.csv", "cannot be written"]),
    ):
        message = refused(*overrides)
        assert all(word in message for word in words), message


def test_whether_there_are_images_is_known_before_the_network_is_loaded(exported, tmp_path, monkeypatch):
    monkeypatch.setattr("branchynet.commands.predict.open_network", lambda config: pytest.fail("loaded"))
    for name in ("nowhere", "nowhere.npy"):
        message = refused(f"export={exported}", f"input={tmp_path}/{name}")
        assert message == f"input={tmp_path}/{name}: {tmp_path}/{name} is not there"


@pytest.mark.parametrize("name", ["itself", "a link", "a hard link"])
def test_the_input_is_never_written_over(name, exported, pictures, tmp_path):
    image = pictures / "0.png"
    before, other = image.read_bytes(), tmp_path / "other.png"
    if name == "a link":
        other.symlink_to(image)
    elif name == "a hard link":
        other.hardlink_to(image)
    output = image if name == "itself" else other
    for source in (image, pictures):
        message = refused(f"export={exported}", f"input={source}", f"output={output}", "overwrite=true")
        assert "one of the images" in message
    assert image.read_bytes() == before


def test_a_prediction_that_fails_leaves_the_old_output(exported, pictures, tmp_path):
    broken, output = tmp_path / "broken.png", tmp_path / "old.csv"
    broken.write_bytes((pictures / "0.png").read_bytes()[:60])
    output.write_text("old\n")
    refused(f"export={exported}", f"input={broken}", f"output={output}", "format=csv", "overwrite=true")
    assert output.read_text() == "old\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.png", "old.csv", "pictures"]
    predicted(f"export={exported}", f"input={pictures}", f"output={output}", "format=csv", "overwrite=true")
    assert len(output.read_text().splitlines()) == 6


def test_a_damaged_export_gets_one_line(exported, pictures, tmp_path):
    damaged = shutil.copytree(exported, tmp_path / "damaged")
    (damaged / "segment-2.onnx").write_bytes((damaged / "segment-2.onnx").read_bytes()[:-1])
    assert "segment-2.onnx is damaged" in refused(f"export={damaged}", f"input={pictures}")
    (damaged / "manifest.json").write_text((damaged / "manifest.json").read_text()[:-10])
    assert "manifest.json is damaged" in refused(f"export={damaged}", f"input={pictures}")


def test_pictures_of_other_kinds(exported, x, tmp_path, capsys):
    folder = tmp_path / "mixed"
    folder.mkdir()
    light = x[0, 0]  # on black, as in training
    Image.fromarray(light).save(folder / "a.png")
    Image.fromarray(255 - light).save(folder / "b.png")
    alone = [f"export={exported}", f"input={folder}", "format=jsonl"]
    predicted(*alone)
    shown = capsys.readouterr()
    assert (
        "1 of 2 images have another border than the training images" in shown.err
        and "b.png first" in shown.err
    )
    rows = [json.loads(line) for line in shown.out.splitlines()]
    (folder / "c.heic").touch()
    os.mkfifo(folder / "d.png")
    assert "1 of 3 images were left out" in refused(*alone, "image_files.invert=true")
    shown = capsys.readouterr()
    assert (
        "1 .heic" in shown.err
        and "d.png cannot be read (it is no regular file)" in shown.err
        and "a.png first" in shown.err
    )
    swapped = [json.loads(line) for line in shown.out.splitlines()]
    again = {**rows[0], "image": swapped[1]["image"]}
    for name in ("uncertainty", "confidence"):  # it stood elsewhere in its batch
        again[name] = pytest.approx(again[name], abs=1e-6)
    assert swapped[1] == again, "light on dark again"
    # The manifest names what lies below transparency: what is around the digits, black.
    Image.fromarray(np.dstack([np.full((28, 28, 3), 255, np.uint8), light])).save(folder / "e.png")
    predicted(f"export={exported}", f"input={folder}/e.png", "format=jsonl")
    assert {**json.loads(capsys.readouterr().out), "image": ""} == {**rows[0], "image": ""}
    for overrides, words in (
        (["image_files.background=[1,2]"], "image_files.background=[1, 2]"),
        (["image_files.invert=1"], "image_files.invert=1: it is true or false"),
        (["image_files=3"], "image_files"),
    ):
        assert words in refused(f"export={exported}", f"input={folder}/e.png", *overrides)


def test_names_of_others_neither_end_a_prediction_nor_control_the_terminal(exported, x, tmp_path, capsys):
    odd, named = "\x1b[31m\udcff\n", shutil.copytree(exported, tmp_path / "export")
    content = json.loads((named / "manifest.json").read_text())
    content["classes"] = [f"{odd}{n}" for n in range(10)]
    content["sha256"] = content_checksum(content)
    (named / "manifest.json").write_text(json.dumps(content))
    (tmp_path / "in").mkdir()
    Image.fromarray(x[0, 0]).save(tmp_path / "in" / f"{odd}.png")
    for form in ("table", "csv", "jsonl"):
        for output in ([], [f"output={tmp_path}/{form}"]):
            predicted(f"export={named}", f"input={tmp_path}/in", f"format={form}", *output)
        shown = capsys.readouterr().out
        assert shown == (tmp_path / form).read_text() and "\x1b" not in shown and r"\u001b[31m\udcff" in shown
    assert json.loads(shown)["class"] in content["classes"] and json.loads(shown)["image"] == f"{odd}.png"


def test_a_table_shows_the_first_and_counts_all(exported, x, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("branchynet.commands.predict.SHOWN", 5)
    np.save(tmp_path / "x.npy", x[:70])
    predicted(f"export={exported}", f"input={tmp_path}/x.npy")
    lines = capsys.readouterr().out.splitlines()
    assert lines[7].startswith("x.npy[4]") and lines[9].startswith("These are the first 5;")
    assert lines[10].startswith("70 images left")


def test_only_its_own_errors_are_the_outputs(tmp_path):
    path = tmp_path / "out"
    path.write_text("old")
    with pytest.raises(OSError, match="elsewhere"), opened(path, True):
        raise OSError(5, "elsewhere")
    # A full disk, at once or as the last letters are written.
    for text in ("short", "long" * 100_000):
        with (
            pytest.raises(UserError, match=r"out cannot be written \(No space left on device\)"),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(Path, "open", lambda path, mode: io.FileIO("/dev/full", "w"))
            with opened(path, True) as file:
                file.write(text)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["out"]


def test_a_controller_holds_a_budget_and_a_later_predict_goes_on(exported, x, tmp_path, capsys):
    np.save(tmp_path / "x.npy", x)
    given = [f"export={exported}", f"input={tmp_path}/x.npy", "controller=latency", "controller.step=0.1"]
    given += ["controller.target=70", "controller.every=4", f"controller.state={tmp_path}/state.json"]
    predicted(*given)
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith("Held: 70.0 µs an image. In 150 images the mean was ")
    mean = float(said[-1].split("the mean was ")[1].split(" µs")[0])
    assert mean == pytest.approx(70, rel=0.1)
    predicted(*given, "format=csv")
    shown = capsys.readouterr()
    assert "In 300 images" in shown.err and "Held" not in shown.out
    for wrong, words in (
        ("thresholds=[0.3]", "a controller sets the thresholds"),
        ("controller.target=1", "controller.target=1: it is at least 30.0 µs"),
        ("controller=macs", "holds latency_us, not macs"),
    ):
        overrides = [*given, wrong] if wrong != "controller=macs" else [*given[:2], wrong, given[-1]]
        assert words in refused(*overrides)


def test_thresholds_from_the_images_own_difficulty(exported, x, pictures, tmp_path, capsys):
    np.save(tmp_path / "x.npy", x)
    for source in (tmp_path / "x.npy", pictures):
        predicted(f"export={exported}", f"input={source}", "thresholds=adaptive")
        said = capsys.readouterr().out.splitlines()[-1]
        assert said.startswith("Adapted: at the thresholds ") and "Estimated accuracy: " in said
        here, on_validation = (
            float(part.split(" %")[0]) for part in (said.split("answers of ")[1], said.split("it was ")[1])
        )
        assert here <= on_validation
    assert "or adaptive" in refused(f"export={exported}", f"input={pictures}", "thresholds=abc")
    # They are read twice, and what cannot be read is told once.
    (pictures / "5.png").write_bytes(b"no picture")
    (pictures / "6.txt").write_text("no picture")
    assert refused(f"export={exported}", f"input={pictures}", "thresholds=adaptive").startswith(
        "1 of 6 images"
    )
    shown = capsys.readouterr()
    assert "Adapted: " in shown.out and len(shown.err.splitlines()) == 2
    assert shown.err.count("5.png cannot be read") == shown.err.count("1 .txt") == 1
