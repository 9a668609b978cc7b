"""The pre-issuance check: each single fault in an otherwise good certificate is found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from stepca_pki.errors import CertificateRefused
from stepca_pki.x509.build import _CA_USAGE
from stepca_pki.x509.lint import check_root
from stepca_pki.x509.names import SubjectParts, name_of
from stepca_pki.x509.profiles import RootProfile

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAME = name_of(SubjectParts("Root"))
KEY = ec.generate_private_key(ec.SECP256R1())
PROFILE = RootProfile(NAME, timedelta(days=100), 1)
NO_USAGE = x509.KeyUsage(True, False, False, False, False, False, False, False, False)


def a_root(**changes: Any) -> x509.Certificate:
    parts: dict[str, Any] = {
        "subject": NAME,
        "serial": 1 << 100,
        "days": 100,
        "constraints": (x509.BasicConstraints(True, 1), True),
        "usage": (_CA_USAGE, True),
        "ski": x509.SubjectKeyIdentifier.from_public_key(KEY.public_key()),
        **changes,
    }
    builder = (
        x509.CertificateBuilder(parts["subject"], NAME, KEY.public_key(), parts["serial"])
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=parts["days"]))
    )
    for extension in ("constraints", "usage"):
        if parts[extension] is not None:
            value, critical = parts[extension]
            builder = builder.add_extension(value, critical)
    if parts["ski"] is not None:
        builder = builder.add_extension(parts["ski"], critical=False)
    return builder.sign(KEY, hashes.SHA256())


def test_a_good_root_passes():
    check_root(a_root(), PROFILE)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"serial": 1}, "serial number"),
        ({"days": 99}, "lifetime"),
        ({"subject": name_of(SubjectParts("Another"))}, "subject"),
        ({"constraints": None}, "constraints"),
        ({"constraints": (x509.BasicConstraints(True, 1), False)}, "critical"),
        ({"constraints": (x509.BasicConstraints(False, None), True)}, "CA"),
        ({"constraints": (x509.BasicConstraints(True, None), True)}, "path length"),
        ({"usage": None}, "usage"),
        ({"usage": (NO_USAGE, True)}, "usage"),
        ({"usage": (_CA_USAGE, False)}, "critical"),
        ({"ski": None}, "key identifier"),
        ({"ski": x509.SubjectKeyIdentifier(b"x" * 20)}, "key identifier"),
    ],
)
def test_each_fault_is_named(fault: dict[str, Any], words: str):
    with pytest.raises(CertificateRefused, match=rf"(?i){words}"):
        check_root(a_root(**fault), PROFILE)


def test_all_faults_are_told_at_once():
    with pytest.raises(CertificateRefused, match=r"(?s)serial.*lifetime|lifetime.*serial"):
        check_root(a_root(serial=1, days=1), PROFILE)
