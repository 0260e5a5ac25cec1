"""The evidence of a run is read back as it was written; what is damaged is told in one line."""

import csv
import io
import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from branchynet.errors import UserError
from branchynet.evaluation.fitting import Fitting, same_images
from branchynet.exits.criteria import Criterion, Entropy
from branchynet.runs.stored import (
    StoredCriterion,
    read_baseline,
    read_costs,
    read_criterion,
    read_evidence,
    read_trace,
    write_baseline,
    write_costs,
    write_criterion,
    write_evidence,
    write_trace,
)


def test_a_trace_is_read_back(report, tmp_path):
    path = tmp_path / "trace-test.npz"
    write_trace(path, report.trace)
    back = read_trace(path)
    assert torch.equal(back.uncertainty, report.trace.uncertainty)
    assert torch.equal(back.prediction, report.trace.prediction)
    assert torch.equal(back.label, report.trace.label)
    with np.load(path) as archive:
        kinds = {name: (archive[name].dtype.name, archive[name].shape) for name in archive}
    assert kinds == {
        "uncertainty": ("float32", (8, 2)),
        "prediction": ("int64", (8, 2)),
        "label": ("int64", (8,)),
    }


def damage_cut(path):
    path.write_bytes(path.read_bytes()[:-60])


def damage_byte(path):
    content = bytearray(path.read_bytes())
    content[120] ^= 0xFF
    path.write_bytes(bytes(content))


def damage_empty(path):
    path.write_bytes(b"")


def damage_words(path):
    path.write_text("no archive")


def damage_missing_array(path):
    np.savez(path, label=np.zeros(8, np.int64))


def damage_types(path):
    pair = np.zeros((8, 2))
    np.savez(path, uncertainty=pair, prediction=pair.astype(np.int64), label=np.zeros(8, np.int64))


def damage_shapes(path):
    pair = np.zeros((8, 2), np.float32)
    np.savez(path, uncertainty=pair, prediction=pair.astype(np.int64), label=np.zeros(7, np.int64))


def damage_pickle(path):
    np.savez(path, uncertainty=np.array([{"a": 1}], dtype=object), prediction=1, label=1)


def damage_nan(path):
    pair = np.zeros((8, 2), np.int64)
    np.savez(path, uncertainty=np.float32(pair + np.nan), prediction=pair, label=pair[:, 0])


def damage_sizes(path):
    """A header that promises more than there is, and than there is memory for."""
    write_header(path, (10**6, 10**6))


def write_header(path, shape):
    content = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, header)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("uncertainty", "prediction", "label"):
            archive.writestr(f"{name}.npy", content.getvalue() + bytes(64))


def damage_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(11):
            with archive.open(f"{n}.npy", "w") as file:
                file.write(bytes(10**7))
    content = path.read_bytes()  # as if each had a hundred times as much
    path.write_bytes(content.replace((10**7).to_bytes(4, "little"), (10**9).to_bytes(4, "little")))


def damage_fifo(path):
    path.unlink()
    os.mkfifo(path)


def damage_device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def damage_single_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


@pytest.mark.parametrize(
    "damage",
    [
        damage_cut,
        damage_byte,
        damage_empty,
        damage_words,
        damage_missing_array,
        damage_types,
        damage_shapes,
        damage_pickle,
        damage_nan,
        damage_sizes,
        damage_bomb,
        damage_fifo,
        damage_device,
        damage_single_array,
    ],
    ids=lambda function: function.__name__,
)
def test_a_damaged_trace_is_told_in_one_line(report, tmp_path, damage):
    path = tmp_path / "trace-test.npz"
    write_trace(path, report.trace)
    damage(path)
    with pytest.raises(UserError, match="is no trace") as caught:
        read_trace(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_trace_is_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"there is no trace .*nowhere\.npz"):
        read_trace(tmp_path / "nowhere.npz")


def test_costs_are_read_back_to_the_last_digit(report, three_exits, tmp_path):
    for original in (report, three_exits):
        # Numbers that no short decimal is.
        third = replace(original.latencies["onnxruntime"].baseline, median_us=100 / 3, iqr_us=1 / 7)
        timed = replace(original.latencies["onnxruntime"], baseline=third)
        original = replace(original, latencies={**original.latencies, "onnxruntime": timed})
        write_costs(tmp_path / "costs.csv", original)
        macs, latencies = read_costs(tmp_path / "costs.csv")
        assert macs == original.macs
        assert list(latencies) == list(original.latencies)
        for engine, expected in original.latencies.items():
            found = latencies[engine]
            for kind in ("exits", "static", "trunk_only"):
                pairs = zip(getattr(found, kind), getattr(expected, kind), strict=True)
                assert all((a.median_us, a.iqr_us) == (b.median_us, b.iqr_us) for a, b in pairs)
            assert (found.baseline.median_us, found.baseline.iqr_us) == (
                expected.baseline.median_us,
                expected.baseline.iqr_us,
            )


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: "junk",
        lambda text: text.replace("latency_us", "time"),
        lambda text: text.replace("100", "many", 1),
        lambda text: "\n".join(line for line in text.splitlines() if "baseline" not in line),
        lambda text: "\n".join(line for line in text.splitlines() if ",1," not in line),
        lambda text: text.replace(",10.0,", ",nan,"),
        lambda text: text.replace(",10.0,", ",inf,"),
        lambda text: text.replace(",10.0,", ",0,"),
        lambda text: text.replace(",10.0,1.25", ",10.0,-1"),
        lambda text: text.replace(",100,", ",0,", 1),
        lambda text: "\n".join(line for line in text.splitlines() if not line.startswith("torch,2,")),
    ],
)
def test_damaged_costs_are_told_in_one_line(report, tmp_path, damage):
    path = tmp_path / "costs.csv"
    write_costs(path, report)
    before = path.read_text()
    path.write_text(damage(before))
    assert path.read_text() != before
    with pytest.raises(UserError, match="is damaged") as caught:
        read_costs(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_the_baseline_gets_right_is_read_back(make_report, tmp_path):
    report = make_report(
        baseline={"test": torch.arange(8) < 6, "val": torch.arange(8) != 3},
        inexact_test=torch.tensor([2, 5]),
        inexact_training=7,
    )
    write_baseline(tmp_path / "baseline.npz", report)
    back = read_baseline(tmp_path / "baseline.npz")
    assert (back.correct["test"].tolist(), back.correct["val"].tolist()) == (
        [n < 6 for n in range(8)],
        [n != 3 for n in range(8)],
    )
    assert back.inexact_test.tolist() == [2, 5] and back.inexact_training == 7


def test_damaged_and_missing_files_are_told_in_one_line(tmp_path):
    path = tmp_path / "baseline.npz"
    for read in (read_baseline, read_costs):
        with pytest.raises(UserError, match="there is no"):
            read(path)
    right = np.zeros(8, bool)
    for content in (
        {"test_correct": right},
        dict.fromkeys(ARRAYS, right),
        dict.fromkeys(ARRAYS, np.zeros(8)),
    ):
        np.savez(path, **content)
        with pytest.raises(UserError, match=r"baseline\.npz is damaged"):
            read_baseline(path)
    path.write_bytes(b"junk")
    with pytest.raises(UserError, match=r"baseline\.npz is damaged"):
        read_baseline(path)


ARRAYS = ("val_correct", "test_correct", "inexact_test", "inexact_training")


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_costs(report, tmp_path):
    write_costs(tmp_path / "costs.csv", report)
    rows = rows_of(tmp_path / "costs.csv")
    assert [(row["engine"], row["exit"]) for row in rows] == [
        (engine, exit_name) for engine in ("onnxruntime", "torch") for exit_name in ("baseline", "1", "2")
    ]
    assert rows[0]["macs"] == "425" and float(rows[0]["latency_us"]) == 40 and rows[0]["static_macs"] == ""
    exit_two = {name: float(value) for name, value in rows[5].items() if name not in ("engine", "exit")}
    assert exit_two == {
        "macs": 500,
        "latency_us": 150,
        "latency_iqr_us": 18.75,
        "static_macs": 445,
        "static_latency_us": 126,
        "static_latency_iqr_us": 15.75,
        "trunk_only_macs": 400,
        "trunk_only_latency_us": 114,
        "trunk_only_latency_iqr_us": 14.25,
    }


class Learned(Criterion):
    """With something that it has learned."""

    name, unit, learns = "learned", "units", True

    def __init__(self, value):
        super().__init__()
        self.register_buffer("value", torch.tensor(value))


SETTINGS = {"_target_": "branchynet.exits.criteria.Entropy", "words": ["a", {"b": None}], "number": 0.1}


def test_a_criterion_is_read_back(tmp_path):
    stored = StoredCriterion.of(SETTINGS, "torch", (Learned([1.0, 2.0]), Learned([3.0])))
    write_criterion(tmp_path / "criterion.pt", stored)
    back = read_criterion(tmp_path / "criterion.pt")
    assert (back.settings, back.traced_by) == (SETTINGS, "torch")
    assert [state["value"].tolist() for state in back.states] == [[1.0, 2.0], [3.0]]
    # One that learns nothing has nothing to store, but is there for every exit.
    assert list(StoredCriterion.of({}, "torch", (Entropy(), Entropy())).states) == [{}, {}]
    assert read_criterion(tmp_path / "nowhere.pt") is None


def test_the_images_that_something_was_fitted_on_are_read_back(tmp_path):
    path, val = tmp_path / "criterion.pt", torch.tensor([True, False, True, False])
    for fitting in (Fitting(2, val, 0.5, ("a", "")), Fitting(7, notes=("b",)), None):
        write_criterion(path, StoredCriterion.of(SETTINGS, "torch", (Entropy(),), fitting=fitting))
        back = read_criterion(path).fitting
        assert same_images(back, fitting) and (back is None or back.notes == fitting.notes)
    content = torch.load(path, weights_only=True)
    # An older run's.
    torch.save({name: value for name, value in content.items() if name != "fitting"}, path)
    assert read_criterion(path).fitting is None
    for wrong in (
        {"images": 3, "val": val, "share": 0.5},
        {"images": 2, "val": val.int(), "share": 0.5},
        {"images": 2, "val": val, "share": "half"},
        {"images": 2},
        5,
    ):
        torch.save({**content, "fitting": wrong}, path)
        with pytest.raises(UserError, match=r"criterion\.pt is damaged"):
            read_criterion(path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"settings": {}, "traced_by": "torch"},
        {"settings": {}, "traced_by": "torch", "states": 3},
        {"settings": {}, "traced_by": "torch", "states": [{}, 3]},
        {"settings": 3, "traced_by": "torch", "states": []},
        {"settings": {"_target_": torch.zeros(2)}, "traced_by": "torch", "states": [{}]},
        [1, 2],
        torch.zeros(2),
    ],
)
def test_a_file_with_something_else_in_it_is_no_criterion(content, tmp_path):
    path = tmp_path / "criterion.pt"
    torch.save(content, path)
    with pytest.raises(UserError, match=r"criterion\.pt is damaged") as caught:
        read_criterion(path)
    assert "\n" not in str(caught.value)


def test_a_criterion_that_is_cut_off_is_told_in_one_line(tmp_path):
    path = tmp_path / "criterion.pt"
    write_criterion(path, StoredCriterion.of(SETTINGS, "torch", (Learned([1.0]),)))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"criterion\.pt is not a checkpoint .*delete it") as caught:
        read_criterion(path)
    assert "\n" not in str(caught.value)


def test_the_whole_evidence_is_read_back(make_report, tmp_path):
    report = make_report(inexact_test=torch.tensor([2, 5]), inexact_training=7)
    write_evidence(tmp_path, report, StoredCriterion(SETTINGS, "torch", [{}, {}]))
    back = read_evidence(tmp_path, report.classes, report.machine, report.versions)
    for split in ("val", "test"):
        assert torch.equal(back.traces[split].uncertainty, report.traces[split].uncertainty)
        assert torch.equal(back.baseline_correct[split], report.baseline_correct[split])
    assert (back.macs, back.latencies) == (report.macs, report.latencies)
    assert (back.classes, back.machine, back.versions) == (report.classes, "a machine", {"torch": "2.15.0"})
    assert back.inexact_test.tolist() == [2, 5] and back.inexact_training == 7


@pytest.mark.parametrize("array", ["prediction", "label"])
@pytest.mark.parametrize("value", [-1, 3, 2**62])
def test_a_trace_of_other_classes_is_noticed(array, value, report, tmp_path):
    write_evidence(tmp_path, report, StoredCriterion(SETTINGS, "torch", [{}, {}]))
    numbers = getattr(report.trace, array).clone()
    numbers[5] = value
    write_trace(tmp_path / "trace-test.npz", replace(report.trace, **{array: numbers}))
    words = rf"trace-test\.npz is damaged: a {array} is none of the 3 classes"
    with pytest.raises(UserError, match=words):
        read_evidence(tmp_path, report.classes, report.machine, report.versions)


def test_images_that_are_not_there_are_noticed(make_report, tmp_path):
    write_evidence(tmp_path, make_report(), StoredCriterion(SETTINGS, "torch", [{}, {}]))
    write_baseline(tmp_path / "baseline.npz", make_report(inexact_test=torch.tensor([7])))
    with np.load(tmp_path / "baseline.npz") as archive:
        arrays = dict(archive)
    for change in ({"inexact_test": np.array([8])}, {"inexact_training": np.int64(-1)}):
        np.savez(tmp_path / "baseline.npz", **{**arrays, **change})
        with pytest.raises(UserError, match=r"baseline\.npz is damaged"):
            read_evidence(tmp_path, ("a", "b", "c"), "a machine", {})


@pytest.mark.parametrize("name", ["trace-val.npz", "trace-test.npz", "costs.csv", "baseline.npz"])
def test_evidence_of_two_runs_is_noticed(name, report, three_exits, make_report, tmp_path):
    """Another number of samples or of exits shows."""
    stored = StoredCriterion(SETTINGS, "torch", [{}, {}])
    write_evidence(tmp_path, report, stored)
    short = {split: trace.at(torch.arange(7)) for split, trace in report.traces.items()}
    other = three_exits if name == "costs.csv" else make_report(traces=short)
    write_evidence(tmp_path / "other", other, stored)
    (tmp_path / "other" / name).replace(tmp_path / name)
    with pytest.raises(UserError, match="are not of one run: take from=network"):
        read_evidence(tmp_path, report.classes, report.machine, report.versions)


def test_of_validation_alone_nothing_of_test_is_written(make_report, tmp_path):
    write_evidence(tmp_path, make_report(split="val"), StoredCriterion(SETTINGS, "torch", [{}, {}]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["costs.csv", "criterion.pt", "trace-val.npz"]


def test_what_heads_alone_say_is_read_back(averaged, tmp_path):
    write_trace(tmp_path / "trace.npz", averaged.trace)
    back = read_trace(tmp_path / "trace.npz")
    assert torch.equal(back.alone, averaged.trace.alone)
    assert torch.equal(back.correct_alone, averaged.trace.correct_alone)
    with np.load(tmp_path / "trace.npz") as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "trace.npz", **{**arrays, "alone": arrays["alone"].astype(np.float32)})
    with pytest.raises(UserError, match="the type of alone is float32"):
        read_trace(tmp_path / "trace.npz")


def test_what_exits_answer_is_read_back_and_older_files_mean_what_their_heads_say(tmp_path):
    path = tmp_path / "criterion.pt"
    combine = {"_target_": "branchynet.exits.combining.Average", "shares": None}
    write_criterion(path, StoredCriterion.of(SETTINGS, "torch", (Entropy(), Entropy()), combine, (0.0, 0.37)))
    assert (read_criterion(path).combine, read_criterion(path).shares) == (combine, (0.0, 0.37))
    torch.save({"settings": SETTINGS, "traced_by": "torch", "states": [{}, {}]}, path)
    assert read_criterion(path) == StoredCriterion(SETTINGS, "torch", [{}, {}])
    assert read_criterion(path).combine == {"_target_": "branchynet.exits.combining.Separate"}
    torch.save({"settings": SETTINGS, "traced_by": "torch", "states": [{}, {}], "shares": ["?"]}, path)
    with pytest.raises(UserError, match=r"criterion\.pt is damaged"):
        read_criterion(path)


def test_confidences_are_read_back_and_older_traces_have_none(report, tmp_path):
    assert read_trace_of(report.trace, tmp_path).confidence is None
    confidence = torch.rand(8, 2)
    assert torch.equal(
        read_trace_of(replace(report.trace, confidence=confidence), tmp_path).confidence, confidence
    )


def read_trace_of(trace, folder):
    write_trace(folder / "trace.npz", trace)
    return read_trace(folder / "trace.npz")
