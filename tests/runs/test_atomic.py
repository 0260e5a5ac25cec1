"""Files that appear whole or not at all."""

import csv

import pytest

from branchynet.runs.atomic import replacing, write_csv


def test_the_file_is_there_at_the_end_and_not_before(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent, "else it could lie on another disk, and not simply be moved"
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_no_scraps(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of the ne")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_written_is_a_failure_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"


def test_a_table_is_read_back(tmp_path):
    rows = [["a, b", 1, 0.1], ["it's\n", None, 1e-30]]
    write_csv(tmp_path / "table.csv", ["name", "number", "value"], rows)
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.reader(file))
    assert found == [["name", "number", "value"], ["a, b", "1", "0.1"], ["it's\n", "", "1e-30"]]
    assert float(found[1][2]) == 0.1
    assert b"\r" not in (tmp_path / "table.csv").read_bytes()


def test_rows_that_fail_on_the_way_leave_the_old_table(tmp_path):
    write_csv(tmp_path / "table.csv", ["n"], [[1]])

    def rows():
        yield [2]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_csv(tmp_path / "table.csv", ["n"], rows())
    assert (tmp_path / "table.csv").read_text() == "n\n1\n"
