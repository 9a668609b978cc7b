"""A certificate or a served chain in words: by depth, trusted or exactly why not. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from stepca_pki.x509.chain import date_fault, is_ca, signed_by


@dataclass(frozen=True)
class Link:
    """One certificate of a chain. *depth* 0 is the leaf; *source* is where we have it from."""

    depth: int
    source: str
    subject: str
    issuer: str
    kind: str
    key: str
    serial: str
    sha256: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    days_left: int


@dataclass(frozen=True)
class Explanation:
    """*reasons* is empty when the chain is trusted."""

    links: tuple[Link, ...]
    reasons: tuple[str, ...]

    @property
    def trusted(self) -> bool:
        return not self.reasons


def explain(
    served: Sequence[x509.Certificate], trusted: Sequence[x509.Certificate], *, name: str | None, now: datetime
) -> Explanation:
    """Explain *served* (leaf first) against the roots in *trusted*; *name* is the host that was asked for."""
    if not served:
        return Explanation((), ("nothing was served",))
    path, end_reason = _path(served, trusted)
    links = tuple(_link(depth, certificate, served, now) for depth, certificate in enumerate(path))
    reasons = [*_misplaced(served), *([end_reason] if end_reason else []), *_faults(path, now)]
    if name is not None:
        reasons += _name_faults(path[0], name)
    if not reasons and name is not None:
        reasons += _second_opinion(path, name, now)
    return Explanation(links, tuple(reasons))


def _path(
    served: Sequence[x509.Certificate], trusted: Sequence[x509.Certificate]
) -> tuple[list[x509.Certificate], str | None]:
    """Walk from the leaf to a trusted root; return the path, and why it ends short of one."""
    path = [served[0]]
    while True:
        last = path[-1]
        if last in trusted:
            return path, None
        if signed_by(last, last):
            what = (
                "the certificate is self-signed" if len(path) == 1 else "the chain ends in a root that is not trusted"
            )
            return path, f"{what}: {last.subject.rfc4514_string()}"
        issuer = _issuer_of(last, [*trusted, *served])
        if issuer is None or issuer in path:
            return path, _missing(last, first=len(path) == 1)
        path.append(issuer)


def _issuer_of(certificate: x509.Certificate, candidates: Sequence[x509.Certificate]) -> x509.Certificate | None:
    return next((one for one in candidates if one is not certificate and signed_by(certificate, one)), None)


def _missing(last: x509.Certificate, *, first: bool) -> str:
    issuer = last.issuer.rfc4514_string()
    if first:
        return f"an intermediate is missing: the server does not send '{issuer}', and it is not trusted here"
    return f"the root is not trusted here: '{issuer}'"


def _misplaced(served: Sequence[x509.Certificate]) -> Iterator[str]:
    """RFC 8446 section 4.4.2: leaf first. A first certificate that is a CA hides the leaf."""
    if is_ca(served[0]) and any(signed_by(other, served[0]) for other in served[1:]):
        yield "the chain is in the wrong order: the leaf must be first"


def _faults(path: Sequence[x509.Certificate], now: datetime) -> Iterator[str]:
    for depth, certificate in enumerate(path):
        if fault := date_fault(certificate, now):
            yield f"depth {depth} ({_common_name(certificate)}) {fault}"
        if depth and not is_ca(certificate):
            yield f"depth {depth} ({_common_name(certificate)}) may not issue certificates"


def _name_faults(leaf: x509.Certificate, name: str) -> Iterator[str]:
    if not covers(leaf, name):
        has = ", ".join(san_texts(leaf)) or "no subject alternative name at all"
        yield f"the certificate is not for '{name}'; it has: {has}"
    usages = _extended_key_usage(leaf)
    if usages is not None and ExtendedKeyUsageOID.SERVER_AUTH not in usages:
        yield "the certificate is not for servers: its extended key usage lacks serverAuth"


def covers(leaf: x509.Certificate, name: str) -> bool:
    """Whether *name* is among the leaf's subject alternative names (RFC 6125: one label for a wildcard)."""
    try:
        sans = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ipaddress.ip_address(name) in sans.get_values_for_type(x509.IPAddress)
    except ValueError:
        pass
    parent = name.lower().partition(".")[2]
    return any(
        pattern.lower() == name.lower() or (bool(parent) and pattern.lower() == f"*.{parent}")
        for pattern in sans.get_values_for_type(x509.DNSName)
    )


def _second_opinion(path: Sequence[x509.Certificate], name: str, now: datetime) -> Iterator[str]:
    """cryptography's own verifier, which also knows name constraints and path lengths."""
    try:
        subject: x509.IPAddress | x509.DNSName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        subject = x509.DNSName(name)
    builder = PolicyBuilder().store(Store([path[-1]])).time(now)
    try:
        builder.build_server_verifier(subject).verify(path[0], list(path[1:-1]))
    except VerificationError as error:
        yield f"a strict verifier refuses it: {error}"


def _link(depth: int, certificate: x509.Certificate, served: Sequence[x509.Certificate], now: datetime) -> Link:
    return Link(
        depth=depth,
        source="served" if certificate in served else "trusted here",
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        kind=kind_of(certificate),
        key=key_text(certificate.public_key()),
        serial=f"{certificate.serial_number:X}",
        sha256=certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
        names=tuple(san_texts(certificate)),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        days_left=(certificate.not_valid_after_utc - now).days,
    )


def kind_of(certificate: x509.Certificate) -> str:
    if not is_ca(certificate):
        return "self-signed leaf" if signed_by(certificate, certificate) else "leaf"
    return "root" if signed_by(certificate, certificate) else "intermediate"


def key_text(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    return "Ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else type(key).__name__


def san_texts(certificate: x509.Certificate) -> list[str]:
    try:
        sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in sans]


def _extended_key_usage(certificate: x509.Certificate) -> x509.ExtendedKeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else "no common name"
