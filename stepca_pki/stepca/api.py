"""step-ca's HTTP API, pinned to our root. Every answer is checked for status and shape.

Source: smallstep/certificates api/ and ca/ca.go at v0.30.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from stepca_pki.config.model import Authority
from stepca_pki.errors import StepCaError
from stepca_pki.home import Home
from stepca_pki.values import go_duration, split_address

TIMEOUT_SECONDS = (3.05, 20)
"""To connect; to wait for an answer (step-ca's own write timeout is 15 s)."""
MAX_PAGES = 100
PAGE = 100


class Unreachable(StepCaError):
    """Nobody answers there (yet)."""


@dataclass(frozen=True)
class ProvisionerState:
    """A provisioner as the running CA has it. *fault* is why step-ca disabled it, None if it did not."""

    name: str
    type: str
    fault: str | None


class _PinnedName(HTTPAdapter):
    """Connect to an address, and expect the certificate of a name: the CA may listen on any interface."""

    def __init__(self, name: str) -> None:
        self._name = name
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, server_hostname=self._name, assert_hostname=self._name)


class Api:
    """A client of one authority; keeps its connection. Use as a context manager."""

    def __init__(self, base_url: str, root: Path, name: str) -> None:
        self.base_url, self.name = base_url, name
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy has no business between us and the CA
        self._session.verify = str(root)
        self._session.mount("https://", _PinnedName(name))

    @classmethod
    def local(cls, home: Home, authority: Authority) -> Api:
        """Return a client of the CA on this machine, by its declared address."""
        host, port = split_address(authority.server.address)
        reachable = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        shown = f"[{reachable}]" if ":" in reachable else reachable
        return cls(f"https://{shown}:{port}", home.root_certificate, authority.server.dns_names[0])

    @classmethod
    def remote(cls, url: str, root: Path) -> Api:
        """Return a client of the CA at *url*, https://host[:port]."""
        return cls(url.rstrip("/"), root, urlsplit(url).hostname or "")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def audience(self, path: str) -> str:
        """Return what a one-time token for *path* has to name as its audience."""
        return f"https://{self.name}{path}"

    def health(self) -> None:
        """Raise unless the listener says ok. It says so even when nothing can be signed."""
        answer = self._call("GET", "/health", 200)
        if answer != {"status": "ok"}:
            raise StepCaError(f"{self.base_url}/health answers {str(answer)[:100]}")

    def sign(self, csr_pem: str, ott: str, *, lifetime: timedelta | None = None) -> list[str]:
        """Return the chain, leaf first, as PEM texts. Without *lifetime* the provisioner's default holds."""
        body = {"csr": csr_pem, "ott": ott}
        if lifetime is not None:
            body["notAfter"] = go_duration(lifetime)
        return self._chain(self._call("POST", "/1.0/sign", 201, body))

    def renew(self, certificate: Path, key: Path) -> list[str]:
        """Return a new chain for the same key and names: the present certificate is the proof (mutual TLS)."""
        return self._chain(self._call("POST", "/1.0/renew", 201, {}, client=(certificate, key)))

    def rekey(self, csr_pem: str, certificate: Path, key: Path) -> list[str]:
        """Like renew, for the public key of the CSR."""
        return self._chain(self._call("POST", "/1.0/rekey", 201, {"csr": csr_pem}, client=(certificate, key)))

    def revoke(
        self, serial: int, reason: int, *, ott: str | None = None, client: tuple[Path, Path] | None = None
    ) -> None:
        """Revoke *serial*: with a token whose subject it is, or by its own certificate and key."""
        body = {"serial": str(serial), "reasonCode": reason, "passive": True}
        self._call("POST", "/1.0/revoke", 200, body if ott is None else {**body, "ott": ott}, client=client)

    def _chain(self, answer: dict[str, Any]) -> list[str]:
        chain = answer.get("certChain")
        if not isinstance(chain, list) or not all(isinstance(item, str) for item in chain) or not chain:
            raise StepCaError(f"{self.base_url} answers without a chain")
        return chain

    def provisioners(self) -> tuple[ProvisionerState, ...]:
        """Return every provisioner of the running CA, all pages."""
        found: list[ProvisionerState] = []
        cursor = ""
        for _ in range(MAX_PAGES):
            answer = self._call("GET", f"/provisioners?limit={PAGE}&cursor={cursor}", 200)
            entries = answer.get("provisioners")
            if not isinstance(entries, list):
                raise StepCaError(f"{self.base_url}/provisioners answers without a list")
            found += [_state(entry) for entry in entries if isinstance(entry, dict)]
            cursor = answer.get("nextCursor") or ""
            if not isinstance(cursor, str) or not cursor.isalnum():
                return tuple(found)
        raise StepCaError(f"{self.base_url}/provisioners has no end")

    def _call(
        self,
        method: str,
        path: str,
        expected: int,
        body: dict[str, Any] | None = None,
        *,
        client: tuple[Path, Path] | None = None,
    ) -> dict[str, Any]:
        url = f"{self.base_url}{path}"
        pair = None if client is None else (str(client[0]), str(client[1]))
        try:
            answer = self._session.request(
                method, url, json=body, timeout=TIMEOUT_SECONDS, allow_redirects=False, cert=pair
            )
        except requests.exceptions.SSLError as error:
            raise StepCaError(
                f"{self.base_url}: what answers there does not prove to be our CA: {_tls_reason(error)}",
                fix="another program may have the port, or the CA still serves an old certificate: 'pki restart'",
            ) from None
        except requests.exceptions.RequestException as error:
            raise Unreachable(f"{self.base_url}: no answer ({type(error).__name__})", fix="run 'pki status'") from None
        return _checked(answer, path.partition("?")[0], expected)


def _checked(answer: requests.Response, path: str, expected: int) -> dict[str, Any]:
    try:
        value = answer.json()
    except ValueError:
        value = None
    if answer.status_code != expected:
        said = value.get("message", "") if isinstance(value, dict) else ""
        raise StepCaError(f"step-ca answers {path} with {answer.status_code}: {str(said)[:300] or 'no reason given'}")
    if not isinstance(value, dict):
        raise StepCaError(f"step-ca answers {path} with something that is not JSON")
    return value


def _tls_reason(error: Exception) -> str:
    return str(error).rpartition("] ")[2].partition(" (_ssl")[0][:200]


def _state(entry: dict[str, Any]) -> ProvisionerState:
    fault = str(entry.get("stateReason") or entry["state"]) if entry.get("state") == "Uninitialized" else None
    return ProvisionerState(str(entry.get("name", "")), str(entry.get("type", "")), fault)
