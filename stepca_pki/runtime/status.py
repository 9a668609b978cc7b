"""What `pki status` tells, from files and /proc alone: it has to be fast and to work when all else is down."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stepca_pki.errors import FileRefused
from stepca_pki.files import read_bounded
from stepca_pki.home import Home
from stepca_pki.runtime.state import read_state

MAX_BYTES = 16 * 1024 * 1024


def status_of(home: Home, now: float) -> dict[str, Any]:
    """Return what is known of *home* at *now* (seconds since the epoch), ready for JSON."""
    state = read_state(home)
    alive = state is not None and state.alive
    serving = bool(alive and state and state.step_ca is not None and state.step_ca.alive)
    return {
        "home": str(home.path),
        "running": serving and state is not None and state.phase == "ready",
        "phase": _phase(state.phase if state else "", alive, serving),
        "supervisor": state.supervisor.pid if state and alive else None,
        "step_ca": state.step_ca.pid if serving and state and state.step_ca else None,
        "since": _since(state.since, now) if state and alive else None,
        "restarts": state.restarts if state and alive else 0,
        "message": state.message if state and alive else "",
        "address": _address(home),
        "root": _until(home.root_certificate, now),
        "intermediate": _until(home.intermediate_certificate, now),
    }


def _phase(phase: str, alive: bool, serving: bool) -> str:
    if not alive:
        return "step-ca runs without its supervisor" if serving else "stopped"
    return phase if serving or phase != "ready" else "step-ca died; being started again"


def _since(moment: float, now: float) -> str:
    hours, seconds = divmod(max(0, int(now - moment)), 3600)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment))
    return f"{stamp} UTC ({hours} h {seconds // 60} min)"


def _address(home: Home) -> str | None:
    with suppress(FileRefused, ValueError, KeyError, TypeError):
        return str(json.loads(read_bounded(home.ca_json, MAX_BYTES))["address"])
    return None


def _until(path: Path, now: float) -> str:
    """Say until when a certificate is valid. Only its dates are read here; 'pki health' verifies."""
    if not path.exists():
        return "none"
    from cryptography import x509

    try:
        end = x509.load_pem_x509_certificate(read_bounded(path, 65536)).not_valid_after_utc
    except (ValueError, FileRefused):
        return "unreadable"
    days = (end - datetime.fromtimestamp(now, UTC)).days
    return f"until {end:%Y-%m-%d} ({days} days)" if days >= 0 else f"EXPIRED on {end:%Y-%m-%d}"
