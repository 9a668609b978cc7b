"""What exists now, as values: filled by observe.py, read by the planner. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from stepca_pki.config.tokens import Role
from stepca_pki.provisioners.base import NOTHING, Material
from stepca_pki.values import KeyType


@dataclass(frozen=True)
class SeenKey:
    """A key on a token. *spki* is the DER SubjectPublicKeyInfo, None if there is no public object."""

    label: str
    id: str
    type: KeyType | None
    has_private: bool
    has_public: bool
    spki: bytes | None
    torn: bool = False
    """Its private half was cut off in its making, and is no key."""

    @property
    def is_whole(self) -> bool:
        return self.has_private and not self.torn


@dataclass(frozen=True)
class SeenToken:
    """A token and its keys. *ready*: initialised and its PIN set; otherwise *keys* is empty."""

    exists: bool
    ready: bool
    keys: tuple[SeenKey, ...] = ()


@dataclass(frozen=True)
class SeenCertificate:
    """A CA certificate on disk, taken apart so that the planner needs no X.509 library."""

    subject: str
    key_type: KeyType | None
    spki: bytes
    path_length: int | None
    not_before: datetime
    not_after: datetime
    signed_by_root: bool
    profile: Mapping[str, Any] = field(default_factory=dict)
    """Constraints and URLs, as x509/profiles.py names them."""


@dataclass(frozen=True)
class Broken:
    """A file that is there and cannot be read as what it should be."""

    reason: str


@dataclass(frozen=True)
class Seen:
    """The actual state of one home at one time."""

    now: datetime
    modules: Mapping[Role, Path]
    folders: Mapping[Path, int] = field(default_factory=dict)
    """Mode of each expected folder that exists."""
    files: Mapping[Path, str] = field(default_factory=dict)
    """Text of each generated file that exists."""
    secrets: frozenset[Path] = frozenset()
    tokens: Mapping[Role, SeenToken] = field(default_factory=dict)
    """A role is absent when its token was not asked."""
    root: SeenCertificate | Broken | None = None
    intermediate: SeenCertificate | Broken | None = None
    csr_spki: bytes | None = None
    crl_next_update: datetime | None = None
    canary_key: Mapping[str, Any] | None = None
    """Public JWK."""
    material: Material = NOTHING
    """Public keys that were made for provisioners, and the files that they name."""
    running_ca_json: str | None = None
    """The configuration that the running step-ca took; None when none runs."""
