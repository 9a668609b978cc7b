"""All that step-ca does not check before it starts. Each fault is an error with its fix; nothing is changed."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from stepca_pki.config.model import Authority, Badger
from stepca_pki.config.tokens import token_of
from stepca_pki.errors import CertificateRefused, FileRefused, PkiError, StepCaError
from stepca_pki.files import read_bounded, write_atomic
from stepca_pki.home import Home
from stepca_pki.hsm.token import open_token
from stepca_pki.observe import MAX_GENERATED_BYTES, render_now
from stepca_pki.runtime.processes import holder_of_port
from stepca_pki.stepca.canary import certificate_at
from stepca_pki.values import split_address
from stepca_pki.x509.chain import check_ca_chain

CLOCK_TOLERANCE = timedelta(minutes=5)


def check_all(home: Home, authority: Authority, *, now: datetime | None = None) -> None:
    """Raise the first fault that would make a start fail or, worse, serve what is wrong."""
    now = now or datetime.now(UTC)
    check_clock(home, now)
    check_configuration(home, authority)
    check_certificates(home, now)
    check_key(home, authority)
    check_database(home, authority)
    check_ports(authority)


def check_reload(home: Home, authority: Authority) -> None:
    """What has to hold before a running step-ca is told to take its configuration anew."""
    now = datetime.now(UTC)
    check_clock(home, now)
    check_configuration(home, authority)
    check_certificates(home, now)
    check_key(home, authority)


def check_clock(home: Home, now: datetime) -> None:
    """A clock that jumped back makes leaves that are not valid yet, and revives one-time tokens."""
    last = last_seen(home)
    if last is not None and now < last - CLOCK_TOLERANCE:
        raise PkiError(
            f"the clock says {now:%Y-%m-%d %H:%M} UTC, but this authority was at work at {last:%Y-%m-%d %H:%M} UTC",
            fix=f"set the clock; if it was wrong before and is right now, remove {clock_file(home)}",
        )


def clock_file(home: Home) -> os.PathLike[str]:
    return home.state / "last-seen"


def last_seen(home: Home) -> datetime | None:
    with suppress(FileRefused, ValueError):
        return datetime.fromisoformat(read_bounded(home.state / "last-seen", 64).decode().strip())
    return None


def remember_clock(home: Home) -> None:
    """Put the present time on record, unless a later one is there."""
    now, last = datetime.now(UTC), last_seen(home)
    if last is None or now > last:
        write_atomic(home.state / "last-seen", now.isoformat(timespec="seconds") + "\n", 0o600)


def check_configuration(home: Home, authority: Authority) -> None:
    """ca.json must be what pki.yaml means: step-ca would ignore what it does not know."""
    for path in (home.root_certificate, home.intermediate_certificate, home.ca_json, home.canary_key):
        if not path.is_file():
            raise FileRefused(path, "is missing", fix="run 'pki apply'")
    if read_bounded(home.ca_json, MAX_GENERATED_BYTES).decode(errors="replace") != render_now(authority, home):
        raise FileRefused(
            home.ca_json,
            "is not what pki.yaml declares: one of them was changed since the last apply",
            fix="run 'pki plan' to see the difference, 'pki apply' to write it anew",
        )


def check_certificates(home: Home, now: datetime) -> None:
    check_ca_chain(certificate_at(home.root_certificate), certificate_at(home.intermediate_certificate), now)


def check_key(home: Home, authority: Authority) -> None:
    """Log in and sign, in a process of its own: PIN, token, key, and that the key is the certificate's."""
    declared = authority.intermediate.key
    certificate = certificate_at(home.intermediate_certificate)
    with open_token(token_of(home, authority, "intermediate")) as token:
        key = token.key(declared.label, declared.id)
        if key.public_key() != certificate.public_key():
            raise CertificateRefused(
                f"{home.intermediate_certificate} is for another key than '{declared.label}' on the token",
                fix="run 'pki plan': it says what can be done",
            )
        if isinstance(key, ec.EllipticCurvePrivateKey):
            key.sign(b"preflight", ec.ECDSA(hashes.SHA256()))  # verified by the signer
        else:
            key.sign(b"preflight", padding.PKCS1v15(), hashes.SHA256())


def check_database(home: Home, authority: Authority) -> None:
    """Badger locks its folder with flock(2): step-ca would die on it, or find another CA's data in use."""
    if not isinstance(authority.server.database, Badger):
        return
    try:
        descriptor = os.open(home.database, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise FileRefused(home.database, error.strerror or str(error), fix="run 'pki apply'") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise StepCaError(
            f"another step-ca has the database {home.database} open",
            fix="stop it first: 'pki down', or by its process id",
        ) from None
    finally:
        os.close(descriptor)


def check_ports(authority: Authority) -> None:
    """With Badger, step-ca hangs without a word on a taken port."""
    server = authority.server
    for address in filter(None, (server.address, server.insecure_address, server.metrics_address)):
        host, port = split_address(address)
        family = socket.AF_INET6 if ":" in host or not host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host or "::", port))
            except OSError as error:
                raise _bind_fault(address, port, error) from None


def _bind_fault(address: str, port: int, error: OSError) -> StepCaError:
    import errno

    if error.errno == errno.EADDRINUSE:
        return StepCaError(
            f"{address}: the port is taken by {holder_of_port(port)}", fix="stop it, or declare another server.address"
        )
    if error.errno == errno.EACCES:
        return StepCaError(f"{address}: this user may not bind port {port}", fix="choose a port above 1023")
    return StepCaError(f"{address}: cannot be bound: {error.strerror}", fix="declare an address of this machine")
