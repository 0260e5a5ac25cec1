"""What is no regular file, too large or damaged is refused at once."""

import os
import zipfile
from pathlib import Path

import pytest

from branchynet.regular import check_archive, open_regular, read_regular


def test_a_regular_file_is_read_and_a_link_to_one(tmp_path):
    (tmp_path / "file").write_bytes(b"words")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file") == read_regular(tmp_path / "link", most=5) == b"words"
    with open_regular(tmp_path / "file", 5) as file:
        assert file.read(1) == b"w"


def test_what_is_none_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "file").write_bytes(b"words")
    for path, words in (
        (tmp_path / "fifo", "no regular file"),
        (tmp_path / "device", "no regular file"),
        (Path("/dev/null"), "no regular file"),
        (tmp_path, "a folder"),
        (tmp_path / "file", "more than 4 bytes"),
    ):
        with pytest.raises(ValueError, match=words):
            read_regular(path, most=4)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "nowhere")


def test_archives(tmp_path):
    path = tmp_path / "archive"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(100_000))
    assert path.stat().st_size < 1000
    check_archive(path, 100_000)
    with pytest.raises(ValueError, match="unfolds to more than 99,999 bytes"):
        check_archive(path, 99_999)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(zipfile.BadZipFile):
        check_archive(path, 100_000)
    stored = tmp_path / "stored"
    with zipfile.ZipFile(stored, "w") as archive:
        archive.writestr("words", b"some words")
    stored.write_bytes(stored.read_bytes().replace(b"some words", b"sama words"))
    with pytest.raises(ValueError, match="the checksum of words is another one"):
        check_archive(stored, 100)
