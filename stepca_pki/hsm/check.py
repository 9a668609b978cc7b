"""Can this token serve as root or as intermediate? Proved on a scratch key, which is removed again."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from stepca_pki.config.model import Key, TokenRef
from stepca_pki.errors import HsmError, PkiError
from stepca_pki.hsm.token import Token, open_token
from stepca_pki.values import KeyType

ROOT_TYPES = (KeyType.P384, KeyType.P256, KeyType.RSA3072)
INTERMEDIATE_TYPES = (KeyType.P256, KeyType.P384, KeyType.RSA3072)
SCRATCH = "pki-scratch"


@dataclass(frozen=True)
class Verdict:
    """One capability: *passed* is True, False, or None where it was not needed."""

    capability: str
    passed: bool | None
    detail: str


def check_token(
    ref: TokenRef, pin: str | None, role: Literal["root", "intermediate"], types: tuple[KeyType, ...] = ()
) -> tuple[Verdict, ...]:
    """Return a verdict per capability. Raises HsmError only if the token cannot be opened at all."""
    with open_token(ref, pin) as token:
        verdicts = [Verdict("login", True, f"token '{token.info.label}', serial {token.info.serial}")]
        for kind in types or (ROOT_TYPES if role == "root" else INTERMEDIATE_TYPES):
            verdicts.extend(_key_type(token, kind))
        if role == "intermediate":
            verdicts.append(_sessions(token, ref.max_sessions))
        verdicts.append(_nothing_left(token))
    return tuple(verdicts)


def serves(verdicts: tuple[Verdict, ...]) -> bool:
    """One working key type is enough; everything that is not about a key type must have passed."""
    types = [verdict.passed for verdict in verdicts if verdict.capability.startswith("key ")]
    rest = [verdict.passed for verdict in verdicts if not verdict.capability.startswith("key ")]
    return any(types) and False not in rest


def _key_type(token: Token, kind: KeyType) -> Iterator[Verdict]:
    key_id = secrets.token_hex(8)
    key = Key(type=kind, label=f"{SCRATCH}-{key_id}", id=key_id)
    try:
        yield _verdict(f"key {kind}", lambda: _generate_and_sign(token, key))
    finally:
        with suppress(HsmError):
            token.client.call("destroy", label=key.label, id=key.id, private_too=True)


def _generate_and_sign(token: Token, key: Key) -> str:
    token.generate(key)  # reads back sensitive, not extractable, local; proves one signature
    signer = token.key(key.label, key.id)
    if isinstance(signer, ec.EllipticCurvePrivateKey):
        signer.sign(b"check", ec.ECDSA(hashes.SHA384()))
    else:
        signer.sign(b"check", padding.PKCS1v15(), hashes.SHA384())
    return "generated on the token, sensitive, not extractable; its signature verifies"


def _sessions(token: Token, wanted: int) -> Verdict:
    """step-ca opens sessions until its pool is full: what the token cannot give fails then, not at the start."""

    def probe() -> str:
        got = int(token.client.call("extra_sessions", slot=token.info.slot, count=wanted - 1)) + 1
        if got < wanted:
            raise HsmError(f"{got} of {wanted} sessions", fix=f"declare max_sessions: {max(2, got)}")
        return f"{wanted} at once (max_sessions)"

    return _verdict("sessions", probe)


def _nothing_left(token: Token) -> Verdict:
    keys = token.keys()
    left = [key.label for key in keys if key.label.startswith(SCRATCH)]
    detail = f"left on the token: {', '.join(left)}" if left else "every scratch key is removed"
    return Verdict("clean", not left, detail)


def _verdict(capability: str, probe: Callable[[], str]) -> Verdict:
    try:
        return Verdict(capability, True, probe())
    except PkiError as error:
        return Verdict(capability, False, error.problem)
