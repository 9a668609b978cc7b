"""SSHPOP: SSH hosts renew and rekey with the certificate that they have."""

from __future__ import annotations

from typing import ClassVar, Literal

from stepca_pki.provisioners.base import Provisioner


class SshPop(Provisioner):
    """Takes tokens signed by the key of an SSH host certificate of this authority."""

    kind: ClassVar[str] = "sshpop"
    step_ca_type: ClassVar[str] = "SSHPOP"

    type: Literal["sshpop"] = "sshpop"
