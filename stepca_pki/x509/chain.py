"""Checks on a chain that step-ca does not make before it serves. Pure."""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from stepca_pki.errors import CertificateRefused


def spki(key: object) -> bytes:
    """Return the DER SubjectPublicKeyInfo of a public key."""
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))  # type: ignore[attr-defined]


def signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether *issuer*'s key signed *certificate* and the names fit. Dates and extensions are not looked at."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def check_ca_chain(root: x509.Certificate, intermediate: x509.Certificate, now: datetime) -> None:
    """Raise CertificateRefused unless *root* and *intermediate* may serve now. All faults are told at once."""
    faults = [*_ca_faults("root", root, now), *_ca_faults("intermediate", intermediate, now)]
    if not signed_by(root, root):
        faults.append("the root is not self-signed")
    if not signed_by(intermediate, root):
        faults.append("the intermediate was not signed by the root")
    if intermediate.not_valid_after_utc > root.not_valid_after_utc:
        faults.append("the intermediate outlives the root")
    if faults:
        raise CertificateRefused("; ".join(faults), fix="run 'pki plan': it says what can be done")


def check_leaf(leaf: x509.Certificate, intermediate: x509.Certificate, root: x509.Certificate, now: datetime) -> None:
    """Raise CertificateRefused unless *leaf* chains to *root* through *intermediate* now."""
    if not signed_by(leaf, intermediate):
        raise CertificateRefused("the leaf was not signed by the intermediate on disk")
    if not signed_by(intermediate, root):
        raise CertificateRefused("the intermediate was not signed by the root on disk")
    for what, certificate in (("leaf", leaf), ("intermediate", intermediate), ("root", root)):
        if fault := date_fault(certificate, now):
            raise CertificateRefused(f"the {what} {fault}")


def date_fault(certificate: x509.Certificate, now: datetime) -> str | None:
    """Return what is wrong with the dates at *now*, None if nothing is (RFC 5280: both ends included)."""
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC; check the clock"
    if now > certificate.not_valid_after_utc:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
    return None


def _ca_faults(what: str, certificate: x509.Certificate, now: datetime) -> list[str]:
    faults = []
    if fault := date_fault(certificate, now):
        faults.append(f"the {what} {fault}")
    if not is_ca(certificate):
        faults.append(f"the {what} is not a CA certificate")
    return faults


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether it may sign certificates and CRLs: basic constraints and key usage."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return bool(constraints.ca and usage.key_cert_sign and usage.crl_sign)
