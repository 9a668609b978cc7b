"""Small makers that several tests use."""

from __future__ import annotations

from cryptography import x509


def a_name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
