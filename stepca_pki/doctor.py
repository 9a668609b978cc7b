"""What this machine has and lacks, and the command that brings what is missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from stepca_pki import commands
from stepca_pki.errors import PkiError
from stepca_pki.hsm.modules import find_module
from stepca_pki.stepca.binary import find_step_ca

_MANAGERS = {"apt-get": "apt-get install", "dnf": "dnf install", "apk": "apk add", "brew": "brew install"}


@dataclass(frozen=True)
class Need:
    """Something that pki uses: *why* in a few words, *packages* by package manager where names differ."""

    name: str
    why: str
    required: bool
    found: Callable[[], str | None]
    packages: dict[str, str]
    command: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    name: str
    why: str
    required: bool
    detail: str | None
    """Where it is, None if it is missing."""
    remedy: str | None


def examine_machine() -> tuple[Diagnosis, ...]:
    """Look for everything that pki uses. Reads only."""
    return tuple(_diagnose(need) for need in _NEEDS)


def _diagnose(need: Need) -> Diagnosis:
    detail = need.found()
    remedy = None if detail is not None else need.command or install_command(need.packages)
    return Diagnosis(need.name, need.why, need.required, detail, remedy)


def install_command(packages: dict[str, str]) -> str:
    """Return the command of this machine's package manager."""
    manager = next((name for name in _MANAGERS if shutil.which(name)), "apt-get")
    return f"{_MANAGERS[manager]} {packages.get(manager, packages['apt-get'])}"


def _program(*names: str) -> Callable[[], str | None]:
    return lambda: next((path for name in names if (path := shutil.which(name, path=_wide_path())) is not None), None)


def _wide_path() -> str:
    """Servers are in sbin, which an ordinary user's PATH leaves out."""
    return f"{commands.environment().get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


def _softhsm() -> str | None:
    try:
        return str(find_module("softhsm2"))
    except PkiError:
        return None


def _step_ca() -> str | None:
    try:
        found = find_step_ca()
    except PkiError:
        return None
    return f"{found.path} ({found.version}, with PKCS#11)"


def _openssl() -> str | None:
    path = shutil.which("openssl")
    if path is None:
        return None
    return f"{path} ({commands.run([path, 'version'], timeout=timedelta(seconds=10)).stdout.split('(')[0].strip()})"


def _same(name: str) -> dict[str, str]:
    return {"apt-get": name}


_NEEDS = (
    Need(
        "softhsm2",
        "the embedded default for keys",
        True,
        _softhsm,
        {**_same("softhsm2"), "dnf": "softhsm", "apk": "softhsm", "brew": "softhsm"},
    ),
    Need("step-ca", "the CA itself, built with PKCS#11", True, _step_ca, {"apt-get": ""}, "pki stepca install"),
    Need("openssl", "explaining served chains", True, _openssl, _same("openssl")),
    Need(
        "C compiler",
        "building step-ca",
        False,
        _program("gcc", "clang"),
        {**_same("gcc libc6-dev"), "dnf": "gcc", "apk": "gcc musl-dev"},
    ),
    Need(
        "Go",
        "building step-ca; fetched by 'pki stepca install' where missing",
        False,
        _program("go"),
        {**_same("golang"), "apk": "go", "brew": "go"},
    ),
    Need("setpriv", "ending step-ca when its supervisor is killed", False, _program("setpriv"), _same("util-linux")),
    Need("nginx", "a web server for 'pki enrol'", False, _program("nginx"), _same("nginx")),
    Need("certbot", "an ACME client for 'pki enrol'", False, _program("certbot"), _same("certbot")),
    Need(
        "certutil",
        "NSS trust stores (Firefox, Chromium)",
        False,
        _program("certutil"),
        {**_same("libnss3-tools"), "dnf": "nss-tools", "apk": "nss-tools", "brew": "nss"},
    ),
    Need(
        "keytool",
        "Java trust stores",
        False,
        _program("keytool"),
        {**_same("default-jre-headless"), "dnf": "java-latest-openjdk-headless", "apk": "openjdk21-jre-headless"},
    ),
)
