import errno
import tempfile

import pytest

from branchynet.errors import UserError
from branchynet.runs.writable import check_writable


def test_a_folder_that_can_be_written_stays_as_it_was(tmp_path):
    check_writable(tmp_path, "")
    check_writable(tmp_path / "a" / "b", "")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_its_place_or_above_it_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=rf"^the folder {folder} cannot be written \(.+\): take another"):
            check_writable(folder, "take another")
    assert (tmp_path / "file").read_text() == "x"


def test_a_disk_for_reading_only_is_found_by_writing(tmp_path, monkeypatch):
    def refuse(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError, match=r"cannot be written \(Read-only file system\)"):
        check_writable(tmp_path, "")
