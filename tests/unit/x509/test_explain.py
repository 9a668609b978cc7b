"""Chains in words: trusted, or exactly why not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from stepca_pki.errors import CertificateRefused
from stepca_pki.x509.build import build_intermediate, build_root, new_serial
from stepca_pki.x509.chain import check_ca_chain, check_leaf
from stepca_pki.x509.explain import explain
from stepca_pki.x509.names import SubjectParts, name_of
from stepca_pki.x509.profiles import IntermediateProfile, RootProfile

NOW = datetime.now(UTC).replace(microsecond=0)


def a_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def a_ca(name: str, start: datetime = NOW, days: int = 1000) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = a_key()
    profile = RootProfile(name_of(SubjectParts(name)), timedelta(days=days), 1)
    return build_root(profile, key, serial=new_serial(b"\x11" * 16), now=start), key


ROOT, ROOT_KEY = a_ca("Root")
OTHER, OTHER_KEY = a_ca("Other")
ISSUER_KEY = a_key()
ISSUER = build_intermediate(
    IntermediateProfile(name_of(SubjectParts("Issuer")), timedelta(days=500)), ISSUER_KEY.public_key(), ROOT, ROOT_KEY,
    serial=new_serial(b"\x12" * 16), now=NOW,
)  # fmt: skip


def a_leaf(
    name: str = "www.example", start: datetime = NOW, hours: int = 24, *, self_signed: bool = False
) -> x509.Certificate:
    key = a_key()
    issuer, signer = (name_of(SubjectParts(name)), key) if self_signed else (ISSUER.subject, ISSUER_KEY)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return (
        x509.CertificateBuilder(issuer, name_of(SubjectParts(name)), key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(hours=hours))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(signer, hashes.SHA256())
    )


def test_a_whole_chain_is_trusted_at_three_depths():
    found = explain([a_leaf(), ISSUER], [ROOT], name="www.example", now=NOW + timedelta(hours=1))

    assert found.reasons == ()
    assert [0, 1, 2] == [link.depth for link in found.links]


@pytest.mark.parametrize(
    ("served", "name", "hours", "words"),
    [
        ([a_leaf(self_signed=True)], "www.example", 1, "self-signed"),
        ([a_leaf()], "www.example", 1, "intermediate"),
        ([a_leaf(), ISSUER], "mail.example", 1, "mail.example"),
        ([a_leaf(), ISSUER], "www.example", 48, "expired"),
        ([a_leaf(start=NOW + timedelta(hours=5)), ISSUER], "www.example", 1, "not valid before"),
    ],
)
def test_each_reason_is_told(served: list[x509.Certificate], name: str, hours: int, words: str):
    found = explain(served, [ROOT], name=name, now=NOW + timedelta(hours=hours))

    assert not found.trusted
    assert any(words in reason for reason in found.reasons), found.reasons


def test_a_chain_to_another_root_is_not_trusted():
    assert not explain([a_leaf(), ISSUER], [OTHER], name="www.example", now=NOW + timedelta(hours=1)).trusted


def test_nothing_served_is_not_trusted():
    assert not explain([], [ROOT], name=None, now=NOW).trusted


def test_a_leaf_of_another_issuer_fails_the_canary():
    with pytest.raises(CertificateRefused, match="not signed by the intermediate"):
        check_leaf(a_leaf(self_signed=True), ISSUER, ROOT, NOW)


def test_a_swapped_root_is_found():
    with pytest.raises(CertificateRefused, match="not signed by the root"):
        check_ca_chain(OTHER, ISSUER, NOW)


def test_all_faults_of_a_chain_are_told():
    with pytest.raises(CertificateRefused, match=r"root expired.*intermediate expired"):
        check_ca_chain(ROOT, ISSUER, NOW + timedelta(days=2000))
