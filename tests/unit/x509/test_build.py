"""Building CA certificates: what is in them, and what is refused before a key is asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from stepca_pki.errors import CertificateRefused
from stepca_pki.x509.build import (
    MAX_CSR_BYTES,
    SERIAL_BYTES,
    build_crl,
    build_intermediate,
    build_root,
    check_csr,
    make_csr,
    new_serial,
    parse_csr,
)
from stepca_pki.x509.names import SubjectParts, name_of
from stepca_pki.x509.profiles import Constraints, IntermediateProfile, RootProfile

NOW = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
ROOT_NAME = name_of(SubjectParts("Test Root", organisation="Test", country="DE"))
NAME = name_of(SubjectParts("Test Intermediate", organisation="Test"))
SERIAL = new_serial(b"\x5a" * SERIAL_BYTES)
ROOT_KEY = ec.generate_private_key(ec.SECP384R1())
KEY = ec.generate_private_key(ec.SECP256R1())


def a_root(**changes: object) -> x509.Certificate:
    profile = RootProfile(**{"subject": ROOT_NAME, "lifetime": timedelta(days=3650), "path_length": 1, **changes})  # type: ignore[arg-type]
    return build_root(profile, ROOT_KEY, serial=SERIAL, now=NOW)


def an_intermediate(root: x509.Certificate, now: datetime = NOW, **changes: object) -> x509.Certificate:
    profile = IntermediateProfile(**{"subject": NAME, "lifetime": timedelta(days=1825), **changes})  # type: ignore[arg-type]
    return build_intermediate(profile, KEY.public_key(), root, ROOT_KEY, serial=SERIAL + 1, now=now)


def critical(certificate: x509.Certificate) -> dict[str, bool]:
    return {extension.oid._name: extension.critical for extension in certificate.extensions}


def test_a_root_has_what_rfc_5280_wants_and_nothing_more():
    root = a_root()

    assert {"basicConstraints": True, "keyUsage": True, "subjectKeyIdentifier": False} == critical(root)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(True, 1)
    assert isinstance(root.signature_hash_algorithm, hashes.SHA384)


def test_an_intermediate_names_its_issuer_and_may_sign_leaves_only():
    root = a_root()
    made = an_intermediate(root)

    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    identifier = made.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert identifier == root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    made.verify_directly_issued_by(root)


def test_times_are_whole_seconds():
    assert a_root().not_valid_before_utc == NOW.replace(microsecond=0)


def test_an_intermediate_never_outlives_its_root():
    root = a_root(lifetime=timedelta(days=100))

    assert an_intermediate(root).not_valid_after_utc == root.not_valid_after_utc


def test_constraints_are_critical_and_urls_are_not():
    made = an_intermediate(
        a_root(),
        constraints=Constraints(permitted_dns=("int.example",), permitted_ip=("10.0.0.0/8",)),
        crl_url="http://pki.example/root.crl",
        issuer_url="http://pki.example/root.crt",
    )

    found = critical(made)
    assert found["nameConstraints"] is True
    assert (found["cRLDistributionPoints"], found["authorityInfoAccess"]) == (False, False)
    constraints = made.extensions.get_extension_for_class(x509.NameConstraints).value
    assert constraints.excluded_subtrees is None


@given(st.binary(min_size=SERIAL_BYTES, max_size=SERIAL_BYTES))
def test_every_serial_is_positive_and_of_one_length(random: bytes):
    assert new_serial(random).bit_length() == 8 * SERIAL_BYTES - 1


def test_a_root_without_room_below_signs_no_intermediate():
    with pytest.raises(CertificateRefused, match="path length is 0"):
        an_intermediate(a_root(path_length=0))


def test_an_expired_root_signs_nothing():
    with pytest.raises(CertificateRefused, match="check the clock"):
        an_intermediate(a_root(), now=NOW + timedelta(days=4000))


def test_another_key_than_the_roots_is_refused():
    profile = IntermediateProfile(NAME, timedelta(days=1))

    with pytest.raises(CertificateRefused, match="not the key of the root"):
        build_intermediate(profile, KEY.public_key(), a_root(), KEY, serial=SERIAL, now=NOW)


def test_the_roots_own_name_is_refused_for_an_intermediate():
    with pytest.raises(CertificateRefused, match="self-issued"):
        an_intermediate(a_root(), subject=ROOT_NAME)


def test_a_csr_with_a_broken_signature_is_refused():
    der = bytearray(make_csr(NAME, KEY).public_bytes(Encoding.DER))
    der[-1] ^= 1

    with pytest.raises(CertificateRefused, match=r"does not verify|cannot be used"):
        parse_csr(bytes(der))


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (rsa.generate_private_key(65537, 1024), "too weak"),  # noqa: S505
        (rsa.generate_private_key(3, 2048), "too weak"),
        (ec.generate_private_key(ec.SECP256K1()), "curve secp256k1"),
        (ec.generate_private_key(ec.SECP224R1()), "curve secp224r1"),
    ],
)
def test_a_weak_or_odd_key_is_refused(key: ec.EllipticCurvePrivateKey, words: str):
    csr = x509.CertificateSigningRequestBuilder().subject_name(NAME).sign(key, hashes.SHA256())

    with pytest.raises(CertificateRefused, match=words):
        check_csr(csr)


def test_an_ed25519_key_is_refused():
    csr = x509.CertificateSigningRequestBuilder().subject_name(NAME).sign(ed25519.Ed25519PrivateKey.generate(), None)

    with pytest.raises(CertificateRefused, match="neither ECDSA nor RSA"):
        check_csr(csr)


@pytest.mark.parametrize(
    "data", [b"", b"-----BEGIN NONSENSE-----", b"\x30\x03\x02\x01\x00", b"A" * (MAX_CSR_BYTES + 1)]
)
def test_what_is_no_csr_is_refused(data: bytes):
    with pytest.raises(CertificateRefused):
        parse_csr(data)


@given(st.binary(max_size=300))
def test_any_bytes_end_in_a_refusal(data: bytes):
    with pytest.raises(CertificateRefused):
        parse_csr(data)


def test_what_a_csr_asks_for_is_not_what_it_gets():
    """A CSR that asks for an unlimited CA and for names gets the profile; build_intermediate takes only its key."""
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name_of(SubjectParts("Evil")))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("bank.example")]), critical=False)
        .sign(KEY, hashes.SHA256())
    )
    profile = IntermediateProfile(NAME, timedelta(days=10))

    made = build_intermediate(profile, check_csr(greedy), a_root(), ROOT_KEY, serial=SERIAL + 1, now=NOW)

    assert made.subject == NAME
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert "subjectAltName" not in critical(made)


def test_a_crl_is_numbered_and_verifies():
    root = a_root()
    crl = build_crl(root, ROOT_KEY, number=7, this_update=NOW, lifetime=timedelta(days=30))

    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 7
    assert crl.is_signature_valid(ROOT_KEY.public_key())
    assert crl.next_update_utc == NOW.replace(microsecond=0) + timedelta(days=30)


def test_an_rsa_root_works_too():
    key = rsa.generate_private_key(65537, 2048)
    root = build_root(RootProfile(ROOT_NAME, timedelta(days=10), 1), key, serial=SERIAL, now=NOW)

    root.verify_directly_issued_by(root)
