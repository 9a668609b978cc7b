"""What every provisioner type has: a name, claims, and its JSON for step-ca."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from stepca_pki.values import BUILT_IN_CLAIMS, Claims, Model, Name, go_duration


@dataclass(frozen=True)
class Material:
    """What stands in files and goes into provisioners: read before, so that rendering stays pure."""

    keys: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Public JWK by provisioner name, for those whose key is made here."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Text by path, as the path is declared."""


NOTHING = Material()


class Provisioner(Model):
    """A way step-ca authenticates requesters, with its limits. One subclass a file, found by its `kind`."""

    kind: ClassVar[str] = ""
    """What stands in pki.yaml under `type`."""
    step_ca_type: ClassVar[str] = ""
    """What stands in ca.json under `type`."""

    type: str
    name: Name
    claims: Claims = Claims()

    @property
    def makes_key(self) -> bool:
        """Whether a key pair of its own is made in the home, for the tokens that we mint."""
        return False

    def files(self) -> tuple[str, ...]:
        """Return the paths of files whose text goes into ca.json; relative ones are taken from the home."""
        return ()

    def details(self, material: Material) -> dict[str, Any]:
        """Return the keys of ca.json that only this type has."""
        return {}

    def to_ca_json(self, material: Material = NOTHING) -> dict[str, Any]:
        """Return this provisioner as it stands in `authority.provisioners` of ca.json."""
        entry: dict[str, Any] = {"type": self.step_ca_type, "name": self.name, **self.details(material)}
        claims = claims_json(self.claims)
        return {**entry, "claims": claims} if claims else entry


def pem_bytes(material: Material, path: str) -> str:
    """Return a file's PEM text as step-ca wants it: base64 of the text."""
    return base64.b64encode(material.texts.get(path, "").encode()).decode()


_CLAIM_KEYS = {
    "min_tls": "minTLSCertDuration",
    "max_tls": "maxTLSCertDuration",
    "default_tls": "defaultTLSCertDuration",
    "min_user_ssh": "minUserSSHCertDuration",
    "max_user_ssh": "maxUserSSHCertDuration",
    "default_user_ssh": "defaultUserSSHCertDuration",
    "min_host_ssh": "minHostSSHCertDuration",
    "max_host_ssh": "maxHostSSHCertDuration",
    "default_host_ssh": "defaultHostSSHCertDuration",
}


def claims_json(claims: Claims) -> dict[str, Any]:
    """Return *claims* in step-ca's words; what is unset is left out and so inherited."""
    durations = {key: getattr(claims, name) for name, key in _CLAIM_KEYS.items()}
    answer: dict[str, Any] = {key: go_duration(value) for key, value in durations.items() if value is not None}
    if claims.ssh is not None:
        answer["enableSSHCA"] = claims.ssh
    if claims.renewal is not None:
        answer["disableRenewal"] = not claims.renewal
    if claims.renewal_after_expiry is not None:
        answer["allowRenewalAfterExpiry"] = claims.renewal_after_expiry
    if claims.extensions is not None:
        answer["disableSmallstepExtensions"] = not claims.extensions
    return answer


def effective_claims(authority: Claims, provisioner: Claims) -> Claims:
    """Return what holds for a provisioner: its own, then the authority's, then step-ca's defaults."""
    return provisioner.over(authority.over(BUILT_IN_CLAIMS))
