"""step-ca's log without its secrets: it writes whole one-time tokens into request lines. Pure but for the writer."""

from __future__ import annotations

import json
import logging
import os
import re
from logging.handlers import RotatingFileHandler
from pathlib import Path

MAX_LOG_BYTES = 20 * 1024 * 1024
KEPT_LOGS = 3

_JWS = re.compile(r"[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")
_REMOVED = "[one-time token removed]"
_SECRET_FIELDS = {"ott", "token", "authorization"}


def without_secrets(line: str) -> str:
    """Return a log line with every field and text that may hold a token replaced. It stays one line."""
    text = line.rstrip("\r\n")
    if text.startswith("{"):
        try:
            value = json.loads(text)
        except ValueError:
            return _JWS.sub(_REMOVED, text)
        if isinstance(value, dict):
            kept = {name: _REMOVED if name.lower() in _SECRET_FIELDS else item for name, item in value.items()}
            text = json.dumps(kept, ensure_ascii=False)
    return _JWS.sub(_REMOVED, text)


class LogFile:
    """The home's log: mode 0600, bounded in size."""

    def __init__(self, path: Path) -> None:
        os.umask(0o077)
        self._handler = RotatingFileHandler(
            path, maxBytes=MAX_LOG_BYTES, backupCount=KEPT_LOGS, encoding="utf-8", errors="replace"
        )
        self._handler.setFormatter(logging.Formatter("%(message)s"))

    def write(self, line: str) -> None:
        """Append one line, its secrets removed. A full disk loses log lines, never the CA."""
        self._handler.emit(logging.makeLogRecord({"msg": without_secrets(line)}))

    def close(self) -> None:
        self._handler.close()
