"""Processes named so that a recycled id is never taken for the old one: by id and start time.

Source: proc(5), /proc/<pid>/stat field 22; where there is no /proc, ps.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path


@dataclass(frozen=True)
class ProcessId:
    """*start* is the start time in the kernel's own units; only equality counts."""

    pid: int
    start: str

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.start

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it is still that process."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait_gone(self, timeout: timedelta) -> bool:
        """Wait until it is gone; return whether it is. Works for processes that are not our children."""
        deadline = time.monotonic() + timeout.total_seconds()
        while self.alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


def start_time(pid: int) -> str:
    """Return the start time of a process, an empty text if there is none (or only a zombie)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "" if Path("/proc/self").exists() else _by_ps(pid)
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def _by_ps(pid: int) -> str:
    from stepca_pki import commands

    return commands.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], timeout=timedelta(seconds=5), check=False
    ).stdout.strip()


def this_process() -> ProcessId:
    return identify(os.getpid())


def identify(pid: int) -> ProcessId:
    return ProcessId(pid, start_time(pid))


def holder_of_port(port: int) -> str:
    """Say which process listens on a TCP port, as far as /proc lets us see."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):
            if any(os.readlink(link) in inodes for link in folder.iterdir()):
                name = (folder.parent / "comm").read_text().strip()
                return f"process {folder.parent.name} ({name})"
    return "another process"
