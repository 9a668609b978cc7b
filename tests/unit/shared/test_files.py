"""Files: whole or not at all, never through a link, secrets for nobody else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stepca_pki.errors import FileRefused
from stepca_pki.files import SECRET, ensure_folder, read_bounded, read_secret, write_atomic, write_new


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path):
    path = tmp_path / "x"
    path.write_text("old")

    write_atomic(path, "new", SECRET)

    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [path] == list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileRefused, match="No space left"):
        write_atomic(path, "new")

    assert path.read_text() == "old"
    assert [path] == list(tmp_path.iterdir())


def test_a_link_in_the_way_is_not_followed(tmp_path: Path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("precious")
    link.symlink_to(target)

    for write in (write_atomic, write_new):
        with pytest.raises(FileRefused, match="symbolic link"):
            write(link, "evil")
    assert target.read_text() == "precious"


def test_a_new_file_never_replaces(tmp_path: Path):
    write_new(tmp_path / "x", "first")

    with pytest.raises(FileRefused, match="not overwritten"):
        write_new(tmp_path / "x", "second")
    assert (tmp_path / "x").read_text() == "first"


def test_a_folder_that_is_too_open_is_closed(tmp_path: Path):
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o755)

    ensure_folder(folder, 0o700)

    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_file_or_link_where_a_folder_belongs_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)

    for name in ("file", "link", "file/below"):
        with pytest.raises(FileRefused):
            ensure_folder(tmp_path / name)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int):
    path = tmp_path / "pin"
    path.write_text("1234\n")
    path.chmod(mode)

    with pytest.raises(FileRefused) as caught:
        read_secret(path)
    assert "1234" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"\xff\xfe", b"x" * 5000])
def test_what_is_no_secret_is_refused_without_quoting_it(tmp_path: Path, content: bytes):
    path = tmp_path / "pin"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(FileRefused) as caught:
        read_secret(path)
    assert "two" not in str(caught.value)


def test_a_secret_is_its_line_without_the_newline(tmp_path: Path):
    write_atomic(tmp_path / "pin", " 12 34\n", SECRET)

    assert read_secret(tmp_path / "pin") == " 12 34"


def test_a_linked_secret_is_refused(tmp_path: Path):
    write_atomic(tmp_path / "pin", "1234\n", SECRET)
    (tmp_path / "link").symlink_to(tmp_path / "pin")

    with pytest.raises(FileRefused):
        read_secret(tmp_path / "link")


def test_reading_is_bounded_and_of_regular_files_only(tmp_path: Path):
    (tmp_path / "big").write_bytes(b"x" * 11)

    for path in (tmp_path / "big", tmp_path, tmp_path / "missing", Path("/dev/zero")):
        with pytest.raises(FileRefused):
            read_bounded(path, 10)
