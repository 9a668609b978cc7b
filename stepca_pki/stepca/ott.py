"""One-time tokens: short-lived, for one audience, with the least names.

Source: smallstep/certificates authority/provisioner/jwk.go and token claims at v0.30.2.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey

LIFETIME = timedelta(minutes=5)
LEEWAY = timedelta(seconds=30)
"""How far nbf lies back: clocks differ a little."""
JTI_BYTES = 32


def mint(
    jwk: Mapping[str, Any],
    *,
    issuer: str,
    audience: str,
    subject: str,
    sans: Sequence[str],
    now: datetime,
    lifetime: timedelta = LIFETIME,
    csr_digest: bytes | None = None,
) -> str:
    """Return a compact JWS, signed with the private *jwk* of the JWK provisioner *issuer*.

    *csr_digest* (SHA-256 of the CSR's DER) binds the token to that one CSR. step-ca takes tokens without exp and
    keeps them valid for ever; ours always have one.
    """
    import base64
    import json

    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": subject,
        "aud": audience,
        "iat": int(now.timestamp()),
        "nbf": int((now - LEEWAY).timestamp()),
        "exp": int((now + lifetime).timestamp()),
        "jti": secrets.token_hex(JTI_BYTES),
        "sans": list(sans),
    }
    if csr_digest is not None:
        claims["cnf"] = {"x5rt#S256": base64.urlsafe_b64encode(csr_digest).rstrip(b"=").decode()}
    header = {"alg": "ES256", "typ": "JWT", "kid": str(jwk["kid"])}
    return jws.serialize_compact(header, json.dumps(claims), ECKey.import_key(dict(jwk)))
