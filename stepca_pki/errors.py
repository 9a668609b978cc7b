"""Every error that a user can meet. Nothing here imports anything of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class PkiError(Exception):
    """Something that a person has to know: the thing, the reason, the fix.

    *exit_code* is stable: 0 done, 1 failed, 2 wrong use or wrong file,
    3 waiting for something outside, 4 not healthy, 5 changes pending.
    """

    exit_code = 1

    def __init__(self, problem: str, *, fix: str | None = None) -> None:
        super().__init__(problem if fix is None else f"{problem}\n  fix: {fix}")
        self.problem, self.fix = problem, fix


class UsageError(PkiError):
    """The command was called in a way that cannot be meant."""

    exit_code = 2


class Waiting(PkiError):
    """Nothing failed, but somebody else must act first (a ceremony, another process)."""

    exit_code = 3


class NotHealthy(PkiError):
    """A probe found the authority unfit."""

    exit_code = 4


class ChangesPending(PkiError):
    """`pki plan --check` found steps to run."""

    exit_code = 5


class FileRefused(PkiError):
    """A file that we must read or write is not what it has to be (mode, link, size, owner)."""

    def __init__(self, path: Path, problem: str, *, fix: str | None = None) -> None:
        super().__init__(f"{path}: {problem}", fix=fix)
        self.path = path


class LockHeld(PkiError):
    """Another `pki` process is at work on this authority."""


class CommandFailed(PkiError):
    """A subprocess could not be started, ran too long, or ended badly."""


class HsmError(PkiError):
    """A PKCS#11 module or token refused or failed."""


class ModuleUnusable(HsmError):
    """The PKCS#11 module is missing, is not a module, crashed, or does not answer."""


class TokenNotFound(HsmError):
    """No token has the declared label or serial."""


class TokenAmbiguous(HsmError):
    """Several tokens, or several keys, answer to one name."""


class PinRefused(HsmError):
    """The token refused the PIN. Never tried again by itself: tokens lock."""


class KeyNotFound(HsmError):
    """The token has no such key."""


class KeyExists(HsmError):
    """A key with that label or id is already on the token; keys are never overwritten."""


class CertificateRefused(PkiError):
    """A certificate, CSR or chain breaks its profile, or the pre-issuance check found a fault."""


class StepCaError(PkiError):
    """step-ca is missing, unsuitable, did not start, or answered with an error."""


class Irreversible(PkiError):
    """The declaration asks for something that cannot be changed in place."""

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One fault in an operator's file: where it is, what is wrong, what to change.

    *line* counts from 1; 0 means that the place is the whole file.
    *where* is a path such as ``provisioners[1].claims.min_tls``.
    """

    file: Path
    line: int
    where: str
    problem: str
    fix: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        field = f" {self.where}:" if self.where else ""
        return f"{place}:{field} {self.problem}\n  fix: {self.fix}"


class ConfigError(PkiError):
    """All faults of one file at once."""

    exit_code = 2

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)
