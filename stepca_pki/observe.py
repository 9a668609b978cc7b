"""What exists now: tokens, files, certificates. Reads only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from stepca_pki.config.model import Authority, Subject, TokenRef
from stepca_pki.config.tokens import Role, is_embedded, token_of
from stepca_pki.errors import FileRefused, TokenAmbiguous
from stepca_pki.files import read_bounded
from stepca_pki.home import Home
from stepca_pki.hsm.modules import find_module
from stepca_pki.hsm.pins import read_pin
from stepca_pki.hsm.token import list_tokens, open_token
from stepca_pki.plan.decide import needs_root_token, subject_text
from stepca_pki.plan.seen import Broken, Seen, SeenCertificate, SeenKey, SeenToken
from stepca_pki.provisioners.base import Material
from stepca_pki.render.ca_json import Facts, ca_json_text, render_ca_json
from stepca_pki.values import KeyType

MAX_CERTIFICATE_BYTES = 64 * 1024
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
        jwk = json.loads(read_bounded(path, MAX_CERTIFICATE_BYTES))
        return {name: jwk[name] for name in ("use", "kty", "kid", "crv", "alg", "x", "y")}
    except (ValueError, KeyError, TypeError):
        raise FileRefused(
            path, "is not the JWK that was written there", fix="restore it, or remove it: 'pki apply' makes a new one"
        ) from None


# --- certificates ----------------------------------------------------------------------------------


def _with_certificates(seen: Seen, home: Home) -> Seen:
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
        crl = x509.load_pem_x509_crl(read_bounded(path, MAX_GENERATED_BYTES))
        valid = crl.is_signature_valid(root.public_key())  # type: ignore[arg-type]  # another key type: TypeError
    except (ValueError, TypeError):
        return None
    return crl.next_update_utc if valid else None


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


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a PEM certificate's DER in upper-case hex, the form in which people compare it."""
    certificate = _certificate(path)
    if not isinstance(certificate, x509.Certificate):
        raise FileRefused(path, "is not a certificate", fix="run 'pki apply'")
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()
