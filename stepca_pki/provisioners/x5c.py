"""X5C: whoever holds a certificate of another CA (or of this one) gets one here."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from stepca_pki.provisioners.base import Material, Provisioner, pem_bytes


class X5c(Provisioner):
    """Takes tokens signed by the key of a certificate that chains to *roots*. What it issues never outlives that."""

    kind: ClassVar[str] = "x5c"
    step_ca_type: ClassVar[str] = "X5C"

    type: Literal["x5c"] = "x5c"
    roots: str = "certs/root.crt"
    """PEM file of the CAs that are trusted; this authority's own root unless declared."""

    def files(self) -> tuple[str, ...]:
        return (self.roots,)

    def details(self, material: Material) -> dict[str, Any]:
        return {"roots": pem_bytes(material, self.roots)}
