"""Each ACME client of the recipes, for real: first certificate, reload, renewal, against nginx."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Pki
from cryptography import x509

from stepca_pki.config.edit import new_file
from stepca_pki.home import Home

SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"
NAME = "localhost"

# acme.sh is in no Debian package; PKI_TEST_ACME_SH names a copy to test with.
ACME_SH = os.environ.get("PKI_TEST_ACME_SH")
CLIENTS = ["certbot", "lego", *(["acme.sh"] if ACME_SH else [])]


class Site:
    """A folder with nginx in front of it."""

    def __init__(self, folder: Path, http: int, https: int) -> None:
        self.folder, self.http, self.https = folder, http, https
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        user = "user root;\n" if os.geteuid() == 0 else ""
        (self.folder / "scratch").mkdir()
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {self.folder}/scratch;\n" for kind in kinds)
        (self.folder / "nginx.conf").write_text(
            f"{user}daemon off;\nworker_processes 1;\npid {self.folder}/nginx.pid;\nerror_log {self.folder}/error.log;\n"
            f"events {{}}\nhttp {{ {temporary} access_log off; include {self.folder}/site.conf; }}\n"
        )
        command = shutil.which("nginx", path=SBIN) or "nginx"
        words = [command, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
        self.process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        eventually(lambda: (self.folder / "nginx.pid").exists())

    def leaf(self) -> x509.Certificate:
        """Return what is served now."""
        words = ["openssl", "s_client", "-connect", f"127.0.0.1:{self.https}", "-servername", NAME]
        done = subprocess.run(words, input="", capture_output=True, text=True, timeout=20, check=False)
        begin = done.stdout.find("-----BEGIN")
        return x509.load_pem_x509_certificate(done.stdout[begin:].encode())


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def site(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Site]:
    at = Site(tmp_path / "site", free_port(), free_port())
    yield at
    if at.process is not None:
        at.process.send_signal(signal.SIGTERM)
        at.process.wait(timeout=20)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_gets_and_renews_a_certificate(
    home: Home, pki: Pki, site: Site, client: str, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
):
    home.config.write_text(new_file(name="ACME CA", address=f"127.0.0.1:{free_port()}", acme_http_port=site.http))
    assert 0 == pki("apply").returncode
    assert 0 == pki("up", "--detach").returncode
    if ACME_SH:
        monkeypatch.setenv("PATH", f"{Path(ACME_SH).parent}:{os.environ['PATH']}")
    done = pki(
        "enrol", "nginx", "--name", NAME, "--client", client, "--write", site.folder,
        "--webroot", site.folder / "acme", "--document-root", site.folder, "--listen", "127.0.0.1",
        "--http-port", str(site.http), "--https-port", str(site.https),
        "--reload", f"kill -HUP $(cat {site.folder}/nginx.pid)",
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    subprocess.run([site.folder / "first.sh"], check=True, capture_output=True)
    site.start()
    root = x509.load_pem_x509_certificate(home.root_certificate.read_bytes())
    intermediate = x509.load_pem_x509_certificate(home.intermediate_certificate.read_bytes())

    issued = run_script(site.folder / "issue.sh")
    eventually(lambda: site.leaf().issuer == intermediate.subject)
    first = site.leaf().serial_number
    page = ["curl", "--silent", "--fail", "--cacert", home.root_certificate, f"https://{NAME}:{site.https}/site.conf"]
    eventually(lambda: subprocess.run(page, capture_output=True, timeout=20, check=False).returncode == 0)
    assert root.subject == intermediate.issuer, issued

    run_script(site.folder / "renew.sh")
    eventually(lambda: site.leaf().serial_number != first)
    assert site.leaf().issuer == intermediate.subject


def run_script(path: Path) -> str:
    done = subprocess.run([path], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, f"{path.name}: {done.stdout}\n{done.stderr}"
    return done.stdout
