"""The canary: a leaf issued now, through the HSM, and verified. The only proof that the CA is able to sign."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from stepca_pki.errors import StepCaError
from stepca_pki.files import read_bounded, read_secret
from stepca_pki.home import Home
from stepca_pki.render.ca_json import CANARY
from stepca_pki.stepca.api import Api
from stepca_pki.stepca.ott import mint
from stepca_pki.x509.chain import check_leaf

SUBJECT = "pki canary"
MAX_CERTIFICATE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Canary:
    """A verified probe leaf, and how long its issuance took."""

    leaf: x509.Certificate
    seconds: float


def issue_canary(home: Home, api: Api) -> Canary:
    """Ask the running CA for a leaf and verify it up to the root on disk.

    Raises Unreachable if nobody answers, StepCaError if it does not sign, CertificateRefused if what it signed
    does not verify.
    """
    jwk = json.loads(read_secret(home.canary_key))
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, SUBJECT)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    digest = hashes.Hash(hashes.SHA256())
    digest.update(csr.public_bytes(Encoding.DER))
    now = datetime.now(UTC)
    ott = mint(
        jwk, issuer=CANARY, audience=api.audience("/1.0/sign"), subject=SUBJECT, sans=[SUBJECT], now=now,
        csr_digest=digest.finalize(),
    )  # fmt: skip
    started = time.monotonic()
    chain = api.sign(csr.public_bytes(Encoding.PEM).decode(), ott)
    seconds = time.monotonic() - started
    return Canary(_verified(home, chain[0], key.public_key()), seconds)


def _verified(home: Home, pem: str, public_key: ec.EllipticCurvePublicKey) -> x509.Certificate:
    try:
        leaf = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        raise StepCaError("step-ca answered with something that is not a certificate") from None
    if leaf.public_key() != public_key:
        raise StepCaError("step-ca certified another key than the one that was sent")
    check_leaf(
        leaf, certificate_at(home.intermediate_certificate), certificate_at(home.root_certificate), datetime.now(UTC)
    )
    return leaf


def certificate_at(path: object) -> x509.Certificate:
    from pathlib import Path

    where = Path(str(path))
    try:
        return x509.load_pem_x509_certificate(read_bounded(where, MAX_CERTIFICATE_BYTES))
    except ValueError:
        raise StepCaError(f"{where} is not a whole PEM certificate", fix="run 'pki apply'") from None
