from dataclasses import replace

import numpy as np
import pytest
import torch

from branchynet.errors import UserError
from branchynet.reporting import files
from branchynet.runs.stored import read_baseline, read_costs, read_trace


def test_a_trace_is_read_back(report, tmp_path):
    path = tmp_path / "trace-test.npz"
    files.write_trace(path, report.trace_test)
    back = read_trace(path)
    assert torch.equal(back.uncertainty, report.trace_test.uncertainty)
    assert torch.equal(back.prediction, report.trace_test.prediction)
    assert torch.equal(back.label, report.trace_test.label)
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
        damage_single_array,
    ],
    ids=lambda function: function.__name__,
)
def test_a_damaged_trace_is_told_in_one_line(report, tmp_path, damage):
    path = tmp_path / "trace-test.npz"
    files.write_trace(path, report.trace_test)
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
        files.write_costs(tmp_path / "costs.csv", original)
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
    ],
)
def test_damaged_costs_are_told_in_one_line(report, tmp_path, damage):
    path = tmp_path / "costs.csv"
    files.write_costs(path, report)
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match="is damaged") as caught:
        read_costs(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_the_baseline_gets_right_is_read_back(make_report, tmp_path):
    report = make_report(
        baseline_correct=torch.arange(8) < 6,
        baseline_val_correct=torch.arange(8) != 3,
        inexact_test=torch.tensor([2, 5]),
        inexact_training=7,
    )
    files.write_baseline(tmp_path / "baseline.npz", report)
    back = read_baseline(tmp_path / "baseline.npz")
    assert torch.equal(back.correct["test"], report.baseline_correct)
    assert torch.equal(back.correct["val"], report.baseline_val_correct)
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
