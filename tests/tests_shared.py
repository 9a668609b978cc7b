"""Small makers that several tests use."""

from __future__ import annotations

from cryptography import x509


def a_name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def a_csr(common_name: str) -> str:
    """Return a CSR as PEM text, by a fresh key."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding

    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(a_name(common_name)).sign(key, hashes.SHA256())
    return csr.public_bytes(Encoding.PEM).decode()
