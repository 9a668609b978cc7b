"""AWS: EC2 instances with their instance identity document."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from stepca_pki.provisioners.base import Material, Provisioner
from stepca_pki.values import Duration, go_duration


class Aws(Provisioner):
    """Takes instance identity documents of *accounts*."""

    kind: ClassVar[str] = "aws"
    step_ca_type: ClassVar[str] = "AWS"

    type: Literal["aws"] = "aws"
    accounts: Annotated[tuple[Annotated[str, Field(pattern=r"^[0-9]{12}$")], ...], Field(min_length=1)]
    """Account numbers, in quotes. step-ca takes every account of the world where none is listed; we do not."""
    custom_sans: bool = False
    """Whether an instance may ask for other names than its own."""
    trust_on_first_use: bool = True
    """Whether an instance gets one certificate only, and then renews."""
    instance_age: Duration | None = None
    """How young an instance has to be."""

    def details(self, material: Material) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "accounts": list(self.accounts),
            "disableCustomSANs": not self.custom_sans,
            "disableTrustOnFirstUse": not self.trust_on_first_use,
            "imdsVersions": ["v2"],
        }
        return entry if self.instance_age is None else {**entry, "instanceAge": go_duration(self.instance_age)}
