"""pki.yaml to ca.json: data in, data out. step-ca ignores unknown keys, so every key here is a known one.

Source: smallstep/certificates authority/config/config.go and go.step.sm/crypto kms/uri at v0.30.2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stepca_pki.config.model import Authority, Key, PostgreSql, TokenRef
from stepca_pki.config.tokens import token_of
from stepca_pki.home import Home
from stepca_pki.provisioners.base import NOTHING, Material, claims_json
from stepca_pki.render.leaf import canary_template, leaf_template
from stepca_pki.values import go_duration, parse_duration, shortened

CANARY = "pki-canary"
"""The provisioner through which probes ask for a leaf. Reserved: nobody else may have this name."""

CANARY_LIFETIME = parse_duration("5m")


@dataclass(frozen=True)
class Facts:
    """What rendering needs to know of the machine: found out before, so that rendering stays pure."""

    module: Path
    """The PKCS#11 module of the intermediate's token, absolute."""
    canary_key: Mapping[str, Any]
    """Public JWK of the canary provisioner."""
    material: Material = NOTHING
    """What the provisioners need from files."""


def render_ca_json(authority: Authority, home: Home, facts: Facts) -> dict[str, Any]:
    """Return ca.json as data. Every path is absolute: step-ca reads relative ones from its working folder."""
    server = authority.server
    token = token_of(home, authority, "intermediate")
    answer: dict[str, Any] = {
        "root": [str(home.root_certificate)],
        "crt": str(home.intermediate_certificate),
        "key": key_uri(authority.intermediate.key),
        "kms": {"type": "pkcs11", "uri": kms_uri(token, facts.module)},
        "address": server.address,
        "dnsNames": list(server.dns_names),
        "commonName": shortened(f"{authority.name} CA"),
        "logger": {"format": server.log},
        "db": _database(authority, home),
        "authority": _authority(authority, facts),
    }
    optional = {"insecureAddress": server.insecure_address, "metricsAddress": server.metrics_address}
    answer |= {key: value for key, value in optional.items() if value is not None}
    return answer | _crl(authority)


def ca_json_text(rendered: Mapping[str, Any]) -> str:
    """Return ca.json as it stands on disk."""
    return json.dumps(rendered, indent=2, ensure_ascii=False) + "\n"


def kms_uri(token: TokenRef, module: Path) -> str:
    """Return the URI by which step-ca opens the token; the PIN is named by its file, never given.

    step-ca reads the part before '?' like a query string: '+' would be a space, so all but the safest
    characters are percent-encoded.
    """
    name = f"token={_escape(token.label)}" if token.label is not None else f"serial={_escape(token.serial or '')}"
    return (
        f"pkcs11:module-path={_escape(str(module))};{name};max-sessions={token.max_sessions}"
        f"?pin-source={_escape(_pin_source(token.pin_source.removeprefix('file:')))}"
    )


def key_uri(key: Key) -> str:
    """Return the URI of a key: plain hex id, because step-ca decodes an id twice; and the label, to be exact."""
    return f"pkcs11:id={key.id};object={_escape(key.label)}"


def _pin_source(path: str) -> str:
    """step-ca takes pin-source for a URL: a path with '?', '%' or the like has to be one, encoded on its own."""
    encoded = quote(path, safe="/")
    return path if encoded == path else f"file://{encoded}"


def _escape(text: str) -> str:
    return quote(text, safe="/")


def _database(authority: Authority, home: Home) -> dict[str, Any]:
    database = authority.server.database
    if not isinstance(database, PostgreSql):
        return {"type": "badgerv2", "dataSource": str(home.database)}
    url = database.url
    if database.password_file is not None:
        separator = "&" if "?" in url else "?"
        url += f"{separator}passfile={quote(str(home.path / database.password_file), safe='/')}"
    return {"type": "postgresql", "dataSource": url}


def _authority(authority: Authority, facts: Facts) -> dict[str, Any]:
    provisioners = [_with_template(authority, item.to_ca_json(facts.material)) for item in authority.provisioners]
    answer: dict[str, Any] = {
        "provisioners": [*provisioners, _canary(facts)],
        # A reload restarts step-ca's issued-at clock and would refuse tokens minted before it; ours expire soon.
        "disableIssuedAtCheck": True,
    }
    claims = claims_json(authority.claims)
    return {**answer, "claims": claims} if claims else answer


def _with_template(authority: Authority, entry: dict[str, Any]) -> dict[str, Any]:
    """Add the leaf template where leaves have to name their CRL: step-ca's own template does not."""
    if authority.server.crl is None or "options" in entry:
        return entry
    return {**entry, "options": {"x509": {"template": leaf_template(crl_url=authority.server.crl.url)}}}


def _canary(facts: Facts) -> dict[str, Any]:
    lifetime = go_duration(CANARY_LIFETIME)
    return {
        "type": "JWK",
        "name": CANARY,
        "key": dict(facts.canary_key),
        "claims": {
            "minTLSCertDuration": lifetime,
            "defaultTLSCertDuration": lifetime,
            "maxTLSCertDuration": lifetime,
            "disableRenewal": True,
        },
        "options": {"x509": {"template": canary_template()}},
    }


def _crl(authority: Authority) -> dict[str, Any]:
    crl = authority.server.crl
    if crl is None:
        return {}
    return {
        "crl": {
            "enabled": True,
            "generateOnRevoke": True,
            "cacheDuration": go_duration(crl.lifetime),
            "idpURL": crl.url,
        }
    }
