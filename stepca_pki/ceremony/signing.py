"""The root's signatures, each put on record. All of them may be cut off and run again.

A certificate that an earlier run signed and recorded, but did not deliver, is delivered instead of signing a
second one.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from cryptography import x509

from stepca_pki.ceremony.register import Register
from stepca_pki.errors import CertificateRefused
from stepca_pki.plan.decide import RENEW_BEFORE
from stepca_pki.x509.build import (
    SERIAL_BYTES,
    PrivateKey,
    build_crl,
    build_intermediate,
    build_root,
    check_csr,
    new_serial,
)
from stepca_pki.x509.chain import signed_by
from stepca_pki.x509.lint import check_intermediate, check_root
from stepca_pki.x509.profiles import IntermediateProfile, RootProfile


def sign_root(register: Register, profile: RootProfile, key: PrivateKey, now: datetime) -> x509.Certificate:
    """Return the root certificate for *key*: the recorded one if there is one, else a new one."""
    register.complete()
    for recorded in reversed(register.find(profile.subject, key.public_key())):
        if now < recorded.not_valid_after_utc and _passes(check_root, recorded, profile):
            return recorded
    certificate = build_root(profile, key, serial=new_serial(os.urandom(SERIAL_BYTES)), now=now)
    register.record(certificate)
    return certificate


def sign_intermediate(
    register: Register,
    profile: IntermediateProfile,
    csr: x509.CertificateSigningRequest,
    root: x509.Certificate,
    root_key: PrivateKey,
    now: datetime,
) -> x509.Certificate:
    """Return the intermediate for the CSR's key under *profile*; nothing else of the CSR is used."""
    public_key = check_csr(csr)
    register.complete()
    for recorded in reversed(register.find(profile.subject, public_key)):
        if _serves(recorded, profile, root, now):
            return recorded
    serial = new_serial(os.urandom(SERIAL_BYTES))
    certificate = build_intermediate(profile, public_key, root, root_key, serial=serial, now=now)
    register.record(certificate)
    return certificate


def _serves(recorded: x509.Certificate, profile: IntermediateProfile, root: x509.Certificate, now: datetime) -> bool:
    """Whether a recorded intermediate is what would be signed now, with most of its life before it."""
    start, end = recorded.not_valid_before_utc, recorded.not_valid_after_utc
    asked = end - start == profile.lifetime or end == root.not_valid_after_utc
    young = start <= now < end - min(RENEW_BEFORE, (end - start) / 5)
    return asked and young and signed_by(recorded, root) and _passes(check_intermediate, recorded, profile, root)


def issue_crl(
    register: Register, root: x509.Certificate, root_key: PrivateKey, now: datetime, lifetime: timedelta
) -> x509.CertificateRevocationList:
    """Return the root's CRL under the next number."""
    register.complete()
    number = register.take_crl_number()
    return build_crl(root, root_key, number=number, revoked=register.revoked(), this_update=now, lifetime=lifetime)


def _passes(check: object, *arguments: object) -> bool:
    try:
        check(*arguments)  # type: ignore[operator]
    except CertificateRefused:
        return False
    return True
