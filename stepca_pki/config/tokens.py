"""Which token holds which key: the declared one, else the embedded SoftHSM2 inside the home. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from stepca_pki.config.model import PROMPT, Authority, Key, TokenRef
from stepca_pki.home import Home

Role = Literal["root", "intermediate"]


def key_of(authority: Authority, role: Role) -> Key:
    return authority.root.key if role == "root" else authority.intermediate.key


def is_embedded(authority: Authority, role: Role) -> bool:
    return (authority.root.token if role == "root" else authority.intermediate.token) is None


def token_of(home: Home, authority: Authority, role: Role) -> TokenRef:
    """Return the token of *role* with every path absolute, so that no working folder matters."""
    declared = authority.root.token if role == "root" else authority.intermediate.token
    if declared is None:
        return embedded_token(home, role)
    so_pin = declared.so_pin_source
    return declared.model_copy(
        update={
            "pin_source": absolute_source(home, declared.pin_source),
            "so_pin_source": None if so_pin is None else absolute_source(home, so_pin),
        }
    )


def embedded_token(home: Home, role: Role) -> TokenRef:
    """Return the embedded default: SoftHSM2 with tokens, configuration and PINs inside the home."""
    return TokenRef(
        module="softhsm2",
        label=f"pki-{role}",
        pin_source=str(home.secrets / f"{role}.pin"),
        so_pin_source=str(home.secrets / f"{role}.so-pin"),
        environment={"SOFTHSM2_CONF": str(home.softhsm2_conf(role))},
    )


def absolute_source(home: Home, source: str) -> str:
    """Return a PIN source with a relative path taken from the home; env:, credential: and prompt stay."""
    if source == PROMPT or source.startswith(("env:", "credential:")):
        return source
    return str(home.path / Path(source.removeprefix("file:")))
