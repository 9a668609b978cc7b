"""Files that survive being cut off: written whole under a temporary name, synced, renamed.

Sources: rename(2), open(2) O_NOFOLLOW and O_EXCL, fsync(2) on the folder.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stepca_pki.errors import FileRefused

PUBLIC = 0o644
SECRET = 0o600
FOLDER = 0o755
SECRET_FOLDER = 0o700

MAX_SECRET_BYTES = 4096
TEMPORARY_SUFFIX = ".pki-tmp"


def write_atomic(path: Path, data: bytes | str, mode: int = PUBLIC) -> None:
    """Put *data* at *path*, replacing what is there; after a crash the old or the new stands whole.

    A symbolic link at *path* or as its folder is refused, never followed. As root the file gets the
    owner of its folder. Raises FileRefused.
    """
    _refuse_link(path)
    with _new_temporary(path, data, mode) as temporary:
        temporary.replace(path)


def write_new(path: Path, data: bytes | str, mode: int = PUBLIC) -> None:
    """Like write_atomic, but refuse if anything stands at *path* already."""
    _refuse_link(path)
    with _new_temporary(path, data, mode) as temporary:
        try:
            os.link(temporary, path, follow_symlinks=False)  # unlike rename, link never replaces
        except FileExistsError:
            raise FileRefused(
                path, "exists already and is not overwritten", fix="move it away, or name another file"
            ) from None


def ensure_folder(path: Path, mode: int = FOLDER) -> None:
    """Make *path* and its parents if missing; an existing folder keeps its mode unless it is too open."""
    if path.is_symlink():
        raise FileRefused(path, "is a symbolic link where a folder has to be", fix="remove the link")
    try:
        _make_folder(path, mode)
    except (FileExistsError, NotADirectoryError):
        raise FileRefused(path, "is in the way of a folder", fix="move that file away") from None
    except OSError as error:
        raise _refusal(path, error) from None


def _make_folder(path: Path, mode: int) -> None:
    if path.is_dir():
        if stat.S_IMODE(path.stat().st_mode) & ~mode & 0o077:
            path.chmod(mode)
        return
    if not path.parent.is_dir():
        _make_folder(path.parent, FOLDER)
    path.mkdir()
    path.chmod(mode)
    _take_owner(path, path.parent)
    sync_folder(path.parent)


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """Return the whole of a regular file of at most *limit_bytes*. Raises FileRefused."""
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FileRefused(path, "is not a regular file")
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise _refusal(path, error) from None
    if len(data) > limit_bytes:
        raise FileRefused(path, f"is larger than {limit_bytes} bytes", fix="check that it is the right file")
    return data


def read_secret(path: Path) -> str:
    """Return the one line in a secret file, without its trailing newline.

    Refused: a symbolic link, another owner than us or root (unless we are root), any access for group or
    others, an empty file, more than one line. The message never quotes the content. Raises FileRefused.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileRefused(path, "is a symbolic link; a secret must be a file", fix="name the file itself") from None
        raise _refusal(path, error) from None
    with os.fdopen(descriptor, "rb") as file:
        _check_secret(path, os.fstat(descriptor))
        data = file.read(MAX_SECRET_BYTES + 1)
    return _one_line(path, data)


def _check_secret(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FileRefused(path, "is not a regular file")
    if os.geteuid() != 0 and status.st_uid not in (os.geteuid(), 0):  # root works for the owner of the home
        raise FileRefused(path, f"belongs to user id {status.st_uid}", fix=f"chown {os.geteuid()} {path}")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise FileRefused(
            path,
            f"holds a secret and is open to others (mode {mode:04o})",
            fix=f"chmod 600 {path}, then change the secret",
        )


def _one_line(path: Path, data: bytes) -> str:
    if len(data) > MAX_SECRET_BYTES:
        raise FileRefused(path, f"is larger than {MAX_SECRET_BYTES} bytes")
    try:
        text = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise FileRefused(path, "is not UTF-8 text") from None
    if not text or any(ord(character) < 32 for character in text):
        raise FileRefused(path, "must hold exactly one line of text", fix="write the secret as one line")
    return text


def _refuse_link(path: Path) -> None:
    for place in (path, path.parent):
        if place.is_symlink():
            raise FileRefused(place, "is a symbolic link and is not followed", fix="remove the link")


@contextmanager
def _new_temporary(path: Path, data: bytes | str, mode: int) -> Iterator[Path]:
    """Yield a synced temporary file beside *path*; afterwards the folder is synced and nothing is left over."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        with suppress(FileNotFoundError):
            temporary.unlink()  # left by a killed process that had our number
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask says
            _take_owner(temporary, path.parent)
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
        sync_folder(path.parent)
    except OSError as error:
        raise _refusal(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _take_owner(path: Path, folder: Path) -> None:
    if os.geteuid() == 0:
        status = folder.stat()
        os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)


def sync_folder(folder: Path) -> None:
    """Make the names in *folder* survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_FIXES = {
    errno.ENOSPC: "free space on that file system, then run the command again",
    errno.EDQUOT: "raise the quota or free space, then run the command again",
    errno.EROFS: "mount the file system writable",
    errno.EACCES: "run as the owner of the home, or correct its mode",
    errno.EPERM: "run as the owner of the home, or correct its mode",
    errno.ENOENT: "run 'pki apply' to make what is missing, or correct the path",
    errno.EIO: "check the disk before anything else",
}


def _refusal(path: Path, error: OSError) -> FileRefused:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return FileRefused(path, reason, fix=_FIXES.get(error.errno or 0))
