"""Programs and people: tokens, issue, renew, rekey, revoke, bootstrap, against a real step-ca and nginx."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Pki
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12

from stepca_pki.certificates import fingerprint
from stepca_pki.enrol.leaf import Pair, finish, key_pem, make_key
from stepca_pki.home import Home
from stepca_pki.values import KeyType

SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture
def served(home: Home, pki: Pki) -> Home:
    """A running CA with a JWK provisioner."""
    assert 0 == pki("apply").returncode
    assert 0 == pki("up", "--detach").returncode
    done = pki("provisioner", "add", "jwk", "programs", "--max-tls", "48h")
    assert 0 == done.returncode, done.stderr
    return home


def pair(tmp_path: Path, name: str = "db1") -> tuple[Path, Path]:
    return tmp_path / f"{name}.crt", tmp_path / f"{name}.key"


def issue(pki: Pki, tmp_path: Path, name: str, *more: str | Path) -> tuple[Path, Path]:
    certificate, key = pair(tmp_path, name)
    done = pki("cert", "issue", name, "--cert", certificate, "--key", key, *more)
    assert 0 == done.returncode, done.stderr
    return certificate, key


def leaf(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(path.read_bytes())[0]


def url(home: Home) -> str:
    return "https://" + json.loads(home.ca_json.read_text())["address"]


def test_a_program_gets_a_leaf_with_its_names(served: Home, pki: Pki, tmp_path: Path):
    certificate, key = issue(pki, tmp_path, "db1", "--san", "db1.int.example", "--san", "10.0.0.5", "--lifetime", "36h")

    names = leaf(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["db1.int.example"]
    assert key.stat().st_mode & 0o777 == 0o600
    chain = x509.load_pem_x509_certificates(certificate.read_bytes())
    assert 2 == len(chain)
    verify = ["openssl", "verify", "-CAfile", served.root_certificate, "-untrusted", certificate, certificate]
    subprocess.run(verify, check=True, capture_output=True)


def test_nothing_is_overwritten(served: Home, pki: Pki, tmp_path: Path):
    certificate, key = issue(pki, tmp_path, "db1")
    before = key.read_bytes()

    done = pki("cert", "issue", "db1", "--cert", certificate, "--key", key)

    assert done.returncode != 0
    assert "not overwritten" in done.stderr
    assert key.read_bytes() == before


def test_the_private_key_of_the_provisioner_is_shown_to_nobody(served: Home):
    private = json.loads(served.provisioner_key("programs").read_text())["d"]
    shown = subprocess.run(
        ["curl", "--silent", "--cacert", served.root_certificate, f"{url(served)}/provisioners"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip

    assert "programs" in shown
    assert private not in shown
    assert "encryptedKey" not in shown
    assert private not in served.ca_json.read_text()
    assert served.provisioner_key("programs").stat().st_mode & 0o777 == 0o600


def test_a_machine_with_a_fingerprint_and_a_token_enrols(served: Home, pki: Pki, tmp_path: Path):
    elsewhere = {"PKI_HOME": str(tmp_path / "none"), "PKI_CLIENT": str(tmp_path / "client")}
    token = tmp_path / "token"
    assert 0 == pki("token", "web2.int.example", "--write", token).returncode
    assert token.stat().st_mode & 0o777 == 0o600

    done = pki(
        "bootstrap", "--ca-url", url(served), "--fingerprint", fingerprint(served.root_certificate),
        environment=elsewhere,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    certificate, key = pair(tmp_path, "web2")
    words = ("cert", "issue", "web2.int.example", "--token-file", token, "--cert", certificate, "--key", key)
    done = pki(*words, environment=elsewhere)
    assert 0 == done.returncode, done.stderr
    assert key.exists()

    again = pki(*words[:-3], tmp_path / "x.crt", "--key", tmp_path / "x.key", environment=elsewhere)
    assert again.returncode != 0  # a token is for one time


def test_another_fingerprint_is_refused_and_nothing_kept(served: Home, pki: Pki, tmp_path: Path):
    elsewhere = {"PKI_CLIENT": str(tmp_path / "client")}

    done = pki("bootstrap", "--ca-url", url(served), "--fingerprint", "00" * 32, environment=elsewhere)

    assert 1 == done.returncode
    assert not (tmp_path / "client").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("token", "x", "--lifetime", "2h"), "at most 1h"),
        (("token", "x", "--for", "all"), "sign, revoke"),
        (("token", "x", "--provisioner", "absent"), "programs"),
        (("cert", "issue", "x", "--key-type", "Ed25519"), "P-256"),
        (("cert", "revoke", "nonsense"), "neither a file nor a serial"),
        (("cert", "revoke", "1", "--reason", "mood"), "the reasons are"),
        (("bootstrap", "--ca-url", "http://x", "--fingerprint", "00" * 32), "https://HOST:PORT"),
        (("bootstrap", "--ca-url", "https://x", "--fingerprint", "abc"), "64 hex"),
    ],
)
def test_what_cannot_be_meant_is_refused(served: Home, pki: Pki, words: tuple[str, ...], said: str):
    done = pki(*words)

    assert 2 == done.returncode
    assert said in done.stderr


def test_renew_keeps_the_key_and_rekey_does_not(served: Home, pki: Pki, tmp_path: Path):
    certificate, key = issue(pki, tmp_path, "db1")
    first, first_key = leaf(certificate), key.read_bytes()

    done = pki("cert", "renew", certificate, key, "--exec", f"touch {tmp_path}/reloaded")
    assert 0 == done.returncode, done.stderr
    renewed = leaf(certificate)
    assert renewed.serial_number != first.serial_number
    assert renewed.public_key() == first.public_key()
    assert (tmp_path / "reloaded").exists()

    done = pki("cert", "rekey", certificate, key, "--key-type", "P-384")
    assert 0 == done.returncode, done.stderr
    assert leaf(certificate).public_key() != first.public_key()
    assert key.read_bytes() != first_key
    assert not Pair(certificate, key).next_key.exists()
    context = ssl.create_default_context(cafile=served.root_certificate)
    context.load_cert_chain(certificate, key)  # they belong together


def test_what_is_not_due_is_not_renewed(served: Home, pki: Pki, tmp_path: Path):
    certificate, key = issue(pki, tmp_path, "db1")
    before = certificate.read_bytes()

    done = pki("cert", "renew", certificate, key, "--if-due")

    assert "not due" in done.stdout
    assert certificate.read_bytes() == before


def test_without_the_ca_the_old_leaf_stays(served: Home, pki: Pki, tmp_path: Path):
    certificate, key = issue(pki, tmp_path, "db1")
    before = certificate.read_bytes()
    assert 0 == pki("down").returncode

    for words in (("renew",), ("rekey",)):
        done = pki("cert", *words, certificate, key)
        assert 1 == done.returncode
        assert "no answer" in done.stderr
    assert certificate.read_bytes() == before

    assert 0 == pki("up", "--detach").returncode
    assert 0 == pki("cert", "renew", certificate, key).returncode


def test_a_rekey_that_was_cut_off_is_finished(served: Home, pki: Pki, tmp_path: Path):
    """Once after the certificate was replaced (the new key is taken), once before (it goes away)."""
    certificate, key = issue(pki, tmp_path, "db1")
    at = Pair(certificate, key)
    key.rename(at.next_key)
    key.write_bytes(key_pem(make_key(KeyType.P256)))
    key.chmod(0o600)
    assert finish(at)
    assert 0 == pki("cert", "renew", certificate, key).returncode

    at.next_key.write_bytes(key_pem(make_key(KeyType.P256)))
    at.next_key.chmod(0o600)
    assert not finish(at)
    assert 0 == pki("cert", "renew", certificate, key).returncode


def test_a_daemon_renews_when_it_is_due(served: Home, pki: Pki, tmp_path: Path):
    """step-ca's shortest leaf lives 5 min: the clock of the daemon is put forward, past two thirds of that."""
    assert 0 == pki("provisioner", "add", "jwk", "short", "--default-tls", "5m", "--max-tls", "5m").returncode
    certificate, key = issue(pki, tmp_path, "db1", "--provisioner", "short")
    first = leaf(certificate).serial_number
    process = subprocess.Popen(
        ["faketime", "-f", "+255s", sys.executable, "-m", "stepca_pki", "cert", "renew", certificate, key, "--daemon"],
        env={**os.environ, "PKI_HOME": str(served.path)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while leaf(certificate).serial_number == first and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        said = process.communicate(timeout=20)[0].decode()
    assert leaf(certificate).serial_number != first, said


@pytest.mark.parametrize("by", ["serial", "file", "own key"])
def test_a_revoked_leaf_is_not_renewed(served: Home, pki: Pki, tmp_path: Path, by: str):
    certificate, key = issue(pki, tmp_path, "db1", "--provisioner", "programs")
    target = hex(leaf(certificate).serial_number) if by == "serial" else str(certificate)

    done = pki("cert", "revoke", target, "--reason", "superseded", *(("--key", key) if by == "own key" else ()))
    assert 0 == done.returncode, done.stderr

    done = pki("cert", "renew", certificate, key)
    assert 1 == done.returncode
    assert "Traceback" not in done.stderr


def test_a_p12_opens_with_its_password(served: Home, pki: Pki, tmp_path: Path):
    password = tmp_path / "password"
    password.write_text("pässword\n")
    password.chmod(0o600)
    issue(pki, tmp_path, "alice@int.example", "--p12", tmp_path / "a.p12", "--p12-password-file", password)

    key, certificate, more = pkcs12.load_key_and_certificates((tmp_path / "a.p12").read_bytes(), "pässword".encode())

    assert key is not None
    assert certificate is not None
    assert 1 == len(more)
    assert (tmp_path / "a.p12").stat().st_mode & 0o777 == 0o600


@pytest.fixture
def mtls(served: Home, pki: Pki, tmp_path: Path, free_port: Callable[[], int]) -> Iterator[str]:
    """nginx that wants a client certificate of our CA."""
    certificate, key = issue(pki, tmp_path, "localhost")
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {tmp_path}/scratch; " for kind in kinds)
    (tmp_path / "nginx.conf").write_text(
        f"{user} daemon off; pid {tmp_path}/pid; error_log {tmp_path}/log; events {{}} http {{ {temporary} access_log off;"
        f" server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};"
        f" ssl_client_certificate {served.root_certificate}; ssl_verify_client on; ssl_verify_depth 2;"
        f' location / {{ return 200 "hello $ssl_client_s_dn"; }} }} }}'
    )
    command = shutil.which("nginx", path=SBIN) or "nginx"
    process = subprocess.Popen([command, "-p", tmp_path, "-c", tmp_path / "nginx.conf"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    yield f"https://localhost:{port}/"
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=20)


def test_nginx_takes_our_clients_and_no_other_cas(mtls: str, served: Home, pki: Pki, tmp_path: Path):
    certificate, key = issue(pki, tmp_path, "client1")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-subj", "/CN=evil",
         "-keyout", tmp_path / "evil.key", "-out", tmp_path / "evil.crt"], check=True, capture_output=True,
    )  # fmt: skip

    def ask(*more: str | Path) -> str:
        words = ["curl", "--silent", "--cacert", served.root_certificate, *more, mtls]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=20).stdout

    assert "hello CN=client1" in ask("--cert", certificate, "--key", key)
    assert "400" in ask("--cert", tmp_path / "evil.crt", "--key", tmp_path / "evil.key")
    assert "400" in ask()


def test_a_token_has_every_limit(served: Home, pki: Pki):
    minted = pki("token", "db1", "--san", "db1.int.example").stdout.strip()
    claims = json.loads(base64.urlsafe_b64decode(minted.split(".")[1] + "=="))

    assert {"exp", "nbf", "iat", "aud", "jti", "sub", "sans", "iss"} <= set(claims)
    assert claims["sans"] == ["db1.int.example"]
    assert claims["exp"] - claims["iat"] == 300
    assert claims["aud"].endswith("/1.0/sign")
    assert len(claims["jti"]) >= 64


def test_a_token_is_bound_to_one_request(served: Home, pki: Pki, tmp_path: Path):
    """A token for a name gives no certificate for another: step-ca takes the names from the token."""
    token = tmp_path / "token"
    assert 0 == pki("token", "good.example", "--write", token).returncode
    certificate, key = pair(tmp_path, "x")

    done = pki("cert", "issue", "evil.example", "--token-file", token, "--cert", certificate, "--key", key)

    if done.returncode == 0:
        names = leaf(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["good.example"]
    else:
        assert not certificate.exists()
