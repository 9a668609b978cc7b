"""One `pki` writes at a time: a lock file, and beside it who holds it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from stepca_pki.errors import FileRefused, LockHeld


@contextmanager
def exclusive(
    path: Path, *, wait: timedelta = timedelta(0), refusal: str = "another pki is at work on this authority"
) -> Iterator[None]:
    """Hold the lock at *path*, waiting at most *wait* for it. The kernel frees it when we die.

    Raises LockHeld, which names the holder's process id.
    """
    holder = path.with_name(path.name + ".holder")
    lock = FileLock(path, timeout=wait.total_seconds(), mode=0o600)
    try:
        lock.acquire()
    except Timeout:
        raise LockHeld(f"{refusal} ({_describe(holder)})", fix="wait for that process to end, or end it") from None
    except OSError as error:
        raise FileRefused(path, error.strerror or str(error), fix="make the home writable for this user") from None
    try:
        with suppress(OSError):  # only for the message; on a full disk the lock still holds
            holder.write_text(f"{os.getpid()} {int(time.time())}\n")
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


def _describe(holder: Path) -> str:
    try:
        pid, since = holder.read_text(encoding="ascii").split()
        return f"process {int(pid)}, since {time.strftime('%H:%M:%S', time.localtime(int(since)))}"
    except (OSError, ValueError):
        return "process id unknown"
