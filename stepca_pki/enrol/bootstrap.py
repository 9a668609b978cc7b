"""Machines that hold only a fingerprint: fetch the root, check it, remember where the CA is."""

from __future__ import annotations

import json
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from urllib3.exceptions import InsecureRequestWarning

from stepca_pki.errors import CertificateRefused, StepCaError, UsageError
from stepca_pki.files import ensure_folder, read_bounded, write_atomic
from stepca_pki.stepca.api import TIMEOUT_SECONDS, Api

MAX_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Known:
    """A CA that this machine knows: its address, and its root in a file."""

    url: str
    root: Path


def client_folder() -> Path:
    """Return where a client remembers its CA: PKI_CLIENT, else XDG_CONFIG_HOME/stepca-pki."""
    if chosen := os.environ.get("PKI_CLIENT"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "stepca-pki"


def known_ca(folder: Path) -> Known | None:
    """Return the CA of an earlier bootstrap."""
    path = folder / "ca.json"
    if not path.is_file():
        return None
    try:
        return Known(str(json.loads(read_bounded(path, 4096))["url"]), folder / "root.crt")
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path} is not what 'pki bootstrap' wrote", fix="run 'pki bootstrap' again") from None


def bootstrap(url: str, fingerprint: str, folder: Path) -> Known:
    """Fetch the root whose SHA-256 is *fingerprint*, and prove that the CA answers under it.

    The first request cannot know whom it asks; what it brings is used only if its digest is the one that was given.
    """
    wanted = re.sub(r"[:\s-]", "", fingerprint).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", wanted):
        raise UsageError("the fingerprint is not a SHA-256: 64 hex digits", fix="'pki trust show' on the CA prints it")
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/"):
        raise UsageError(f"{url} is not the address of a CA", fix="write https://HOST:PORT")
    root = _checked(_fetch(f"https://{parts.netloc}/root/{wanted}"), wanted)
    ensure_folder(folder)
    write_atomic(folder / "root.crt", root.public_bytes(Encoding.PEM))
    known = Known(f"https://{parts.netloc}", folder / "root.crt")
    with Api.remote(known.url, known.root) as api:
        api.health()
    write_atomic(folder / "ca.json", json.dumps({"url": known.url}) + "\n")
    return known


def _fetch(url: str) -> bytes:
    with requests.Session() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore", InsecureRequestWarning)
        session.trust_env = False
        try:
            answer = session.get(url, verify=False, timeout=TIMEOUT_SECONDS, allow_redirects=False, stream=True)
            data = answer.raw.read(MAX_ANSWER_BYTES + 1, decode_content=True)
        except requests.exceptions.RequestException as error:
            problem = f"{url}: no answer ({type(error).__name__})"
            raise StepCaError(problem, fix="check the address, and that the CA runs") from None
    if answer.status_code == 404:
        raise CertificateRefused(f"{url}: the CA there has no root of this fingerprint", fix="check both")
    if answer.status_code != 200 or len(data) > MAX_ANSWER_BYTES:
        raise StepCaError(f"{url}: answers {answer.status_code}, not with a root certificate")
    return bytes(data)


def _checked(data: bytes, wanted: str) -> x509.Certificate:
    try:
        root = x509.load_pem_x509_certificate(str(json.loads(data)["ca"]).encode())
    except (ValueError, KeyError, TypeError):
        raise StepCaError("what was fetched is not a certificate") from None
    if root.fingerprint(hashes.SHA256()).hex() != wanted:
        raise CertificateRefused("what was fetched is another certificate than the fingerprint names; it is not used")
    return root
