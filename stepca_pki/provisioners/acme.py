"""ACME (RFC 8555): servers prove that they hold a name."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from stepca_pki.provisioners.base import Material, Provisioner

Challenge = Literal["http-01", "dns-01", "tls-alpn-01", "device-attest-01"]
DEFAULT_CHALLENGES: tuple[Challenge, ...] = ("http-01", "dns-01", "tls-alpn-01")


class Acme(Provisioner):
    """A directory at https://<server>/acme/<name>/directory."""

    kind: ClassVar[str] = "acme"
    step_ca_type: ClassVar[str] = "ACME"

    type: Literal["acme"] = "acme"
    challenges: Annotated[tuple[Challenge, ...], Field(min_length=1)] = DEFAULT_CHALLENGES
    force_cn: bool = False
    """Put the first DNS name into the subject's common name when the CSR has none."""

    def details(self, material: Material) -> dict[str, Any]:
        return {"challenges": list(self.challenges), "forceCN": self.force_cn}
