"""Leaves for programs and people: the key is made here, a token or the present certificate is the proof.

Files are replaced so that a cut-off never loses a key: a new key waits beside the old one (KEY.new) until its
certificate is in place, and the next run finishes what an earlier one left.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)

from stepca_pki.config.model import Authority
from stepca_pki.errors import CertificateRefused, FileRefused, StepCaError, UsageError
from stepca_pki.files import SECRET, read_bounded, read_secret, write_atomic, write_new
from stepca_pki.home import Home
from stepca_pki.provisioners.base import Provisioner
from stepca_pki.stepca.api import Api
from stepca_pki.stepca.ott import LIFETIME, mint
from stepca_pki.values import KeyType
from stepca_pki.x509.build import PrivateKey, hash_for
from stepca_pki.x509.chain import check_leaf, spki

MAX_FILE_BYTES = 256 * 1024
RENEW_AT = 2 / 3
"""Part of its life after which a leaf is renewed."""
JITTER = 0.05
"""Part of its life by which renewals are spread."""

REASONS = {
    "unspecified": 0,
    "keyCompromise": 1,
    "affiliationChanged": 3,
    "superseded": 4,
    "cessationOfOperation": 5,
    "privilegeWithdrawn": 9,
}
"""RFC 5280 section 5.3.1, those that fit a leaf."""


@dataclass(frozen=True)
class Pair:
    """Where a leaf is: its chain in one PEM file, its key in another (mode 0600)."""

    certificate: Path
    key: Path

    @property
    def next_key(self) -> Path:
        return self.key.with_name(self.key.name + ".new")


# --- tokens ----------------------------------------------------------------------------------------


def token_provisioner(authority: Authority, name: str | None) -> Provisioner:
    """Return the JWK provisioner *name*, or the only one. Raises UsageError."""
    fitting = [item for item in authority.provisioners if item.makes_key]
    chosen = [item for item in fitting if name in (None, item.name)]
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(item.name for item in fitting)
    if not fitting:
        raise UsageError("no provisioner here takes tokens of ours", fix="add one: pki provisioner add jwk")
    raise UsageError(
        f"no single JWK provisioner is meant by '{name}'" if name else "several provisioners take tokens",
        fix=f"give --provisioner: {names}",
    )


def mint_token(
    home: Home,
    authority: Authority,
    provisioner: Provisioner,
    *,
    path: str,
    subject: str,
    sans: Sequence[str],
    lifetime: timedelta = LIFETIME,
    csr_digest: bytes | None = None,
) -> str:
    """Return a one-time token for one use of *path*, signed with the provisioner's key in the home."""
    jwk: Mapping[str, Any] = json.loads(read_secret(home.provisioner_key(provisioner.name)))
    return mint(
        jwk,
        issuer=provisioner.name,
        audience=f"https://{authority.server.dns_names[0]}{path}",
        subject=subject,
        sans=sans,
        now=datetime.now(UTC),
        lifetime=lifetime,
        csr_digest=csr_digest,
    )


# --- a first leaf ----------------------------------------------------------------------------------


def make_key(kind: KeyType) -> PrivateKey:
    """Return a new software key."""
    if kind.is_rsa:
        return rsa.generate_private_key(65537, kind.bits)
    curves: dict[int, ec.EllipticCurve] = {256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}
    return ec.generate_private_key(curves[kind.bits])


def make_request(key: PrivateKey, subject: str) -> x509.CertificateSigningRequest:
    """Return a CSR with the common name alone: the names come from the token."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
    return x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hash_for(key))


def digest(csr: x509.CertificateSigningRequest) -> bytes:
    """Return the SHA-256 of the CSR's DER, to which a token can be bound."""
    hasher = hashes.Hash(hashes.SHA256())
    hasher.update(csr.public_bytes(Encoding.DER))
    return hasher.finalize()


def pem(csr: x509.CertificateSigningRequest) -> str:
    return csr.public_bytes(Encoding.PEM).decode()


def refuse_existing(pair: Pair) -> None:
    """Raise FileRefused if a certificate or key stands where a new one is to go."""
    for path in (pair.certificate, pair.key):
        if path.exists() or path.is_symlink():
            raise FileRefused(path, "exists already and is not overwritten", fix="name other files, or renew it")


def store_new(pair: Pair, key: PrivateKey, chain: Sequence[str]) -> None:
    """Write a first leaf: the key, then the chain. Neither replaces anything."""
    write_new(pair.key, key_pem(key), SECRET)
    write_new(pair.certificate, join(chain))


def key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def join(chain: Sequence[str]) -> str:
    """Return the chain as one PEM text, each certificate ending its line."""
    return "".join(f"{item.rstrip()}\n" for item in chain)


def verified(chain: Sequence[str], root: Path, public_key: object) -> x509.Certificate:
    """Return the leaf after checking that it is for our key and chains to *root*. Raises CertificateRefused."""
    try:
        found = [x509.load_pem_x509_certificate(item.encode()) for item in chain]
        anchor = x509.load_pem_x509_certificate(read_bounded(root, MAX_FILE_BYTES))
    except ValueError:
        raise StepCaError("step-ca answered with something that is not a certificate") from None
    if len(found) < 2:
        raise StepCaError("step-ca answered without its intermediate")
    if spki(found[0].public_key()) != spki(public_key):
        raise CertificateRefused("step-ca certified another key than the one that was sent")
    check_leaf(found[0], found[1], anchor, datetime.now(UTC))
    return found[0]


def write_p12(path: Path, pair: Pair, password: str) -> None:
    """Write key, leaf and intermediate as PKCS#12 for browsers and Java."""
    leaf, *rest = x509.load_pem_x509_certificates(read_bounded(pair.certificate, MAX_FILE_BYTES))
    common_names = leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    name = str(common_names[0].value).encode() if common_names else None
    data = pkcs12.serialize_key_and_certificates(
        name, load_key(pair.key), leaf, rest, BestAvailableEncryption(password.encode())
    )
    write_new(path, data, SECRET)


# --- what is there ---------------------------------------------------------------------------------


def load_key(path: Path) -> Any:
    """Return the private key in *path*, which nobody else may read. Its content is never quoted."""
    mode = path.stat().st_mode if path.exists() else 0
    if mode & 0o077:
        raise FileRefused(path, f"can be read by others (mode {mode & 0o777:04o})", fix=f"chmod 600 {path}")
    try:
        return load_pem_private_key(read_bounded(path, MAX_FILE_BYTES), password=None)
    except (ValueError, TypeError):
        raise FileRefused(path, "is not a private key without a password, in PEM") from None


def load_leaf(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read_bounded(path, MAX_FILE_BYTES))
    except ValueError:
        raise FileRefused(path, "is not a certificate in PEM") from None


def finish(pair: Pair) -> bool:
    """Complete a rekey that was cut off; return whether there was one. A key that was never certified goes away."""
    if not pair.next_key.exists():
        return False
    if spki(load_key(pair.next_key).public_key()) == spki(load_leaf(pair.certificate).public_key()):
        pair.next_key.replace(pair.key)
        return True
    pair.next_key.unlink()
    return False


# --- renewal ---------------------------------------------------------------------------------------


def due(leaf: x509.Certificate, spread: float = 0.0) -> datetime:
    """Return when *leaf* is to be renewed: at two thirds of its life, and up to JITTER of it later or earlier.

    *spread* is between -1 and 1.
    """
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    return leaf.not_valid_before_utc + life * (RENEW_AT + JITTER * spread)


def spread_of(leaf: x509.Certificate) -> float:
    """Return this leaf's own spread: the same at each look, another for each leaf."""
    return random.Random(leaf.serial_number).uniform(-1, 1)  # noqa: S311  # no secret: it only spreads load


def renew(api: Api, pair: Pair, root: Path) -> x509.Certificate:
    """Renew with the same key. The old chain stands until the new one is verified."""
    key = load_key(pair.key)
    chain = api.renew(pair.certificate, pair.key)
    leaf = verified(chain, root, key.public_key())
    write_atomic(pair.certificate, join(chain), pair.certificate.stat().st_mode & 0o777)
    return leaf


def rekey(api: Api, pair: Pair, root: Path, kind: KeyType) -> x509.Certificate:
    """Renew with a new key."""
    key = make_key(kind)
    write_atomic(pair.next_key, key_pem(key), SECRET)
    names = load_leaf(pair.certificate).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    chain = api.rekey(pem(make_request(key, str(names[0].value) if names else "")), pair.certificate, pair.key)
    leaf = verified(chain, root, key.public_key())
    write_atomic(pair.certificate, join(chain), pair.certificate.stat().st_mode & 0o777)
    finish(pair)
    return leaf
