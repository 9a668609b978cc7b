"""JWK: programs and people with a one-time token, signed by a key that we hold."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from stepca_pki.provisioners.base import Material, Provisioner

_PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}  # RFC 7518 sections 6.2.2, 6.3.2, 6.4


class Jwk(Provisioner):
    """Takes tokens (RFC 7519) signed by one key. Its private half is never given to step-ca, not even encrypted."""

    kind: ClassVar[str] = "jwk"
    step_ca_type: ClassVar[str] = "JWK"

    type: Literal["jwk"] = "jwk"
    key: dict[str, Any] | None = Field(default=None)
    """Public JWK of a key that is held elsewhere. Without it a key pair is made in secrets/."""

    @field_validator("key")
    @classmethod
    def _public(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is None:
            return None
        if _PRIVATE & set(value):
            raise ValueError("holds a private key; give its public half, without d, p, q or k")
        if value.get("kty") not in ("EC", "RSA", "OKP") or not isinstance(value.get("kid"), str) or "alg" not in value:
            raise ValueError("must be a public JWK with kty (EC, RSA or OKP), kid and alg")
        return value

    @property
    def makes_key(self) -> bool:
        return self.key is None

    def details(self, material: Material) -> dict[str, Any]:
        return {"key": dict(self.key or material.keys.get(self.name, {}))}
