#!/usr/bin/env python3
"""From an empty folder to a web server that everybody trusts: the main job of pki, on real parts.

Everything happens in a throw-away folder and on free ports of loopback. `--keep` leaves it running.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PKI = [sys.executable, "-m", "stepca_pki"]
NAME = "localhost"
SBIN = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


class DemoFailed(Exception):
    """A step did not do what the story says."""


@dataclass
class Demo:
    """The folder, the ports, what runs, and what was told so far."""

    folder: Path
    as_json: bool
    story: list[dict[str, Any]] = field(default_factory=list)
    nginx: subprocess.Popen[bytes] | None = None
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "authority"

    @property
    def site(self) -> Path:
        return self.folder / "web"

    @property
    def root(self) -> Path:
        return self.home / "certs" / "root.crt"

    @property
    def url(self) -> str:
        return f"https://{NAME}:{self.ports['https']}/"

    def step(self, title: str, action: Callable[[], str]) -> None:
        """Do one step, and tell its outcome and its seconds."""
        started = time.monotonic()
        outcome = action()
        seconds = round(time.monotonic() - started, 2)
        self.story.append({"step": len(self.story) + 1, "title": title, "outcome": outcome, "seconds": seconds})
        if not self.as_json:
            indented = "\n".join(f"     {line}" for line in outcome.splitlines())
            print(f"{len(self.story):2}. {title} ({seconds:.1f} s)\n{indented}", flush=True)

    def run(self, *argv: str | Path, stdin: str = "", expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; another exit code than expected ends the demo with its words."""
        words = [str(word) for word in argv]
        environment = {**os.environ, "PATH": SBIN, "PKI_HOME": str(self.home)}
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=180, env=environment)
        if expect is not None and done.returncode != expect:
            raise DemoFailed(f"{' '.join(words[:4])} … ended with code {done.returncode}:\n{done.stdout}{done.stderr}")
        return done


def free_ports(count: int) -> list[int]:
    """Ask the kernel for free ports, all at once so that they differ."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


# --- the steps -------------------------------------------------------------------------------------


def start_nginx(demo: Demo) -> str:
    """nginx with a self-signed certificate, as an own process with everything in the demo's folder."""
    site = demo.site
    for folder in ("html", "acme", "scratch"):
        (site / folder).mkdir(parents=True)
    (site / "html" / "index.html").write_text("Hello from a server that everybody trusts.\n")
    demo.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "7",
             "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}",
             "-keyout", site / "privkey.pem", "-out", site / "fullchain.pem")  # fmt: skip
    (site / "site.conf").write_text(
        f"server {{ listen 127.0.0.1:{demo.ports['https']} ssl; server_name {NAME};\n"
        f"  ssl_certificate {site}/fullchain.pem; ssl_certificate_key {site}/privkey.pem;\n"
        f"  location / {{ root {site}/html; }} }}\n"
    )
    (site / "nginx.conf").write_text(nginx_conf(site))
    demo.run("nginx", "-t", "-p", site, "-c", site / "nginx.conf")
    command = shutil.which("nginx", path=SBIN) or "nginx"
    demo.nginx = subprocess.Popen([command, "-p", site, "-c", site / "nginx.conf"], stderr=subprocess.DEVNULL)
    wait_for_port(demo.ports["https"])
    return f"nginx (process {demo.nginx.pid}) serves {demo.url} with a certificate that it signed itself"


def nginx_conf(site: Path) -> str:
    user = "user root;\n" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"  {kind}_temp_path {site}/scratch;\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"{user}daemon off;\nworker_processes 1;\npid {site}/nginx.pid;\nerror_log {site}/error.log;\n"
        f"events {{ worker_connections 64; }}\nhttp {{\n{temporary}  access_log off;\n  include {site}/site.conf;\n}}\n"
    )


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise DemoFailed(f"nobody listens on port {port}")


def refused_by_curl(demo: Demo) -> str:
    done = demo.run("curl", "--silent", "--show-error", demo.url, expect=60)  # 60: peer certificate not verified
    return f"$ curl {demo.url}\n{done.stderr.splitlines()[0]}"


def refused_by_openssl(demo: Demo) -> str:
    done = s_client(demo, "-verify_return_error", expect=None)
    reason = next((line for line in done.stderr.splitlines() if line.startswith("verify error")), None)
    if reason is None or done.returncode == 0:
        raise DemoFailed(f"openssl accepted the self-signed certificate:\n{done.stderr}")
    return f"$ openssl s_client -connect {NAME}:{demo.ports['https']}\n{reason}"


def s_client(demo: Demo, *options: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
    where = ("-connect", f"{NAME}:{demo.ports['https']}", "-servername", NAME)
    return demo.run("openssl", "s_client", *where, *options, expect=expect)


def init(demo: Demo) -> str:
    done = demo.run(
        *PKI, "init", "--yes", "--home", demo.home, "--name", "Demo CA", "--organisation", "Demo",
        "--address", f"127.0.0.1:{demo.ports['ca']}", "--dns-name", NAME, "--dns-name", "127.0.0.1",
        "--acme-http-port", str(demo.ports["http"]), "--output", "json",
    )  # fmt: skip
    value = json.loads(done.stdout)
    keys = [line.strip() for line in done.stderr.splitlines() if "generate the" in line or "sign the" in line]
    return "\n".join([*keys, f"root fingerprint {value['fingerprint']}", f"ACME at {value['directories']['acme']}"])


def health(demo: Demo) -> str:
    value = json.loads(demo.run(*PKI, "health", "--output", "json").stdout)
    return "\n".join(f"{probe['grade']:8}{probe['probe']:14}{probe['figure']}" for probe in value["probes"][:3])


def enrol(demo: Demo) -> str:
    """Write the recipe over the hand-made site; the self-signed certificate stays until ACME brings one."""
    reload_command = f"kill -HUP $(cat {demo.site}/nginx.pid)"
    done = demo.run(
        *PKI, "enrol", "nginx", "--name", NAME, "--client", "certbot", "--write", demo.site,
        "--webroot", demo.site / "acme", "--document-root", demo.site / "html",
        "--http-port", str(demo.ports["http"]), "--https-port", str(demo.ports["https"]),
        "--listen", "127.0.0.1", "--reload", reload_command,
    )  # fmt: skip
    reload_nginx(demo)
    wait_for_port(demo.ports["http"])
    return "\n".join(line.strip() for line in done.stderr.splitlines())


def certify(demo: Demo) -> str:
    done = demo.run(demo.site / "issue.sh")
    said = [line for line in done.stdout.splitlines() if "Successfully received" in line or "saved at" in line]
    return "\n".join(["certbot, http-01:", *said])


def reload_nginx(demo: Demo) -> str:
    """Reload, and wait until the workers that still have the old certificate are gone."""
    if demo.nginx is None:
        raise DemoFailed("nginx does not run")
    old = workers(demo.nginx.pid)
    demo.nginx.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while old & workers(demo.nginx.pid):
        if time.monotonic() > deadline:
            raise DemoFailed("nginx did not reload: its old workers are still there")
        time.sleep(0.02)
    return f"SIGHUP to nginx (process {demo.nginx.pid})"


def workers(pid: int) -> set[int]:
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def chain(demo: Demo) -> str:
    """OpenSSL walks from the root that the client has (depth 2) to the leaf (depth 0)."""
    deadline = time.monotonic() + 20
    while True:
        done = s_client(demo, "-CAfile", str(demo.root), "-verify_return_error", expect=None)
        lines = [line for line in done.stderr.splitlines() if line.startswith("depth=")]
        if done.returncode == 0 and [line[:7] for line in lines] == ["depth=2", "depth=1", "depth=0"]:
            return "\n".join([f"$ openssl s_client -CAfile root.crt -connect {NAME}:{demo.ports['https']}", *lines])
        if time.monotonic() > deadline:
            raise DemoFailed(f"the chain is not what it should be:\n{done.stderr}")
        time.sleep(0.05)


def served(demo: Demo) -> str:
    done = demo.run("curl", "--silent", "--show-error", "--cacert", demo.root, demo.url)
    if "everybody trusts" not in done.stdout:
        raise DemoFailed(f"unexpected page: {done.stdout}")
    return f"$ curl --cacert root.crt {demo.url}\n{done.stdout.strip()}"


def explain(demo: Demo) -> str:
    done = demo.run(*PKI, "cert", "show", f"{NAME}:{demo.ports['https']}", "--roots", demo.root, "--check")
    lines = done.stdout.splitlines()
    return "\n".join([*(line for line in lines if line.startswith("depth")), lines[-1]])


def stop(demo: Demo) -> None:
    """Stop what was started, by process id."""
    if demo.nginx is not None and demo.nginx.poll() is None:
        demo.nginx.terminate()
        demo.nginx.wait(timeout=20)
    if (demo.home / "pki.yaml").exists():
        demo.run(*PKI, "down", "--home", demo.home, expect=None)


STORY: tuple[tuple[str, Callable[[Demo], str]], ...] = (
    ("A web server with a self-signed certificate", start_nginx),
    ("curl refuses it", refused_by_curl),
    ("OpenSSL refuses it", refused_by_openssl),
    ("pki init: root and intermediate in an HSM, the CA starts", init),
    ("pki health: a real signature through the HSM", health),
    ("pki enrol nginx: the recipe for this web server", enrol),
    ("An ACME client gets the certificate", certify),
    ("The web server reloads", reload_nginx),
    ("The chain, from the root to the leaf", chain),
    ("A client that trusts only root.crt is served", served),
    ("pki cert show explains it", explain),
)


def tell(demo: Demo, keep: bool) -> int:
    failure = None
    try:
        for title, action in STORY:
            demo.step(title, lambda action=action: action(demo))  # type: ignore[misc]
    except (DemoFailed, subprocess.TimeoutExpired, OSError) as error:
        failure = str(error)
    except KeyboardInterrupt:
        failure = "interrupted"
    if failure is not None or not keep:
        stop(demo)
    ending = {
        "ok": failure is None,
        "failure": failure,
        "folder": str(demo.folder),
        "running": keep and failure is None,
    }
    if demo.as_json:
        print(json.dumps({"story": demo.story, **ending}, indent=2))
    else:
        print(ending_text(demo, failure, keep))
    return 0 if failure is None else 1


def ending_text(demo: Demo, failure: str | None, keep: bool) -> str:
    if failure is not None:
        return f"The demo failed: {failure}\nIts files are in {demo.folder}"
    if keep and demo.nginx is not None:
        return (
            f"Left running: {demo.url} and the CA. Its files are in {demo.folder}\n"
            f"Stop it: kill {demo.nginx.pid}; {' '.join(PKI)} down --home {demo.home}"
        )
    return f"Nothing is left running. Its files are in {demo.folder}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keep", action="store_true", help="leave the CA and the web server running")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    demo = Demo(Path(tempfile.mkdtemp(prefix="pki-demo-")), options.output == "json")
    demo.ports = dict(zip(("ca", "http", "https"), free_ports(3), strict=True))
    return tell(demo, options.keep)


if __name__ == "__main__":
    raise SystemExit(main())
