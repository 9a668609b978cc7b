"""K8sSA: pods with a Kubernetes service account token."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from stepca_pki.provisioners.base import Material, Provisioner, pem_bytes


class K8sSa(Provisioner):
    """Takes service account tokens signed by *public_keys*. step-ca does not notice a token used twice."""

    kind: ClassVar[str] = "k8ssa"
    step_ca_type: ClassVar[str] = "K8sSA"

    type: Literal["k8ssa"] = "k8ssa"
    public_keys: str
    """PEM file of the cluster's service account keys."""

    def files(self) -> tuple[str, ...]:
        return (self.public_keys,)

    def details(self, material: Material) -> dict[str, Any]:
        return {"publicKeys": pem_bytes(material, self.public_keys)}
