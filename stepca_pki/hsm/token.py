"""Tokens and their keys, as the rest of the program sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from stepca_pki.config.model import Key, TokenRef
from stepca_pki.errors import HsmError, KeyExists, KeyNotFound, PinRefused, TokenAmbiguous, TokenNotFound
from stepca_pki.hsm.client import CALL_TIMEOUT, Client
from stepca_pki.hsm.modules import find_module
from stepca_pki.hsm.pins import read_pin
from stepca_pki.values import KeyType

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa


@dataclass(frozen=True)
class TokenInfo:
    """What C_GetTokenInfo says, and the slot it is in now: slot numbers move."""

    slot: int
    label: str
    serial: str
    manufacturer: str
    model: str
    initialised: bool
    pin_initialised: bool
    pin_count_low: bool
    pin_final_try: bool
    pin_locked: bool


@dataclass(frozen=True)
class KeyInfo:
    """A key pair on a token. *id* is CKA_ID in hex; *spki* the DER SubjectPublicKeyInfo, None without public object."""

    label: str
    id: str
    type: KeyType | None
    has_private: bool
    has_public: bool
    private_count: int
    torn: bool
    """Its private half was cut off in its making, and is no key."""
    sensitive: bool | None
    extractable: bool | None
    local: bool | None
    spki: bytes | None


def list_tokens(
    module: Path, environment: Mapping[str, str], *, timeout: timedelta = CALL_TIMEOUT
) -> tuple[TokenInfo, ...]:
    """Return every token that the module has, initialised or not."""
    with Client(module, environment, timeout) as client:
        return _tokens(client)


def _tokens(client: Client) -> tuple[TokenInfo, ...]:
    return tuple(TokenInfo(**entry) for entry in client.call("tokens"))


def select_token(tokens: tuple[TokenInfo, ...], ref: TokenRef) -> TokenInfo | None:
    """Return the one initialised token that answers to *ref*, None if none does. Raises TokenAmbiguous."""
    matching = [
        token
        for token in tokens
        if token.initialised and ref.label in (None, token.label) and ref.serial in (None, token.serial)
    ]
    if len(matching) > 1:
        serials = ", ".join(token.serial for token in matching)
        raise TokenAmbiguous(
            f"{len(matching)} tokens answer to '{ref.label or ref.serial}': serials {serials}",
            fix="declare the serial instead of the label",
        )
    return matching[0] if matching else None


def open_token(ref: TokenRef, pin: str | None = None, *, timeout: timedelta = CALL_TIMEOUT) -> Token:
    """Log in to the token that *ref* names, with *pin* or the one that ref.pin_source names: one try, never two.

    Raises TokenNotFound, TokenAmbiguous, PinRefused, ModuleUnusable. Use the result as a context manager.
    """
    client = Client(find_module(ref.module), ref.environment, timeout)
    try:
        info = _present(client, ref)
        _refuse_risky_pin(info)
        client.call("open", slot=info.slot, pin=read_pin(ref.pin_source) if pin is None else pin)
    except BaseException:
        client.close()
        raise
    return Token(client, ref, info)


def login_if_there(ref: TokenRef, pins: Any) -> tuple[TokenInfo | None, Token | None]:
    """Return what the token says of itself, and a login if its PIN is set; *pins* maps a source to its PIN.

    One worker serves both questions. The caller closes the token.
    """
    client = Client(find_module(ref.module), ref.environment)
    try:
        info = select_token(_tokens(client), ref)
        if info is None or not info.pin_initialised:
            client.close()
            return info, None
        _refuse_risky_pin(info)
        client.call("open", slot=info.slot, pin=pins(ref.pin_source))
    except BaseException:
        client.close()
        raise
    return info, Token(client, ref, info)


def _present(client: Client, ref: TokenRef) -> TokenInfo:
    tokens = _tokens(client)
    info = select_token(tokens, ref)
    if info is None:
        there = ", ".join(f"'{token.label}' ({token.serial})" for token in tokens if token.initialised) or "none"
        raise TokenNotFound(
            f"{client.module.name}: no token answers to '{ref.label or ref.serial}'; initialised tokens: {there}",
            fix="attach it, correct the label or serial, or make it with 'pki hsm init'",
        )
    return info


def _refuse_risky_pin(info: TokenInfo) -> None:
    """A token that counts wrong PINs may lock for good: what is uncertain is left to a person."""
    name = f"token '{info.label}' ({info.serial})"
    if info.pin_locked:
        raise PinRefused(f"{name}: its PIN is locked", fix="unblock it with the SO-PIN, by the vendor's tool")
    if info.pin_final_try:
        raise PinRefused(
            f"{name}: one wrong PIN more locks it, so it is not tried here",
            fix="log in once with the right PIN by the vendor's tool, which resets the counter",
        )


def init_token(ref: TokenRef, pin: str, so_pin: str) -> None:
    """Initialise a free slot as the token *ref*, or finish one whose user PIN was not set yet.

    A token that has its PIN is never touched. Raises HsmError when there is no free slot.
    """
    module = find_module(ref.module)
    if ref.label is None:
        raise HsmError("a token is initialised under a label", fix="give a label instead of a serial")
    with Client(module, ref.environment) as client:
        tokens = _tokens(client)
        present = select_token(tokens, ref)
        if present is not None and present.pin_initialised:
            return
        if present is None:
            free = next((token for token in tokens if not token.initialised), None)
            if free is None:
                raise HsmError(f"{module.name}: no slot has an uninitialised token", fix="attach a blank token")
            client.call("init_token", slot=free.slot, so_pin=so_pin, label=ref.label)
            client.call("reinitialize")
        client.call("init_pin", slot=_present(client, ref).slot, so_pin=so_pin, pin=pin)
        client.call("open", slot=_present(client, ref).slot, pin=pin)  # the proof that it is whole


class Token:
    """A logged-in token. Private keys stay on it; what leaves it are public keys and signatures."""

    def __init__(self, client: Client, ref: TokenRef, info: TokenInfo) -> None:
        self.client, self.ref, self.info = client, ref, info

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.client.close()

    def keys(self) -> tuple[KeyInfo, ...]:
        return tuple(_key_info(entry) for entry in self.client.call("keys"))

    def find(self, label: str, key_id: str) -> KeyInfo:
        """Return the one key with this label and id. Raises KeyNotFound or TokenAmbiguous.

        step-ca takes the first that matches without a word, so a second one is refused here.
        """
        keys = self.keys()
        exact = [key for key in keys if (key.label, key.id) == (label, key_id) and key.has_private]
        if not exact:
            raise KeyNotFound(f"token '{self.info.label}' has no private key '{label}' with id {key_id}")
        rivals = [key for key in keys if key.has_private and key.id == key_id]
        if len(rivals) > 1 or exact[0].private_count > 1:
            raise TokenAmbiguous(
                f"token '{self.info.label}' has more than one private key with id {key_id}",
                fix="remove or rename the one that is not ours",
            )
        return exact[0]

    def generate(self, key: Key) -> KeyInfo:
        """Generate *key* on the token, read back what was made, and prove it by a signature.

        Raises KeyExists if its label or id is taken: keys are never overwritten.
        """
        for other in self.keys():
            if key.label == other.label or key.id == other.id:
                raise KeyExists(
                    f"token '{self.info.label}' has a key '{other.label}' with id {other.id} already",
                    fix="choose another label and id, or use that key",
                )
        self.client.call(
            "generate", type=key.type.value, bits=key.type.bits, label=key.label, id=key.id, extractable=key.backup
        )
        made = self.find(key.label, key.id)
        _check_made(key, made)
        self._prove(key)
        return made

    def key(self, label: str, key_id: str) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
        """Return the key as one of cryptography's own private keys, which signs on the token."""
        from stepca_pki.hsm.signer import signer_for

        return signer_for(self.client, self.find(label, key_id))

    def remove_half_key(self, label: str, key_id: str) -> None:
        """Remove what a cut-off generation left. Raises KeyExists if a whole private key goes with it."""
        self.client.call("remove_half", label=label, id=key_id)

    def _prove(self, key: Key) -> None:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding

        signer = self.key(key.label, key.id)
        if isinstance(signer, ec.EllipticCurvePrivateKey):
            signer.sign(b"proof", ec.ECDSA(hashes.SHA256()))  # the signer verifies what it returns
        else:
            signer.sign(b"proof", padding.PKCS1v15(), hashes.SHA256())


def _key_info(entry: dict[str, Any]) -> KeyInfo:
    known = set(KeyType)
    return KeyInfo(
        **{
            **entry,
            "type": KeyType(entry["type"]) if entry["type"] in known else None,
            "spki": None if entry["spki"] is None else bytes.fromhex(entry["spki"]),
        }
    )


def _check_made(key: Key, made: KeyInfo) -> None:
    """Modules have made extractable keys without being asked: believe only what is read back."""
    faults = []
    if made.type != key.type:
        faults.append(f"it is {made.type or 'of another type'} instead of {key.type}")
    if made.sensitive is not True:
        faults.append("it is not sensitive")
    if made.extractable is not key.backup:
        faults.append(f"it is {'not ' if key.backup else ''}extractable")
    if made.local is False:
        faults.append("it was not generated on the token")
    if faults:
        raise HsmError(
            f"the module made the key '{key.label}' differently from what was asked: {', '.join(faults)}",
            fix="the key is left on the token; do not use it, and use another module",
        )
