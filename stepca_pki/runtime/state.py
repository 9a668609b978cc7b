"""What the supervisor says of itself: state/supervisor.json. Small, so that `pki status` is fast."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from stepca_pki.files import SECRET, read_bounded, write_atomic
from stepca_pki.home import Home
from stepca_pki.runtime.processes import ProcessId

MAX_STATE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Supervised:
    """*phase*: starting, ready, waiting (before the next try), failed. Times are seconds since the epoch."""

    supervisor: ProcessId
    step_ca: ProcessId | None
    phase: str
    since: float
    restarts: int = 0
    generation: int = 0
    """Grows with each reload or restart that was asked for, when it is done."""
    message: str = ""

    @property
    def alive(self) -> bool:
        return self.supervisor.alive


def read_state(home: Home) -> Supervised | None:
    """Return what the last supervisor wrote, None if there is nothing readable. It may be dead by now."""
    if not home.supervisor_pid.exists():
        return None
    try:
        value: dict[str, Any] = json.loads(read_bounded(home.supervisor_pid, MAX_STATE_BYTES))
        step_ca = value.pop("step_ca")
        supervisor = ProcessId(**value.pop("supervisor"))
        return Supervised(supervisor, ProcessId(**step_ca) if step_ca else None, **value)
    except (ValueError, KeyError, TypeError):
        return None


def write_state(home: Home, state: Supervised) -> None:
    write_atomic(home.supervisor_pid, json.dumps(asdict(state)) + "\n", SECRET)


__all__ = ["Supervised", "read_state", "replace", "write_state"]
