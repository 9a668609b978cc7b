"""Where things are in the home of an authority. Paths only: nothing is opened here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_HOME = Path("/opt/certificate-authority")
CONFIG_NAME = "pki.yaml"


@dataclass(frozen=True)
class Home:
    """The folder with pki.yaml, as an absolute path, and the fixed places below it."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / CONFIG_NAME

    @property
    def root_certificate(self) -> Path:
        return self.path / "certs" / "root.crt"

    @property
    def intermediate_certificate(self) -> Path:
        return self.path / "certs" / "intermediate.crt"

    @property
    def root_crl(self) -> Path:
        return self.path / "crl" / "root.crl"

    @property
    def requests(self) -> Path:
        return self.path / "requests"

    @property
    def intermediate_csr(self) -> Path:
        return self.requests / "intermediate.csr"

    @property
    def ca_json(self) -> Path:
        return self.path / "config" / "ca.json"

    @property
    def rendered_templates(self) -> Path:
        return self.path / "templates"

    @property
    def register(self) -> Path:
        return self.path / "register"

    @property
    def tokens(self) -> Path:
        return self.path / "tokens"

    def token_store(self, role: str) -> Path:
        """Where SoftHSM2 keeps the embedded token of one role. Not shared: SoftHSM2 fails on one half-written."""
        return self.tokens / role

    def softhsm2_conf(self, role: str) -> Path:
        return self.token_store(role) / "softhsm2.conf"

    @property
    def secrets(self) -> Path:
        return self.path / "secrets"

    @property
    def canary_key(self) -> Path:
        """Private JWK of the provisioner that health probes use."""
        return self.secrets / "canary.jwk"

    def provisioner_key(self, name: str) -> Path:
        """Private JWK of the provisioner *name*, with which its tokens are signed."""
        return self.secrets / f"provisioner-{name}.jwk"

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def lock(self) -> Path:
        return self.state / "pki.lock"

    @property
    def supervisor_pid(self) -> Path:
        return self.state / "supervisor.json"

    @property
    def log(self) -> Path:
        return self.state / "step-ca.log"

    @property
    def database(self) -> Path:
        return self.path / "db"
