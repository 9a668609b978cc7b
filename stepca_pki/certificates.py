"""The CA certificates, CSR and CRL on disk, taken apart for the planner. Reads only."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from stepca_pki.config.model import Subject
from stepca_pki.errors import FileRefused
from stepca_pki.files import read_bounded
from stepca_pki.home import Home
from stepca_pki.plan.decide import subject_text
from stepca_pki.plan.seen import Broken, Seen, SeenCertificate
from stepca_pki.values import KeyType

MAX_CERTIFICATE_BYTES = 64 * 1024
MAX_CRL_BYTES = 16 * 1024 * 1024


def with_certificates(seen: Seen, home: Home) -> Seen:
    """Return *seen* with the CA certificates, the CSR and the CRL of the home."""
    root = _certificate(home.root_certificate)
    intermediate = _certificate(home.intermediate_certificate)
    root_certificate = root if isinstance(root, x509.Certificate) else None
    return replace(
        seen,
        root=_seen_certificate(root, root_certificate),
        intermediate=_seen_certificate(intermediate, root_certificate),
        csr_spki=_csr_spki(home.intermediate_csr),
        crl_next_update=_crl_next_update(home.root_crl, root_certificate),
    )


def _certificate(path: Path) -> x509.Certificate | Broken | None:
    if not path.exists():
        return None
    try:
        return x509.load_pem_x509_certificate(read_bounded(path, MAX_CERTIFICATE_BYTES))
    except ValueError:
        return Broken("it is not a whole PEM certificate")


def _seen_certificate(
    certificate: x509.Certificate | Broken | None, root: x509.Certificate | None
) -> SeenCertificate | Broken | None:
    if not isinstance(certificate, x509.Certificate):
        return certificate
    try:
        return SeenCertificate(
            subject=subject_text(_subject(certificate.subject)),
            key_type=key_type(certificate.public_key()),
            spki=_spki(certificate.public_key()),
            path_length=_path_length(certificate),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            signed_by_root=root is not None and _signed_by(certificate, root),
            profile=_profile(certificate),
        )
    except ValueError as error:
        return Broken(f"it is not a CA certificate that could be ours: {error}")


_SUBJECT_OIDS = {
    "common_name": NameOID.COMMON_NAME,
    "organisation": NameOID.ORGANIZATION_NAME,
    "organisational_unit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "locality": NameOID.LOCALITY_NAME,
    "province": NameOID.STATE_OR_PROVINCE_NAME,
    "country": NameOID.COUNTRY_NAME,
}


def _subject(name: x509.Name) -> Subject:
    parts = {
        field: attribute[0].value
        for field, oid in _SUBJECT_OIDS.items()
        if (attribute := name.get_attributes_for_oid(oid))
    }
    return Subject.model_construct(**parts)  # type: ignore[arg-type]  # shown and compared, whatever it holds


def key_type(key: object) -> KeyType | None:
    """Return which of our key types a public key is, None if it is none of them."""
    if isinstance(key, rsa.RSAPublicKey):
        names = f"RSA-{key.key_size}"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        names = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}.get(key.curve.name, "")
    else:
        return None
    return KeyType(names) if names in set(KeyType) else None


def _spki(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _path_length(certificate: x509.Certificate) -> int | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    except x509.ExtensionNotFound:
        raise ValueError("it has no basic constraints") from None


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _profile(certificate: x509.Certificate) -> dict[str, Any]:
    """Return constraints and URLs in the planner's comparable form (plan.decide.wanted_profile)."""
    return {**_constraints(certificate), **_urls(certificate)}


_CONSTRAINT_KINDS: dict[type[x509.GeneralName], str] = {
    x509.DNSName: "dns",
    x509.IPAddress: "ip",
    x509.RFC822Name: "email",
}


def _constraints(certificate: x509.Certificate) -> dict[str, list[str]]:
    try:
        value = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return {}
    answer: dict[str, list[str]] = {}
    for side, names in (("permitted", value.permitted_subtrees), ("excluded", value.excluded_subtrees)):
        for name in names or ():
            answer.setdefault(f"{side}_{_CONSTRAINT_KINDS.get(type(name), 'other')}", []).append(str(name.value))
    return {key: sorted(values) for key, values in answer.items()}


def _urls(certificate: x509.Certificate) -> dict[str, str]:
    urls = {"crl_url": _crl_url(certificate.extensions), "issuer_url": _issuer_url(certificate.extensions)}
    return {name: url for name, url in urls.items() if url is not None}


def _crl_url(extensions: x509.Extensions) -> str | None:
    try:
        points = extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return None
    return next((str(name.value) for point in points for name in point.full_name or ()), None)


def _issuer_url(extensions: x509.Extensions) -> str | None:
    try:
        access = extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        return None
    wanted = AuthorityInformationAccessOID.CA_ISSUERS
    return next((str(item.access_location.value) for item in access if item.access_method == wanted), None)


def _csr_spki(path: Path) -> bytes | None:
    try:
        return _spki(x509.load_pem_x509_csr(read_bounded(path, MAX_CERTIFICATE_BYTES)).public_key())
    except (FileRefused, ValueError):
        return None  # a CSR is made anew at no cost


def _crl_next_update(path: Path, root: x509.Certificate | None) -> datetime | None:
    """Return nextUpdate of the root's CRL, None if there is none that the root signed."""
    if root is None or not path.exists():
        return None
    try:
        crl = x509.load_pem_x509_crl(read_bounded(path, MAX_CRL_BYTES))
        valid = crl.is_signature_valid(root.public_key())  # type: ignore[arg-type]  # another key type: TypeError
    except (ValueError, TypeError):
        return None
    return crl.next_update_utc if valid else None


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a PEM certificate's DER in upper-case hex, the form in which people compare it."""
    certificate = _certificate(path)
    if not isinstance(certificate, x509.Certificate):
        raise FileRefused(path, "is not a certificate", fix="run 'pki apply'")
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()
