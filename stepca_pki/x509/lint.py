"""The pre-issuance check: what a CA certificate has to be, looked at before and after it is signed. Pure.

All findings are told at once. Source: RFC 5280 sections 4.1 and 4.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from cryptography import x509

from stepca_pki.errors import CertificateRefused
from stepca_pki.x509.profiles import IntermediateProfile, RootProfile, name_constraints

MIN_SERIAL_BITS = 64
MAX_SERIAL_BITS = 159  # 20 octets with a zero sign bit

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def check_root(certificate: x509.Certificate, profile: RootProfile) -> None:
    """Raise CertificateRefused unless *certificate* is exactly the root that *profile* describes."""
    findings = [*_common(certificate, profile.path_length)]
    if certificate.subject != profile.subject or certificate.issuer != profile.subject:
        findings.append("subject and issuer are not the declared subject")
    if certificate.not_valid_after_utc - certificate.not_valid_before_utc != profile.lifetime:
        findings.append("the lifetime is not the declared one")
    try:
        certificate.verify_directly_issued_by(certificate)
    except Exception:  # whatever is wrong with it, it is not self-signed
        findings.append("it is not signed by its own key")
    _refuse("root", findings)


def check_intermediate(certificate: x509.Certificate, profile: IntermediateProfile, issuer: x509.Certificate) -> None:
    """Raise CertificateRefused unless *certificate* is the intermediate of *profile* under *issuer*.

    The signature is not looked at: this also checks what a throw-away key has signed.
    """
    findings = [*_common(certificate, profile.path_length), *_nesting(certificate, issuer)]
    if certificate.subject != profile.subject:
        findings.append("the subject is not the declared subject")
    if certificate.issuer != issuer.subject:
        findings.append("the issuer's name is not the issuer's subject")
    if certificate.subject == issuer.subject:
        findings.append("subject and issuer have one name, so verifiers would take it for self-issued")
    findings += _optional(certificate, profile)
    _refuse("intermediate", findings)


def _common(certificate: x509.Certificate, path_length: int | None) -> Iterator[str]:
    if certificate.version is not x509.Version.v3:
        yield "it is not version 3"
    if not MIN_SERIAL_BITS <= certificate.serial_number.bit_length() <= MAX_SERIAL_BITS:
        yield "the serial number is not between 64 and 159 bits"
    yield from _basic_constraints(certificate, path_length)
    yield from _key_usage(certificate)
    ski = _find(certificate, x509.SubjectKeyIdentifier)
    if ski is None or ski.value.digest != x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest:
        yield "the subject key identifier is not that of its key"
    if certificate.not_valid_before_utc >= certificate.not_valid_after_utc:
        yield "it ends before it starts"
    expected = {"basicConstraints", "keyUsage", "nameConstraints"}
    for extension in certificate.extensions:
        if extension.critical and extension.oid._name not in expected:
            yield f"the extension {extension.oid._name} is critical"


def _basic_constraints(certificate: x509.Certificate, path_length: int | None) -> Iterator[str]:
    constraints = _find(certificate, x509.BasicConstraints)
    if constraints is None or not constraints.critical or not constraints.value.ca:
        yield "basic constraints are not critical with CA true"
    elif constraints.value.path_length != path_length:
        yield f"the path length is {constraints.value.path_length} instead of {path_length}"


def _key_usage(certificate: x509.Certificate) -> Iterator[str]:
    usage = _find(certificate, x509.KeyUsage)
    if usage is None or not usage.critical or not (usage.value.key_cert_sign and usage.value.crl_sign):
        yield "key usage is not critical with keyCertSign and cRLSign"
    elif usage.value.digital_signature or usage.value.key_encipherment:
        yield "key usage allows more than keyCertSign and cRLSign"


def _nesting(certificate: x509.Certificate, issuer: x509.Certificate) -> Iterator[str]:
    if certificate.not_valid_before_utc < issuer.not_valid_before_utc:
        yield "it starts before its issuer"
    if certificate.not_valid_after_utc > issuer.not_valid_after_utc:
        yield "it outlives its issuer"
    aki, ski = _find(certificate, x509.AuthorityKeyIdentifier), _find(issuer, x509.SubjectKeyIdentifier)
    if aki is None or ski is None or aki.value.key_identifier != ski.value.digest:
        yield "the authority key identifier is not the issuer's subject key identifier"


def _optional(certificate: x509.Certificate, profile: IntermediateProfile) -> Iterator[str]:
    constraints = _find(certificate, x509.NameConstraints)
    wanted = None if profile.constraints is None else name_constraints(profile.constraints)
    if (None if constraints is None else constraints.value) != wanted:
        yield "name constraints are not as declared"
    elif constraints is not None and not constraints.critical:
        yield "name constraints are not critical"
    points = _find(certificate, x509.CRLDistributionPoints)
    urls = [str(name.value) for point in points.value for name in point.full_name or ()] if points else []
    if urls != ([profile.crl_url] if profile.crl_url else []):
        yield "the CRL distribution point is not as declared"
    access = _find(certificate, x509.AuthorityInformationAccess)
    issuers = [str(item.access_location.value) for item in access.value] if access else []
    if issuers != ([profile.issuer_url] if profile.issuer_url else []):
        yield "the AIA is not as declared"


def _find(certificate: x509.Certificate, kind: type[_Extension]) -> x509.Extension[_Extension] | None:
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _refuse(what: str, findings: list[str]) -> None:
    if findings:
        raise CertificateRefused(f"the {what} does not pass the pre-issuance check: {'; '.join(findings)}")
