"""OIDC: people prove who they are to their identity provider."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator

from stepca_pki.provisioners.base import Material, Provisioner
from stepca_pki.values import Address, Line

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def _endpoint(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ValueError("must be an https:// URL (http:// only on loopback)")
    return text


class Oidc(Provisioner):
    """Takes ID tokens (OpenID Connect Core 1.0) of one client at one provider.

    step-ca shows a client secret to everybody at /provisioners, so a public client with PKCE (RFC 7636) is what to
    register; there is no field for a secret.
    """

    kind: ClassVar[str] = "oidc"
    step_ca_type: ClassVar[str] = "OIDC"

    type: Literal["oidc"] = "oidc"
    client_id: Line
    configuration_endpoint: Annotated[str, AfterValidator(_endpoint)]
    """The provider's discovery document, …/.well-known/openid-configuration."""
    tenant_id: Line | None = None
    """For providers that put a tenant into their issuer."""
    domains: tuple[Line, ...] = ()
    """Domains of e-mail addresses that may enter; none is any."""
    groups: tuple[Line, ...] = ()
    """Groups that may enter; none is any."""
    admins: tuple[Line, ...] = ()
    """E-mail addresses or groups whose CSR is signed as it is: any name. Keep it short."""
    scopes: tuple[Line, ...] = ()
    listen_address: Address | None = None
    """Where a client waits for the browser, if the provider knows one fixed address only."""

    def details(self, material: Material) -> dict[str, Any]:
        optional = {
            "tenantID": self.tenant_id,
            "listenAddress": self.listen_address,
            "domains": list(self.domains),
            "groups": list(self.groups),
            "admins": list(self.admins),
            "scopes": list(self.scopes),
        }
        entry = {"clientID": self.client_id, "clientSecret": "", "configurationEndpoint": self.configuration_endpoint}
        return entry | {key: value for key, value in optional.items() if value}
