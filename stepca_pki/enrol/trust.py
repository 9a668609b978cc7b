"""Trust stores: the system's, NSS, Java.

What was installed is found again by its fingerprint, and only that is removed.

Sources: update-ca-certificates(8), update-ca-trust(8), certutil(1) of NSS, keytool(1).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from stepca_pki import commands
from stepca_pki.errors import CertificateRefused, FileRefused, PkiError, UsageError
from stepca_pki.files import PUBLIC, ensure_folder, read_bounded, write_atomic
from stepca_pki.x509.chain import is_ca, signed_by

TIMEOUT = timedelta(minutes=2)
MAX_CERTIFICATE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Anchor:
    """A root that leaf systems are to trust. *alias* is its name in stores, unique by its key."""

    certificate: x509.Certificate
    source: Path

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex(":").upper()

    @property
    def alias(self) -> str:
        return f"pki-root-{self.certificate.fingerprint(hashes.SHA256()).hex()[:16]}"

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def load_anchor(path: Path) -> Anchor:
    """Return the root in *path*; refuse what is not a root: trusting an intermediate or a leaf is a mistake."""
    try:
        certificate = x509.load_pem_x509_certificate(read_bounded(path, MAX_CERTIFICATE_BYTES))
    except ValueError:
        raise FileRefused(path, "is not a PEM certificate", fix="name root.crt of the authority") from None
    if not is_ca(certificate) or not signed_by(certificate, certificate):
        raise CertificateRefused(f"{path} is not a root: it is not a self-signed CA certificate", fix="name root.crt")
    return Anchor(certificate, path)


def same_fingerprint(given: str, anchor: Anchor) -> bool:
    """Compare as people write them: case, colons, spaces and dashes do not matter."""
    return "".join(filter(str.isalnum, given)).lower() == anchor.fingerprint.replace(":", "").lower()


@dataclass(frozen=True)
class Store:
    """A trust store. *present* tells whether the root is in it."""

    name: str
    place: str
    install: Callable[[Anchor], None]
    uninstall: Callable[[Anchor], None]
    present: Callable[[Anchor], bool]


# --- the system's ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    folder: str
    suffix: str
    update: tuple[str, ...]


_LAYOUTS = (
    _Layout("/usr/local/share/ca-certificates", ".crt", ("update-ca-certificates",)),  # Debian, Ubuntu, Alpine
    _Layout("/etc/pki/ca-trust/source/anchors", ".pem", ("update-ca-trust", "extract")),  # Fedora, RHEL
)


def system_store(prefix: Path = Path("/")) -> Store:
    """Return the system's store. Under another *prefix* only the file is placed, and nothing is updated."""
    layout = next((one for one in _LAYOUTS if _program(one.update[0])), None)
    if layout is None:
        raise PkiError("this system has no known trust store", fix="apt-get install ca-certificates")
    folder = prefix / layout.folder.lstrip("/")

    def path(anchor: Anchor) -> Path:
        return folder / f"{anchor.alias}{layout.suffix}"

    def update() -> None:
        if prefix == Path("/"):
            commands.run([_program(layout.update[0]) or layout.update[0], *layout.update[1:]], timeout=TIMEOUT)

    def install(anchor: Anchor) -> None:
        ensure_folder(folder)
        write_atomic(path(anchor), anchor.pem, PUBLIC)
        update()

    def uninstall(anchor: Anchor) -> None:
        try:
            path(anchor).unlink()
        except OSError as error:
            raise FileRefused(path(anchor), error.strerror or str(error), fix="run as root") from None
        update()

    return Store("system", str(folder), install, uninstall, lambda anchor: path(anchor).exists())


# --- NSS: Firefox, Chromium ------------------------------------------------------------------------


def nss_store(database: Path) -> Store:
    """Return the NSS database in *database* (cert9.db), made if it is missing."""
    tool = _required("certutil", "libnss3-tools")
    where = f"sql:{database}"

    def call(*arguments: str, stdin: bytes = b"", check: bool = True) -> commands.Completed:
        return commands.run([tool, *arguments, "-d", where], timeout=TIMEOUT, stdin=stdin, check=check)

    def install(anchor: Anchor) -> None:
        if not (database / "cert9.db").exists():
            ensure_folder(database, 0o700)
            call("-N", "--empty-password")
        call("-A", "-n", anchor.alias, "-t", "C,,", "-i", str(anchor.source), "-a")

    def present(anchor: Anchor) -> bool:
        return (database / "cert9.db").exists() and call("-L", "-n", anchor.alias, check=False).code == 0

    return Store("nss", str(database), install, lambda anchor: _ignore(call("-D", "-n", anchor.alias)), present)


# --- Java ------------------------------------------------------------------------------------------


def java_store(keystore: Path, password_file: Path | None) -> Store:
    """Return a Java keystore. Its password comes from a file; without one it is Java's public default."""
    tool = _required("keytool", "default-jre-headless")
    secret = ["-storepass:file", str(password_file)] if password_file else ["-storepass:env", "PKI_STOREPASS"]
    default = {} if password_file else {"PKI_STOREPASS": "changeit"}  # cacerts everywhere; it protects nothing

    def call(*arguments: str, check: bool = True) -> commands.Completed:
        argv = [tool, *arguments, "-keystore", str(keystore), *secret]
        return commands.run(argv, timeout=TIMEOUT, extra_environment=default, check=check)

    def install(anchor: Anchor) -> None:
        call("-importcert", "-noprompt", "-alias", anchor.alias, "-file", str(anchor.source))

    def present(anchor: Anchor) -> bool:
        return keystore.exists() and call("-list", "-alias", anchor.alias, check=False).code == 0

    return Store(
        "java", str(keystore), install, lambda anchor: _ignore(call("-delete", "-alias", anchor.alias)), present
    )


def default_java_keystore() -> Path:
    for place in (os.environ.get("JAVA_HOME", "") + "/lib/security/cacerts", "/etc/ssl/certs/java/cacerts"):
        if place.startswith("/") and Path(place).is_file():
            return Path(place)
    raise UsageError("Java's cacerts is not in a usual place", fix="name it with --keystore")


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


def _required(name: str, package: str) -> str:
    found = _program(name)
    if found is None:
        raise PkiError(f"{name} is not on this machine", fix=f"apt-get install {package}")
    return found


def _ignore(_done: commands.Completed) -> None:
    return None
