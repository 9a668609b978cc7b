"""Web servers, ACME clients, trust stores, explanations: real nginx, certbot, curl, NSS, Java."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Pki

from stepca_pki.apply import apply
from stepca_pki.home import Home
from stepca_pki.runtime import control

SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture
def made(home: Home) -> Home:
    apply(home)
    return home


@pytest.mark.parametrize("client", ["certbot", "acme.sh", "lego"])
@pytest.mark.parametrize("name", ["www.int.example", "10.0.0.7"])
def test_every_recipe_is_accepted_by_its_own_tools(made: Home, pki: Pki, tmp_path: Path, client: str, name: str):
    """nginx -t, sh -n and systemd-analyze read what we write."""
    folder = tmp_path / "enrol"
    done = pki("enrol", "nginx", "--name", name, "--client", client, "--write", folder, "--webroot", tmp_path / "acme")
    assert 0 == done.returncode, done.stderr
    for script in folder.glob("*.sh"):
        subprocess.run(["sh", "-n", script], check=True)
        assert 0o755 == script.stat().st_mode & 0o777
    subprocess.run([folder / "first.sh"], check=True, capture_output=True)
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        f"pid {tmp_path}/pid;\nerror_log {tmp_path}/log;\nevents {{}}\nhttp {{ include {folder}/site.conf; }}\n"
    )
    done_nginx = subprocess.run(
        [shutil.which("nginx", path=SBIN) or "nginx", "-t", "-p", tmp_path, "-c", conf],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "syntax is ok" in done_nginx.stderr, done_nginx.stderr
    if shutil.which("systemd-analyze"):
        units = list(folder.glob("pki-renew-*"))
        assert (
            0
            == subprocess.run(
                ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, check=False
            ).returncode
        )


def test_the_timer_fits_the_life_of_the_leaf(made: Home, pki: Pki):
    value = json.loads(pki("enrol", "nginx", "--name", "www.int.example", "--output", "json").stdout)
    timer = next(file["text"] for file in value["files"] if file["path"].endswith(".timer"))

    assert "OnUnitActiveSec=28800s" in timer  # a third of 24 h


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--name", "not a name"), "is not a DNS name"),
        (("--name", "x.example", "--client", "curl"), "the clients are: certbot, acme.sh, lego"),
        (("--name", "x.example", "--provisioner", "absent"), "no ACME provisioner"),
        (("--name", "x.example", "--webroot", "/tmp/a;rm -rf"), "letters, digits"),
        (("--name", "x.example", "--listen", "everywhere"), "not an IP address"),
    ],
)
def test_what_cannot_be_meant_is_refused(made: Home, pki: Pki, arguments: tuple[str, ...], words: str):
    done = pki("enrol", "nginx", *arguments)

    assert 2 == done.returncode
    assert words in done.stderr


def test_a_name_outside_the_constraints_is_refused(home: Home, pki: Pki):
    constraints = "  name_constraints: {permitted_dns: [int.example, localhost]}\n"
    home.config.write_text(home.config.read_text().replace("  lifetime: 5y\n", f"  lifetime: 5y\n{constraints}"))
    apply(home)
    done = pki("enrol", "nginx", "--name", "www.other.example")

    assert 2 == done.returncode
    assert "outside the intermediate's name constraints" in done.stderr


# --- trust ------------------------------------------------------------------------------------------


def test_trust_needs_a_confirmation(made: Home, pki: Pki, tmp_path: Path):
    done = pki("trust", "install", "--prefix", tmp_path)

    assert 2 == done.returncode
    assert "fingerprint" in done.stderr


def test_another_fingerprint_is_refused(made: Home, pki: Pki, tmp_path: Path):
    done = pki("trust", "install", "--prefix", tmp_path, "--fingerprint", "00:11")

    assert 2 == done.returncode
    assert "another fingerprint" in done.stderr


def test_an_intermediate_is_never_trusted_as_a_root(made: Home, pki: Pki, tmp_path: Path):
    done = pki("trust", "install", "--prefix", tmp_path, "--file", made.intermediate_certificate, "--yes")

    assert 1 == done.returncode
    assert "is not a root" in done.stderr


def test_the_system_store_trusts_and_forgets(made: Home, pki: Pki):
    """The real store of this machine: curl without options is the witness."""
    control.start_detached(made)
    url = f"https://{made_address(made)}/health"
    environment = {"PATH": SBIN, "CURL_CA_BUNDLE": "/etc/ssl/certs/ca-certificates.crt"}

    def curl() -> int:
        return subprocess.run(
            ["curl", "--silent", "--output", "/dev/null", url], env=environment, check=False
        ).returncode

    assert 60 == curl()
    fingerprint = json.loads(pki("trust", "show", "--output", "json").stdout)["fingerprint"].lower().replace(":", " ")
    try:
        assert "trusted now" in pki("trust", "install", "--fingerprint", fingerprint).stdout
        assert "already" in pki("trust", "install", "--yes").stdout
        assert 0 == curl()
    finally:
        assert "removed" in pki("trust", "uninstall").stdout
    assert 60 == curl()
    assert "was not there" in pki("trust", "uninstall").stdout


def made_address(home: Home) -> str:
    from stepca_pki.config.load import load

    return load(home.config).server.address


def test_nss_and_java_trust_and_forget(made: Home, pki: Pki, tmp_path: Path):
    keystore = tmp_path / "cacerts"
    for options in (
        ("--store", "nss", "--nss-database", tmp_path / "nss"),
        ("--store", "java", "--keystore", keystore),
    ):
        assert "trusted now" in pki("trust", "install", "--yes", *options).stdout
        assert "already" in pki("trust", "install", "--yes", *options).stdout
        assert "removed" in pki("trust", "uninstall", *options).stdout
        assert "was not there" in pki("trust", "uninstall", *options).stdout


def test_export_gives_pem_and_der(made: Home, pki: Pki, tmp_path: Path):
    assert made.root_certificate.read_text() == pki("trust", "export").stdout
    assert 0 == pki("trust", "export", "--format", "der", "--to", tmp_path / "root.cer").returncode
    subprocess.run(["openssl", "x509", "-inform", "der", "-in", tmp_path / "root.cer", "-noout"], check=True)
    assert 1 == pki("trust", "export", "--to", tmp_path / "root.cer").returncode  # never overwritten


# --- explanations -----------------------------------------------------------------------------------


def test_a_served_chain_is_explained(made: Home, pki: Pki):
    control.start_detached(made)
    address = made_address(made)
    port = address.rpartition(":")[2]
    value = json.loads(pki("cert", "show", f"localhost:{port}", "--output", "json").stdout)

    assert value["trusted"]
    assert ["leaf", "intermediate", "root"] == [link["kind"] for link in value["chain"]]
    other = pki("cert", "show", f"127.0.0.1:{port}", "--name", "www.bank.example", "--check")
    assert 4 == other.returncode
    assert "is not for 'www.bank.example'; it has: localhost, 127.0.0.1" in other.stdout


@pytest.fixture
def tls_server(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Callable[..., int]]:
    """`openssl s_server` with any chain."""
    running: list[subprocess.Popen[bytes]] = []

    def start(certificate: Path, key: Path) -> int:
        port = free_port()
        words = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", certificate, "-key", key, "-quiet"]
        running.append(
            subprocess.Popen(
                [str(word) for word in words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        time.sleep(0.3)
        return port

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_a_self_signed_server_is_explained(made: Home, pki: Pki, tmp_path: Path, tls_server: Callable[..., int]):
    key, certificate = tmp_path / "key", tmp_path / "cert"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-subj", "/CN=x",
                    "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True)  # fmt: skip
    done = pki("cert", "show", f"127.0.0.1:{tls_server(certificate, key)}", "--name", "localhost")

    assert 0 == done.returncode
    assert "NOT trusted" in done.stdout
    assert "self-signed" in done.stdout


@pytest.mark.parametrize(
    ("content", "words"), [("hello", "not a certificate"), ("-----BEGIN CERTIFICATE-----\nMIIB", "half-written")]
)
def test_a_file_that_is_no_certificate_is_told(home: Home, pki: Pki, tmp_path: Path, content: str, words: str):
    path = tmp_path / "x.pem"
    path.write_text(content)
    done = pki("cert", "show", path)

    assert 2 == done.returncode
    assert words in done.stderr


def test_the_demo_tells_its_story():
    """The product's face, from self-signed to trusted, with certbot and nginx."""
    script = Path(__file__).parents[2] / "scripts" / "demo.py"
    done = subprocess.run(
        [sys.executable, script, "--output", "json"], capture_output=True, text=True, timeout=240, check=False
    )
    value = json.loads(done.stdout)

    assert value["ok"], value["failure"]
    told = {step["title"]: step["outcome"] for step in value["story"]}
    assert "self-signed certificate" in told["curl refuses it"]
    assert all(f"depth={depth}" in told["The chain, from the root to the leaf"] for depth in (2, 1, 0))
    assert "everybody trusts" in told["A client that trusts only root.crt is served"]
    assert told["pki cert show explains it"].splitlines()[-1].startswith("trusted")
    shutil.rmtree(value["folder"])


def test_an_interrupted_demo_leaves_nothing_running(tmp_path: Path):
    script = Path(__file__).parents[2] / "scripts" / "demo.py"
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(" 4."):
            break
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    folder = Path(rest.strip().splitlines()[-1].rpartition(" ")[2])

    assert 1 == process.returncode
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(folder).encode() in _read(path)]
    assert [] == left
    shutil.rmtree(folder)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
