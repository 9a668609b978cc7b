"""What the root signed, in OpenSSL's own format, so that OpenSSL alone can take over.

    index.txt index.txt.attr   the database of `openssl ca`
    certs/<SERIAL>.pem         new_certs_dir: every certificate, whole
    crlnumber serial           the next CRL number; a serial for OpenSSL's own use (ours are random)
    openssl.cnf                what `openssl ca -config` wants

A signed certificate is written to certs/ before its row: a run cut off in between is completed by the next one.
Source: OpenSSL apps/lib/apps.c and apps/ca.c (fields, dates, one-line names).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from stepca_pki.errors import FileRefused
from stepca_pki.files import FOLDER, ensure_folder, read_bounded, write_atomic
from stepca_pki.x509.chain import spki

MAX_INDEX_BYTES = 64 * 1024 * 1024
MAX_CERTIFICATE_BYTES = 64 * 1024
_YEAR_OF_GENERALIZED_TIME = 2050  # RFC 5280 section 4.1.2.5

_SHORT_NAMES = {
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "commonName": "CN",
}


@dataclass(frozen=True)
class Entry:
    """One row. *status* is V, R or E; *revoked* is OpenSSL's revocation field, empty if it is not revoked."""

    status: str
    expires: str
    revoked: str
    serial: str
    file: str
    subject: str

    def line(self) -> str:
        fields = (self.status, self.expires, self.revoked, self.serial, self.file, self.subject)
        return "\t".join(field.replace("\t", "\\\t") for field in fields) + "\n"


class Register:
    """The register in *folder*, which must exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def index(self) -> Path:
        return self.folder / "index.txt"

    @property
    def certificates(self) -> Path:
        return self.folder / "certs"

    @property
    def crl_number(self) -> Path:
        return self.folder / "crlnumber"

    def prepare(self) -> None:
        """Make the files that OpenSSL expects, where missing."""
        ensure_folder(self.certificates, FOLDER)
        first = {
            self.index: "",
            self.folder / "index.txt.attr": "unique_subject = no\n",
            self.crl_number: "01\n",
            self.folder / "serial": "01\n",
            self.folder / "openssl.cnf": _OPENSSL_CNF,
        }
        for path, text in first.items():
            if not path.exists():
                write_atomic(path, text)

    def entries(self) -> tuple[Entry, ...]:
        """Return every row. Raises FileRefused with the line number of one that is not a row."""
        if not self.index.exists():
            return ()
        lines = read_bounded(self.index, MAX_INDEX_BYTES).decode().splitlines()
        return tuple(self._entry(number, line) for number, line in enumerate(lines, 1))

    def _entry(self, number: int, line: str) -> Entry:
        fields = [field.replace("\\\t", "\t") for field in re.split(r"(?<!\\)\t", line)]
        if len(fields) != 6 or fields[0] not in ("V", "R", "E") or not re.fullmatch(r"[0-9A-F]+", fields[3]):
            raise FileRefused(self.index, f"line {number} is not a row of OpenSSL's index", fix="restore the register")
        return Entry(*fields)

    def record(self, certificate: x509.Certificate) -> None:
        """Put *certificate* on record: first the whole of it, then its row. Recording twice is harmless."""
        self.prepare()
        path = self.certificates / f"{serial_hex(certificate)}.pem"
        if not path.exists():
            write_atomic(path, certificate.public_bytes(Encoding.PEM))
        self.complete()

    def complete(self) -> None:
        """Add the rows that a cut-off run left out."""
        known = {entry.serial for entry in self.entries()}
        missing = [certificate for certificate in self.all() if serial_hex(certificate) not in known]
        if missing:
            rows = [*self.entries(), *(row_of(certificate) for certificate in missing)]
            write_atomic(self.index, "".join(row.line() for row in rows))

    def all(self) -> tuple[x509.Certificate, ...]:
        """Return every recorded certificate, oldest first."""
        if not self.certificates.is_dir():
            return ()
        paths = sorted(self.certificates.glob("*.pem"))
        found = [_load(path) for path in paths]
        return tuple(sorted(found, key=lambda certificate: certificate.not_valid_before_utc))

    def find(self, subject: x509.Name, public_key: object) -> tuple[x509.Certificate, ...]:
        """Return the recorded, not revoked certificates of one subject and key, oldest first."""
        revoked = {entry.serial for entry in self.entries() if entry.status == "R"}
        wanted = spki(public_key)
        return tuple(
            certificate
            for certificate in self.all()
            if certificate.subject == subject
            and spki(certificate.public_key()) == wanted
            and serial_hex(certificate) not in revoked
        )

    def take_crl_number(self) -> int:
        """Return the next CRL number and put its successor on record first: a number is never used twice."""
        self.prepare()
        text = read_bounded(self.crl_number, 64).decode().strip()
        if not re.fullmatch(r"[0-9A-Fa-f]{1,40}", text):
            raise FileRefused(self.crl_number, "is not a hexadecimal number", fix="restore the register")
        number = int(text, 16)
        write_atomic(self.crl_number, f"{_even(number + 1)}\n")
        return number

    def revoked(self) -> tuple[x509.RevokedCertificate, ...]:
        """Return what belongs on the CRL. The field is 'date' or 'date,reason', as `openssl ca -revoke` writes it."""
        return tuple(_revoked(entry) for entry in self.entries() if entry.status == "R")


def serial_hex(certificate: x509.Certificate) -> str:
    return _even(certificate.serial_number)


def _even(number: int) -> str:
    """OpenSSL's form of a number: upper-case hex of even length."""
    digits = f"{number:X}"
    return digits.zfill(len(digits) + len(digits) % 2)


def row_of(certificate: x509.Certificate) -> Entry:
    expires = index_time(certificate.not_valid_after_utc)
    return Entry("V", expires, "", serial_hex(certificate), "unknown", one_line(certificate.subject))


def index_time(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%SZ" if moment.year >= _YEAR_OF_GENERALIZED_TIME else "%y%m%d%H%M%SZ")


def parse_index_time(text: str) -> datetime:
    return datetime.strptime(
        text.removesuffix("Z") + "+0000", "%Y%m%d%H%M%S%z" if len(text) == 15 else "%y%m%d%H%M%S%z"
    )


def one_line(name: x509.Name) -> str:
    """Return *name* as X509_NAME_oneline does: /TYPE=value, with bytes outside printable ASCII as \\xHH."""
    parts = []
    for attribute in name:
        kind = _SHORT_NAMES.get(attribute.oid._name, attribute.oid._name)
        value = attribute.value if isinstance(attribute.value, bytes) else attribute.value.encode()
        parts.append(f"/{kind}=" + "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02X}" for byte in value))
    return "".join(parts)


_REASONS = {
    "unspecified": x509.ReasonFlags.unspecified,
    "keyCompromise": x509.ReasonFlags.key_compromise,
    "CACompromise": x509.ReasonFlags.ca_compromise,
    "affiliationChanged": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessationOfOperation": x509.ReasonFlags.cessation_of_operation,
}


def _revoked(entry: Entry) -> x509.RevokedCertificate:
    date, _, reason = entry.revoked.partition(",")
    builder = x509.RevokedCertificateBuilder(int(entry.serial, 16), parse_index_time(date))
    flag = _REASONS.get(reason.partition(",")[0], x509.ReasonFlags.unspecified)
    if flag is not x509.ReasonFlags.unspecified:  # RFC 5280 section 5.3.1: leave "unspecified" out
        builder = builder.add_extension(x509.CRLReason(flag), critical=False)
    return builder.build()


def _load(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read_bounded(path, MAX_CERTIFICATE_BYTES))
    except ValueError:
        raise FileRefused(path, "is not a whole PEM certificate", fix="restore the register from backup") from None


_OPENSSL_CNF = """\
# For OpenSSL alone, should it have to take over: run it in this folder.
#   openssl ca -config openssl.cnf -status SERIAL
#   openssl ca -config openssl.cnf -gencrl -keyfile ... -out ../crl/root.crl
[ca]
default_ca = root
[root]
dir = .
certificate = ../certs/root.crt
database = $dir/index.txt
new_certs_dir = $dir/certs
serial = $dir/serial
crlnumber = $dir/crlnumber
default_md = sha384
default_days = 1825
default_crl_days = 180
policy = policy
x509_extensions = intermediate
copy_extensions = none
unique_subject = no
[policy]
commonName = supplied
organizationName = optional
organizationalUnitName = optional
localityName = optional
stateOrProvinceName = optional
countryName = optional
[intermediate]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""
