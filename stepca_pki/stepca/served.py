"""Certificates from files and from servers, to be explained. Nothing here is trusted."""

from __future__ import annotations

import warnings
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

from stepca_pki import commands
from stepca_pki.errors import PkiError, UsageError
from stepca_pki.files import read_bounded
from stepca_pki.values import is_ip

MAX_BYTES = 4 * 1024 * 1024
CONNECT_TIMEOUT = timedelta(seconds=15)
SYSTEM_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/cert.pem"),
)


def certificates_in(path: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM bundle or a DER file. Raises UsageError with what is wrong."""
    data = read_bounded(path, MAX_BYTES)
    try:
        return (
            x509.load_pem_x509_certificates(data) if b"-----BEGIN" in data else [x509.load_der_x509_certificate(data)]
        )
    except ValueError:
        what = "a half-written or damaged PEM file" if b"-----BEGIN CERTIFICATE" in data else "not a certificate"
        raise UsageError(f"{path}: this is {what}", fix="name a PEM or DER certificate, or HOST:PORT") from None


def served_by(host: str, port: int, name: str | None) -> list[x509.Certificate]:
    """Return the chain that a server sends, whether or not it is valid: by `openssl s_client -showcerts`.

    Python's ssl hands out an unverified chain only from 3.13 on.
    """
    connect = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    server_name = [] if is_ip(name or host) else ["-servername", name or host]
    argv = ["openssl", "s_client", "-connect", connect, *server_name, "-showcerts"]
    done = commands.run(argv, timeout=CONNECT_TIMEOUT, check=False)
    if "-----BEGIN CERTIFICATE" not in done.stdout:
        said = (done.stderr.strip().splitlines() or ["it sent none"])[0]
        raise PkiError(f"{connect}: no certificate: {said[:200]}", fix="check host, port, and that it speaks TLS")
    try:
        return x509.load_pem_x509_certificates(done.stdout.encode())
    except ValueError:
        raise PkiError(f"{connect}: what it sends as its chain cannot be parsed") from None


def system_roots() -> list[x509.Certificate]:
    """Return what the machine trusts; a bundle that cannot be parsed counts as empty."""
    bundle = next((path for path in SYSTEM_BUNDLES if path.is_file()), None)
    if bundle is None:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # some public roots are older than the rules
        try:
            return x509.load_pem_x509_certificates(read_bounded(bundle, 16 * 1024 * 1024))
        except ValueError:
            return []
