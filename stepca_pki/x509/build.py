"""Building roots, CSRs, intermediates and CRLs with cryptography's builders. Pure: time and randomness come in.

Every certificate passes the pre-issuance check: the same contents are signed with a throw-away key and checked
first, so that nothing wrong ever gets a real signature.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID

from stepca_pki.errors import CertificateRefused
from stepca_pki.x509.lint import check_intermediate, check_root
from stepca_pki.x509.profiles import IntermediateProfile, RootProfile, name_constraints

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Hash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

SERIAL_BYTES = 16
MIN_RSA_BITS = 2048
MIN_EC_BITS = 256
MAX_CSR_BYTES = 16 * 1024

_CA_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def new_serial(random: bytes) -> int:
    """Return a positive serial number from SERIAL_BYTES random bytes: 126 bits, of a fixed length.

    Source: RFC 5280 section 4.1.2.2 (positive, at most 20 octets); CA/B BR 7.1 (at least 64 random bits).
    """
    if len(random) != SERIAL_BYTES:
        raise ValueError(f"{len(random)} random bytes; it must be {SERIAL_BYTES}")
    return int.from_bytes(random) >> 1 | 1 << 126


def hash_for(key: PublicKey | PrivateKey) -> Hash:
    """Return the hash that fits the key: P-384 with SHA-384, P-521 with SHA-512, all else with SHA-256."""
    if isinstance(key, (ec.EllipticCurvePublicKey, ec.EllipticCurvePrivateKey)):
        by_size: dict[int, Hash] = {384: hashes.SHA384(), 521: hashes.SHA512()}
        return by_size.get(key.curve.key_size, hashes.SHA256())
    return hashes.SHA256()


def throw_away_key(like: PublicKey) -> PrivateKey:
    """Return a fresh software key of the same kind, for the pre-issuance check."""
    if isinstance(like, ec.EllipticCurvePublicKey):
        return ec.generate_private_key(like.curve)
    return rsa.generate_private_key(65537, like.key_size)


# --- the root --------------------------------------------------------------------------------------


def build_root(profile: RootProfile, key: PrivateKey, *, serial: int, now: datetime) -> x509.Certificate:
    """Return the self-signed root. Raises CertificateRefused if the pre-issuance check finds a fault."""
    twin = _sign_root(profile, throw_away_key(key.public_key()), serial, now)
    check_root(twin, profile)
    real = _sign_root(profile, key, serial, now)
    check_root(real, profile)
    return real


def _sign_root(profile: RootProfile, key: PrivateKey, serial: int, now: datetime) -> x509.Certificate:
    start = _whole_second(now)
    builder = _base(profile.subject, profile.subject, key.public_key(), serial, start, start + profile.lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=profile.path_length), critical=True)
    builder = builder.add_extension(_CA_USAGE, critical=True)
    return builder.sign(key, hash_for(key))


# --- the CSR ---------------------------------------------------------------------------------------


def make_csr(subject: x509.Name, key: PrivateKey) -> x509.CertificateSigningRequest:
    """Return a CSR for *subject*, with no extensions: the root signs its own profile."""
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hash_for(key))


def parse_csr(data: bytes) -> x509.CertificateSigningRequest:
    """Return the CSR in *data* (PEM or DER), checked. Raises CertificateRefused."""
    if len(data) > MAX_CSR_BYTES:
        raise CertificateRefused(f"the CSR is larger than {MAX_CSR_BYTES} bytes")
    try:
        csr = x509.load_pem_x509_csr(data) if data.lstrip().startswith(b"-----") else x509.load_der_x509_csr(data)
    except ValueError:
        raise CertificateRefused("this is not a CSR", fix="make it with 'pki apply' on the CA's machine") from None
    check_csr(csr)
    return csr


def check_csr(csr: x509.CertificateSigningRequest) -> PublicKey:
    """Return the CSR's public key after checking proof of possession and strength. Raises CertificateRefused."""
    try:
        valid, key = csr.is_signature_valid, csr.public_key()
    except Exception as error:  # unknown curves and key types end here
        raise CertificateRefused(f"the CSR's key cannot be used: {error}") from None
    if not valid:
        raise CertificateRefused("the CSR's own signature does not verify", fix="make the CSR anew")
    return check_strength(key)


def check_strength(key: object) -> PublicKey:
    """Return *key* if it is strong enough for a CA: ECDSA P-256 or better, RSA 2048 or better with a usual exponent."""
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < MIN_RSA_BITS or key.public_numbers().e < 65537:
            raise CertificateRefused(f"RSA with {key.key_size} bits and exponent {key.public_numbers().e} is too weak")
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in ("secp256r1", "secp384r1", "secp521r1"):
            raise CertificateRefused(f"the curve {key.curve.name} is not used here", fix="use P-256, P-384 or P-521")
        return key
    raise CertificateRefused("the key is neither ECDSA nor RSA", fix="use P-256, P-384, P-521 or RSA")


# --- the intermediate ------------------------------------------------------------------------------


def build_intermediate(
    profile: IntermediateProfile,
    public_key: PublicKey,
    issuer: x509.Certificate,
    issuer_key: PrivateKey,
    *,
    serial: int,
    now: datetime,
) -> x509.Certificate:
    """Return the intermediate: *profile* and *public_key*, nothing else of the CSR.

    Its validity is nested in the issuer's. Raises CertificateRefused before the token is asked if the issuer may
    not issue it or the pre-issuance check finds a fault.
    """
    check_issuer(profile, issuer, issuer_key.public_key(), now)
    check_strength(public_key)
    twin = _sign_intermediate(profile, public_key, issuer, throw_away_key(issuer_key.public_key()), serial, now)
    check_intermediate(twin, profile, issuer)
    real = _sign_intermediate(profile, public_key, issuer, issuer_key, serial, now)
    if real.tbs_certificate_bytes != twin.tbs_certificate_bytes:
        raise CertificateRefused("what was signed differs from what was checked; the certificate is not used")
    check_intermediate(real, profile, issuer)
    real.verify_directly_issued_by(issuer)
    return real


def check_issuer(profile: IntermediateProfile, issuer: x509.Certificate, key: PublicKey, now: datetime) -> None:
    """Raise CertificateRefused if *issuer* may not issue *profile* now, or *key* is not its key."""
    if issuer.public_key() != key:
        raise CertificateRefused("the root key on the token is not the key of the root certificate")
    limit = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    if limit is not None and profile.path_length >= limit:
        raise CertificateRefused(f"the issuer's path length is {limit}, so it may not sign this intermediate")
    if not issuer.not_valid_before_utc <= now < issuer.not_valid_after_utc:
        raise CertificateRefused(
            f"the issuer is valid from {issuer.not_valid_before_utc:%Y-%m-%d} to "
            f"{issuer.not_valid_after_utc:%Y-%m-%d}, and it is {now:%Y-%m-%d %H:%M} UTC",
            fix="check the clock",
        )


def _sign_intermediate(
    profile: IntermediateProfile,
    public_key: PublicKey,
    issuer: x509.Certificate,
    issuer_key: PrivateKey,
    serial: int,
    now: datetime,
) -> x509.Certificate:
    start = max(_whole_second(now), issuer.not_valid_before_utc)
    end = min(start + profile.lifetime, issuer.not_valid_after_utc)
    builder = _base(profile.subject, issuer.subject, public_key, serial, start, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=profile.path_length), critical=True)
    builder = builder.add_extension(_CA_USAGE, critical=True)
    ski = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski)
    builder = builder.add_extension(identifier, critical=False)
    for extension, critical in _optional(profile):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key, hash_for(issuer_key))


def _optional(profile: IntermediateProfile) -> Iterable[tuple[x509.ExtensionType, bool]]:
    if profile.constraints is not None:
        yield name_constraints(profile.constraints), True
    if profile.crl_url is not None:
        where = [x509.UniformResourceIdentifier(profile.crl_url)]
        yield x509.CRLDistributionPoints([x509.DistributionPoint(where, None, None, None)]), False
    if profile.issuer_url is not None:
        location = x509.UniformResourceIdentifier(profile.issuer_url)
        access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, location)
        yield x509.AuthorityInformationAccess([access]), False


# --- the CRL ---------------------------------------------------------------------------------------


def build_crl(
    issuer: x509.Certificate,
    key: PrivateKey,
    *,
    number: int,
    revoked: Iterable[x509.RevokedCertificate] = (),
    this_update: datetime,
    lifetime: timedelta,
) -> x509.CertificateRevocationList:
    """Return a full CRL of *issuer* (RFC 5280 section 5), verified. *number* is above that of every earlier one."""
    if issuer.public_key() != key.public_key():
        raise CertificateRefused("the root key on the token is not the key of the root certificate")
    start = _whole_second(this_update)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject)
    builder = builder.last_update(start).next_update(min(start + lifetime, issuer.not_valid_after_utc))
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    ski = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski)
    builder = builder.add_extension(identifier, critical=False)
    for entry in revoked:
        builder = builder.add_revoked_certificate(entry)
    crl = builder.sign(key, hash_for(key))
    if not crl.is_signature_valid(key.public_key()):
        raise CertificateRefused("the CRL's signature does not verify; it is not used")
    return crl


def _base(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, serial: int, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(issuer_name=issuer, subject_name=subject, public_key=key, serial_number=serial)
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _whole_second(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)
