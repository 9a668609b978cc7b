"""Reading a PIN at its use. The PIN goes to the token and nowhere else."""

from __future__ import annotations

import os
import sys
from getpass import getpass
from pathlib import Path

from stepca_pki.errors import PinRefused
from stepca_pki.files import read_secret


def read_pin(source: str) -> str:
    """Return the PIN that *source* names: an absolute path, ``env:NAME``, ``credential:NAME`` or ``prompt``.

    Raises FileRefused or PinRefused; neither quotes the PIN.
    """
    if source == "prompt":
        return _ask()
    kind, colon, name = source.partition(":")
    if colon and kind == "env":
        return _from_environment(name)
    if colon and kind == "credential":
        return _from_credential(name)
    return read_secret(Path(name if colon and kind == "file" else source))


def _ask() -> str:
    if not sys.stdin.isatty():
        raise PinRefused(
            "the PIN is to be typed, and nobody is at a terminal",
            fix="declare pin_source as a file, or run at a terminal",
        )
    return getpass("PIN: ")


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise PinRefused(f"the environment variable {name} holds no PIN", fix=f"set {name}")
    return value


def _from_credential(name: str) -> str:
    """Source: systemd.exec(5), LoadCredential=."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder or "/" in name:
        raise PinRefused(f"there is no systemd credential '{name}'", fix=f"add LoadCredential={name}:… to the unit")
    return read_secret(Path(folder) / name)
