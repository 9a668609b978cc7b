"""The steps of a plan: values that say what will be done. apply.py does it; nothing here acts.

Each step is idempotent, and says itself in one line, which is what `pki plan` prints.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from stepca_pki.config.tokens import Role


@dataclass(frozen=True)
class Step:
    """One thing to do. *irreversible*: it cannot be taken back by changing pki.yaml."""

    irreversible: ClassVar[bool] = False

    def describe(self) -> str:
        raise NotImplementedError

    def diff(self) -> str:
        """Return a unified diff of the file that this step changes, or nothing."""
        return ""


@dataclass(frozen=True)
class MakeFolder(Step):
    path: Path
    mode: int

    def describe(self) -> str:
        return f"make folder {self.path} (mode {self.mode:04o})"


@dataclass(frozen=True)
class MakeSecret(Step):
    """Write a random PIN. The value exists only in that file."""

    path: Path
    purpose: str

    def describe(self) -> str:
        return f"make {self.purpose} in {self.path} (random, mode 0600)"


@dataclass(frozen=True)
class WriteFile(Step):
    """Write a generated file. *before* is None where there is none yet."""

    path: Path
    text: str
    before: str | None
    mode: int = 0o644

    def describe(self) -> str:
        return f"{'write' if self.before is None else 'change'} {self.path}"

    def diff(self) -> str:
        return unified(self.path, self.before or "", self.text)


@dataclass(frozen=True)
class MoveAside(Step):
    """Keep an unreadable file under another name, so that its place is free."""

    path: Path
    reason: str

    def describe(self) -> str:
        return f"move {self.path} aside: {self.reason}"


@dataclass(frozen=True)
class TokenStep(Step):
    """A step that acts on the token of one role and on nothing else."""

    irreversible: ClassVar[bool] = True
    role: Role


@dataclass(frozen=True)
class InitToken(TokenStep):
    label: str

    def describe(self) -> str:
        return f"initialise token '{self.label}' for the {self.role}"


@dataclass(frozen=True)
class RemoveHalfKey(TokenStep):
    """Remove what a cut-off generation left: a public half, or a private object without a key in it."""

    label: str
    id: str

    def describe(self) -> str:
        name = f"'{self.label}' (id {self.id})" if self.label else "without a name"
        return f"remove the half-made key {name} that a cut-off run left on the token of the {self.role}"


@dataclass(frozen=True)
class GenerateKey(TokenStep):
    type: str
    label: str
    id: str
    backup: bool

    def describe(self) -> str:
        exportable = "can be backed up" if self.backup else "never leaves the token"
        return f"generate the {self.role} key on its token: {self.type}, '{self.label}' (id {self.id}), {exportable}"


@dataclass(frozen=True)
class SignRoot(Step):
    irreversible: ClassVar[bool] = True
    path: Path
    subject: str
    reason: str

    def describe(self) -> str:
        return f"sign the root certificate '{self.subject}' ({self.reason})"


@dataclass(frozen=True)
class RequestIntermediate(Step):
    path: Path
    subject: str

    def describe(self) -> str:
        return f"make the CSR for '{self.subject}' in {self.path}"


@dataclass(frozen=True)
class SignIntermediate(Step):
    irreversible: ClassVar[bool] = True
    path: Path
    subject: str
    reason: str

    def describe(self) -> str:
        return f"sign the intermediate certificate '{self.subject}' with the root ({self.reason})"


@dataclass(frozen=True)
class AwaitCeremony(Step):
    """The root is elsewhere: nothing more can be done here until its answer is in place."""

    request: Path
    answers: tuple[Path, ...]

    def describe(self) -> str:
        places = " and ".join(str(path) for path in self.answers)
        return f"wait for the offline root to sign {self.request}; its answer belongs into {places}"


@dataclass(frozen=True)
class IssueRootCrl(Step):
    irreversible: ClassVar[bool] = True
    path: Path
    reason: str

    def describe(self) -> str:
        return f"issue the root's CRL in {self.path} ({self.reason})"


@dataclass(frozen=True)
class MakeTokenKey(Step):
    """Make the key pair that signs one-time tokens for a JWK provisioner."""

    path: Path
    purpose: str

    def describe(self) -> str:
        return f"make the key {self.purpose}, in {self.path} (mode 0600)"


@dataclass(frozen=True)
class WriteCaJson(Step):
    """Render ca.json. *text* is None when a key that belongs into it is made by an earlier step."""

    path: Path
    text: str | None
    before: str | None

    def describe(self) -> str:
        return f"{'write' if self.before is None else 'change'} {self.path}"

    def diff(self) -> str:
        return "" if self.text is None else unified(self.path, self.before or "", self.text)


@dataclass(frozen=True)
class TellStepCa(Step):
    """Make the running step-ca take the new configuration."""

    kind: Literal["reload", "restart"]
    reason: str

    def describe(self) -> str:
        return f"{self.kind} step-ca: {self.reason}"


@dataclass(frozen=True)
class Plan:
    """What to do, in order. An empty plan means that the declaration and the world agree."""

    steps: tuple[Step, ...]

    @property
    def waits(self) -> bool:
        return any(isinstance(step, AwaitCeremony) for step in self.steps)

    def __bool__(self) -> bool:
        return bool(self.steps)


def unified(path: Path, before: str, after: str) -> str:
    """Return a unified diff of two texts of one file."""
    import difflib

    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"{path} (now)", f"{path} (planned)", lineterm=""
    )
    return "\n".join(lines)
