"""How a running step-ca may be made to take a new ca.json. Pure.

Source: smallstep/certificates ca/ca.go and ca/signal.go at v0.30.2. SIGHUP keeps requests, but it opens the
token a second time (if that fails, the module is finalised under the running CA), ignores or panics on changed
plain and metrics listeners, and refuses another database. So: SIGHUP for what is decided per request, a restart
for everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

ReloadKind = Literal["none", "reload", "restart"]

_SAFE_TO_RELOAD = {"authority", "logger", "dnsNames", "commonName"}


def reload_kind(running: Mapping[str, Any], planned: Mapping[str, Any]) -> ReloadKind:
    """Return what it takes to go from one ca.json to another."""
    changed = {key for key in {*running, *planned} if running.get(key) != planned.get(key)}
    if not changed:
        return "none"
    return "reload" if changed <= _SAFE_TO_RELOAD else "restart"
