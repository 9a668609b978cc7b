"""Azure: virtual machines with their managed identity token."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from stepca_pki.provisioners.base import Material, Provisioner
from stepca_pki.values import Line


class Azure(Provisioner):
    """Takes managed identity tokens of one tenant."""

    kind: ClassVar[str] = "azure"
    step_ca_type: ClassVar[str] = "Azure"

    type: Literal["azure"] = "azure"
    tenant_id: Annotated[str, Field(pattern=r"^[0-9a-fA-F-]{36}$")]
    subscription_ids: tuple[Line, ...] = ()
    resource_groups: tuple[Line, ...] = ()
    object_ids: tuple[Line, ...] = ()
    custom_sans: bool = False
    trust_on_first_use: bool = True

    def details(self, material: Material) -> dict[str, Any]:
        return {
            "tenantID": self.tenant_id,
            "subscriptionIDs": list(self.subscription_ids),
            "resourceGroups": list(self.resource_groups),
            "objectIDs": list(self.object_ids),
            "disableCustomSANs": not self.custom_sans,
            "disableTrustOnFirstUse": not self.trust_on_first_use,
        }
