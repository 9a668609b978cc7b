"""The root's register: OpenSSL's own format, whole after a crash."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from stepca_pki.ceremony.register import Entry, Register, index_time, one_line, parse_index_time, serial_hex
from stepca_pki.ceremony.signing import issue_crl, sign_root
from stepca_pki.errors import FileRefused
from stepca_pki.x509.names import SubjectParts, name_of
from stepca_pki.x509.profiles import RootProfile

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register(tmp_path)


def signed(register: Register, name: str = "Root", days: int = 100) -> x509.Certificate:
    return sign_root(register, RootProfile(name_of(SubjectParts(name)), timedelta(days=days), 1), KEY, NOW)


def test_what_is_signed_is_on_record(register: Register):
    certificate = signed(register)

    (entry,) = register.entries()
    assert (entry.status, entry.serial, entry.subject) == ("V", serial_hex(certificate), "/CN=Root")
    assert register.all() == (certificate,)


def test_signing_again_gives_the_same_certificate(register: Register):
    assert signed(register) == signed(register)
    assert len(register.entries()) == 1


def test_a_row_that_a_crash_left_out_is_added(register: Register):
    certificate = signed(register)
    register.index.write_text("")

    register.complete()

    assert [serial_hex(certificate)] == [entry.serial for entry in register.entries()]


@pytest.mark.parametrize(
    "line", ["V\t", "V\tx\t\tNOTHEX\tunknown\t/CN=x", "nonsense", "V\t2\t\t0A\tunknown\t/CN=a\tb\tc"]
)
def test_a_row_that_is_none_is_named_by_its_line(register: Register, line: str):
    signed(register)
    with register.index.open("a") as file:
        file.write(line + "\n")

    with pytest.raises(FileRefused, match="line 2"):
        register.entries()


def test_a_half_certificate_on_record_is_refused(register: Register):
    certificate = signed(register)
    path = register.certificates / f"{serial_hex(certificate)}.pem"
    path.write_bytes(path.read_bytes()[:100])

    with pytest.raises(FileRefused, match="not a whole PEM certificate"):
        register.complete()


def test_crl_numbers_are_never_used_twice(register: Register):
    root = signed(register)

    numbers = [
        issue_crl(register, root, KEY, NOW, timedelta(days=1)).extensions.get_extension_for_class(x509.CRLNumber).value
        for _ in range(3)
    ]

    assert [1, 2, 3] == [number.crl_number for number in numbers]


def test_what_openssl_revoked_is_on_the_crl(register: Register):
    root = signed(register)
    line = register.index.read_text().replace("V\t", "R\t", 1).replace("Z\t\t", "Z\t260101000000Z,keyCompromise\t")
    register.index.write_text(line)

    (revoked,) = list(issue_crl(register, root, KEY, NOW, timedelta(days=1)))

    assert revoked.serial_number == root.serial_number
    assert revoked.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)))
def test_every_date_comes_back(moment: datetime):
    whole = moment.replace(microsecond=0, tzinfo=UTC)

    assert parse_index_time(index_time(whole)) == whole


def test_dates_from_2050_have_four_digits():
    assert index_time(datetime(2050, 1, 1, tzinfo=UTC)) == "20500101000000Z"
    assert index_time(datetime(2049, 12, 31, tzinfo=UTC)) == "491231000000Z"


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=16))
def test_any_name_is_one_ascii_line(text: str):
    line = one_line(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]))

    assert line.isascii()
    assert "\n" not in line
    assert "\t" not in line


@given(subject=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_a_row_comes_back_as_it_was(subject: str, tmp_path_factory: pytest.TempPathFactory):
    register = Register(tmp_path_factory.mktemp("register"))
    entry = Entry("V", "260101000000Z", "", "0A", "unknown", "/CN=" + subject.replace("\\", ""))
    register.index.write_text(entry.line())

    assert register.entries() == (entry,)
