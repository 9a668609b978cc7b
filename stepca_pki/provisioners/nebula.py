"""Nebula: hosts of a Nebula overlay network."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from stepca_pki.provisioners.base import Material, Provisioner, pem_bytes


class Nebula(Provisioner):
    """Takes tokens signed by the key of a Nebula certificate that chains to *roots*."""

    kind: ClassVar[str] = "nebula"
    step_ca_type: ClassVar[str] = "Nebula"

    type: Literal["nebula"] = "nebula"
    roots: str
    """PEM file of the Nebula CAs."""

    def files(self) -> tuple[str, ...]:
        return (self.roots,)

    def details(self, material: Material) -> dict[str, Any]:
        return {"roots": pem_bytes(material, self.roots)}
