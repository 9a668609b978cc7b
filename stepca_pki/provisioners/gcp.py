"""GCP: Compute Engine instances with their identity token."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from stepca_pki.provisioners.base import Material, Provisioner
from stepca_pki.values import Duration, Line, go_duration


class Gcp(Provisioner):
    """Takes identity tokens of instances in *project_ids*."""

    kind: ClassVar[str] = "gcp"
    step_ca_type: ClassVar[str] = "GCP"

    type: Literal["gcp"] = "gcp"
    project_ids: Annotated[tuple[Line, ...], Field(min_length=1)]
    service_accounts: tuple[Line, ...] = ()
    custom_sans: bool = False
    trust_on_first_use: bool = True
    instance_age: Duration | None = None

    def details(self, material: Material) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "serviceAccounts": list(self.service_accounts),
            "projectIDs": list(self.project_ids),
            "disableCustomSANs": not self.custom_sans,
            "disableTrustOnFirstUse": not self.trust_on_first_use,
        }
        return entry if self.instance_age is None else {**entry, "instanceAge": go_duration(self.instance_age)}
