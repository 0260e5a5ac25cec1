"""Files that appear whole or not at all."""

import csv
import os

import pytest

from branchynet.errors import UserError
from branchynet.runs.atomic import (
    check_links,
    put_in_place,
    remove_leftovers,
    replacing,
    together,
    write_csv,
)


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


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def write_all(folder, text, fail=False):
    with together(folder, last="result") as staging:
        for name in ("a", "sub/b", "result"):
            (staging / name).parent.mkdir(exist_ok=True)
            (staging / name).write_text(text)
            assert staging.parent == folder, "else it could lie on another disk, and not simply be moved"
        if fail:
            raise RuntimeError


def test_files_that_belong_together_appear_together(tmp_path):
    folder = tmp_path / "new" / "run"
    write_all(folder, "one")
    assert names(folder) == ["a", "result", "sub/b"]
    (folder / "own").write_text("mine")
    write_all(folder, "two")
    assert {(folder / name).read_text() for name in ("a", "result", "sub/b")} == {"two"}
    assert (folder / "own").read_text() == "mine" and len(names(folder)) == 4


def test_a_failure_leaves_all_of_the_old_ones(tmp_path):
    write_all(tmp_path, "one")
    with pytest.raises(RuntimeError):
        write_all(tmp_path, "two", fail=True)
    assert names(tmp_path) == ["a", "result", "sub/b"]
    assert {(tmp_path / name).read_text() for name in names(tmp_path)} == {"one"}


def test_whoever_is_killed_in_between_leaves_it_unfinished(tmp_path, monkeypatch):
    """The last file is there with all others of its own writing, or not at all."""
    write_all(tmp_path, "one")
    replace, moved = type(tmp_path).replace, []

    def killed(self, target):
        if len(moved) == 1:
            raise KeyboardInterrupt
        moved.append(target)
        return replace(self, target)

    monkeypatch.setattr(type(tmp_path), "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_all(tmp_path, "two")
    assert "result" not in names(tmp_path) and len(moved) == 1


def test_through_a_link_nothing_elsewhere_is_written(tmp_path):
    elsewhere, run = tmp_path / "elsewhere", tmp_path / "run"
    elsewhere.mkdir(), run.mkdir()
    (elsewhere / "file").write_text("theirs")
    (run / "sub").symlink_to(elsewhere)
    (run / "a").symlink_to(elsewhere / "file")
    write_all(run, "mine")
    assert names(elsewhere) == ["file"] and (elsewhere / "file").read_text() == "theirs"
    assert (run / "a").read_text() == (run / "sub" / "b").read_text() == "mine"


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_takes_anothers_place(exchange, tmp_path, monkeypatch):
    if not exchange:
        monkeypatch.setattr("ctypes.CDLL", lambda *arguments, **options: object())
    new, target = tmp_path / "new", tmp_path / "target"
    for text in ("one", "two"):
        new.mkdir()
        (new / text).write_text(text)
        put_in_place(new, target)
        assert names(target) == [text]
        assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_what_a_killed_writer_leaves_is_removed_and_nothing_else(tmp_path):
    for name in (".writing-x/sub/a", "sub/.a.csv.17.tmp", "a.tmp", ".a.tmp", ".hidden", "sub/.writing-y/b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".b.csv.18.tmp").symlink_to("a.tmp")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".a.tmp", ".hidden", "a.tmp", "sub/.writing-y/b"]


def test_a_temporary_file_is_never_somebody_elses(tmp_path):
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / f".a.{os.getpid()}.tmp").symlink_to("theirs")
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("mine")
    assert (tmp_path / "theirs").read_text() == "theirs" and (tmp_path / "a").read_text() == "mine"


def test_a_folder_where_a_file_goes_is_told_before_anything_is_changed(tmp_path):
    write_all(tmp_path, "one")
    (tmp_path / "sub" / "b").unlink()
    (tmp_path / "sub" / "b").mkdir()
    with pytest.raises(UserError, match=r"sub/b is a folder.*move it away"):
        write_all(tmp_path, "two")
    assert (tmp_path / "a").read_text() == (tmp_path / "result").read_text() == "one"
    # A file where a folder goes is replaced, as a link is.
    (tmp_path / "sub" / "b").rmdir()
    (tmp_path / "sub").rmdir()
    (tmp_path / "sub").touch()
    write_all(tmp_path, "three")
    assert (tmp_path / "sub" / "b").read_text() == "three"


@pytest.mark.parametrize("place", ["hparams.yaml", "deep/er/figures", ".hydra"])
def test_links_out_of_a_run_are_told(place, tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    (run / place).parent.mkdir(parents=True), elsewhere.mkdir()
    (run / "own").touch()
    (run / "a link to its own").symlink_to("own")
    check_links(run, run)
    (run / place).symlink_to(elsewhere)
    for folder in (run, run / place):
        with pytest.raises(UserError, match=rf"{place} is a link to .*elsewhere"):
            check_links(folder, run)
    check_links(run, tmp_path)
    check_links(run / "nowhere", run)
