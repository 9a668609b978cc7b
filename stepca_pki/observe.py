"""What exists now: tokens, files, certificates. Reads only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stepca_pki.config.model import Authority, TokenRef
from stepca_pki.config.tokens import Role, is_embedded, token_of
from stepca_pki.errors import FileRefused, TokenAmbiguous
from stepca_pki.files import read_bounded
from stepca_pki.home import Home
from stepca_pki.hsm.modules import find_module
from stepca_pki.hsm.pins import read_pin
from stepca_pki.hsm.token import list_tokens, open_token
from stepca_pki.plan.decide import needs_root_token
from stepca_pki.plan.seen import Seen, SeenKey, SeenToken
from stepca_pki.provisioners.base import Material
from stepca_pki.render.ca_json import Facts, ca_json_text, render_ca_json

MAX_KEY_BYTES = 16 * 1024
MAX_GENERATED_BYTES = 16 * 1024 * 1024  # ca.json with thousands of provisioners


class Pins:
    """PINs read once a run: a prompt asks a person once, and a wrong one is never offered twice."""

    def __init__(self) -> None:
        self._read: dict[str, str] = {}

    def __call__(self, source: str) -> str:
        if source not in self._read:
            self._read[source] = read_pin(source)
        return self._read[source]

    def __repr__(self) -> str:
        return f"Pins({sorted(self._read)})"


def observe(authority: Authority, home: Home, *, now: datetime | None = None, pins: Pins | None = None) -> Seen:
    """Return the actual state. The root's token is asked only if the plan may have to sign with it.

    Raises HsmError if a token refuses, ModuleUnusable if a module is missing.
    """
    pins = pins or Pins()
    roles: tuple[Role, ...] = ("root", "intermediate") if authority.root.is_here else ("intermediate",)
    modules = {role: find_module(token_of(home, authority, role).module) for role in roles}
    seen = Seen(now=now or datetime.now(UTC), modules=modules)
    seen = _with_certificates(_with_files(seen, home, authority), home)
    asked = [role for role in roles if role != "root" or needs_root_token(authority, seen)]
    return replace(seen, tokens={role: _token(home, authority, role, pins) for role in asked})


def render_now(authority: Authority, home: Home) -> str | None:
    """Return ca.json as it would be written now, None while the canary key is not made. No token is asked."""
    canary = _public_key(home.canary_key)
    material = material_of(authority, home)
    if canary is None or any(item.makes_key and item.name not in material.keys for item in authority.provisioners):
        return None
    module = find_module(token_of(home, authority, "intermediate").module)
    return ca_json_text(render_ca_json(authority, home, Facts(module, canary, material)))


def material_of(authority: Authority, home: Home, *, lenient: bool = False) -> Material:
    """Read what the provisioners need from files. Raises FileRefused, unless *lenient*, for one that is not there."""
    keys = {
        item.name: _public_key(home.provisioner_key(item.name)) for item in authority.provisioners if item.makes_key
    }
    texts: dict[str, str] = {}
    for path in {path for item in authority.provisioners for path in item.files()}:
        where = home.path / path
        if lenient and not where.exists():
            continue
        texts[path] = _pem_text(where)
    return Material({name: key for name, key in keys.items() if key is not None}, texts)


def _pem_text(path: Path) -> str:
    text = read_bounded(path, MAX_GENERATED_BYTES).decode(errors="replace")
    if "-----BEGIN " not in text:
        raise FileRefused(path, "holds no PEM block", fix="convert it to PEM, or name another file in pki.yaml")
    if "PRIVATE KEY-----" in text:
        raise FileRefused(path, "holds a private key, and would be shown to everybody", fix="name the public part only")
    return text


# --- files -----------------------------------------------------------------------------------------


def _with_files(seen: Seen, home: Home, authority: Authority) -> Seen:
    folders = [home.register, home.requests, home.secrets, home.state, home.database, home.tokens]
    folders += [home.token_store("root"), home.token_store("intermediate")]
    folders += [home.root_certificate.parent, home.root_crl.parent, home.ca_json.parent, home.rendered_templates]
    generated = (home.softhsm2_conf("root"), home.softhsm2_conf("intermediate"), home.ca_json)
    return replace(
        seen,
        folders={path: path.stat().st_mode & 0o777 for path in folders if path.is_dir() and not path.is_symlink()},
        files={path: text for path in generated if (text := _text(path)) is not None},
        secrets=frozenset(home.secrets.iterdir()) if home.secrets.is_dir() else frozenset(),
        canary_key=_public_key(home.canary_key),
        material=material_of(authority, home, lenient=True),
    )


def _text(path: Path) -> str | None:
    if not path.exists():
        return None
    return read_bounded(path, MAX_GENERATED_BYTES).decode(errors="replace")


def _public_key(path: Path) -> Mapping[str, Any] | None:
    """Return the public JWK of a private key file of ours, None if there is none."""
    if not path.exists():
        return None
    try:
        jwk = json.loads(read_bounded(path, MAX_KEY_BYTES))
        return {name: jwk[name] for name in ("use", "kty", "kid", "crv", "alg", "x", "y")}
    except (ValueError, KeyError, TypeError):
        raise FileRefused(
            path, "is not the JWK that was written there", fix="restore it, or remove it: 'pki apply' makes a new one"
        ) from None


# --- certificates ----------------------------------------------------------------------------------


def _with_certificates(seen: Seen, home: Home) -> Seen:
    paths = (home.root_certificate, home.intermediate_certificate, home.intermediate_csr, home.root_crl)
    if not any(path.exists() for path in paths):
        return seen  # a fresh home: cryptography can be loaded later, while tokens are made
    from stepca_pki.certificates import with_certificates

    return with_certificates(seen, home)


# --- tokens ----------------------------------------------------------------------------------------


def _token(home: Home, authority: Authority, role: Role, pins: Pins) -> SeenToken:
    ref = token_of(home, authority, role)
    if is_embedded(authority, role) and not home.softhsm2_conf(role).is_file():
        return SeenToken(exists=False, ready=False)
    found = find_token(ref)
    if found is None or not found.pin_initialised:
        return SeenToken(exists=found is not None, ready=False)
    with open_token(ref, pins(ref.pin_source)) as token:
        keys = token.keys()
        return SeenToken(exists=True, ready=True, keys=tuple(_seen_key(key) for key in keys))


def find_token(ref: TokenRef) -> Any:
    """Return the TokenInfo of the one token that answers to *ref*, None if there is none. TokenAmbiguous if two."""
    tokens = list_tokens(find_module(ref.module), ref.environment)
    matching = [
        token
        for token in tokens
        if token.initialised and ref.label in (None, token.label) and ref.serial in (None, token.serial)
    ]
    if len(matching) > 1:
        serials = ", ".join(token.serial for token in matching)
        raise TokenAmbiguous(
            f"{len(matching)} tokens are labelled '{ref.label}': serials {serials}",
            fix="declare the serial instead of the label",
        )
    return matching[0] if matching else None


def _seen_key(key: Any) -> SeenKey:
    return SeenKey(key.label, key.id, key.type, key.has_private, key.has_public, key.spki, key.torn)
