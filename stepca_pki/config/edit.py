"""Writing and changing pki.yaml as text: comments, order and layout stay.

A changed text is read again, and must mean exactly the change that was asked.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stepca_pki.config.load import load_text
from stepca_pki.config.model import Authority
from stepca_pki.errors import PkiError, UsageError
from stepca_pki.home import CONFIG_NAME

_HERE = Path(CONFIG_NAME)


def _yaml() -> Any:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 4096
    return yaml


def add_provisioner(text: str, entry: Mapping[str, Any]) -> str:
    """Return *text* with one provisioner more. Raises UsageError if the name is taken, ConfigError."""
    before = load_text(text, _HERE)
    if any(item.name.lower() == str(entry.get("name", "")).lower() for item in before.provisioners):
        raise UsageError(
            f"there is a provisioner '{entry['name']}' already", fix="choose another name, or remove that one first"
        )
    yaml, document = _open(text)
    if not isinstance(document.get("provisioners"), list):
        document["provisioners"] = []
    document["provisioners"].append(dict(entry))
    changed = _close(yaml, document)
    after = load_text(changed, _HERE)
    _only_provisioners_differ(before, after, len(before.provisioners) + 1)
    return changed


def remove_provisioner(text: str, name: str) -> str:
    """Return *text* without the provisioner *name*. Raises UsageError if there is none."""
    before = load_text(text, _HERE)
    index = next((number for number, item in enumerate(before.provisioners) if item.name == name), None)
    if index is None:
        names = ", ".join(item.name for item in before.provisioners) or "none"
        raise UsageError(f"there is no provisioner '{name}'", fix=f"the provisioners are: {names}")
    yaml, document = _open(text)
    del document["provisioners"][index]
    if not document["provisioners"]:
        document["provisioners"].fa.set_flow_style()  # an empty list can only be written as []
    changed = _close(yaml, document)
    _only_provisioners_differ(before, load_text(changed, _HERE), len(before.provisioners) - 1)
    return changed


def _open(text: str) -> tuple[Any, Any]:
    yaml = _yaml()
    return yaml, yaml.load(text)


def _close(yaml: Any, document: Any) -> str:
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _only_provisioners_differ(before: Authority, after: Authority, count: int) -> None:
    same = before.model_copy(update={"provisioners": ()}) == after.model_copy(update={"provisioners": ()})
    if not same or count != len(after.provisioners):
        raise PkiError("the edit would change more of pki.yaml than was asked, so nothing was done", fix="edit it by hand")


def new_file(
    *,
    name: str,
    organisation: str | None = None,
    address: str = "127.0.0.1:8443",
    dns_names: Sequence[str] = ("localhost", "127.0.0.1"),
    permitted_dns: Sequence[str] = (),
    root_location: str = "here",
    root_lifetime: str = "10y",
    intermediate_lifetime: str = "5y",
    root_key: str = "P-384",
    intermediate_key: str = "P-256",
    acme_http_port: int | None = None,
    acme_tls_port: int | None = None,
) -> str:
    """Return the first pki.yaml, with comments that teach. Raises ConfigError if a value is not allowed."""
    quote = partial(json.dumps, ensure_ascii=False)  # JSON strings are YAML strings; nothing that a person typed can leave its quotes
    lines = [
        "# What this certificate authority is. 'pki plan' shows what a change would do, 'pki apply' does it.",
        "# Durations: 90d, 24h, 5y. No secret belongs in this file. All keys: 'pki config schema'.",
        "version: 1",
        f"name: {_scalar(name, quote)}",
    ]
    if organisation:
        lines.append(f"organisation: {_scalar(organisation, quote)}")
    lines += [
        "",
        "# The root signs the intermediate and its own revocation list, and nothing else. Its subject, key and",
        "# lifetime are fixed once it is made.",
        "root:",
        f"  location: {root_location}  # or: {'offline' if root_location == 'here' else 'here'}",
        f"  key: {{type: {root_key}, label: root, id: \"01\"}}",
        f"  lifetime: {root_lifetime}",
        "",
        "# The intermediate is online: step-ca signs leaves with it, through the HSM.",
        "intermediate:",
        f"  key: {{type: {intermediate_key}, label: intermediate, id: \"02\"}}",
        f"  lifetime: {intermediate_lifetime}",
        *_constraint_lines(permitted_dns, dns_names, quote),
        "",
        "server:",
        f"  address: {quote(address)}",
        f"  dns_names: [{', '.join(quote(one) for one in dns_names)}]  # the first is the one that clients are told",
    ]
    if acme_http_port is not None:
        lines.append(f"  acme_http_port: {acme_http_port}  # http-01 looks here instead of port 80")
    if acme_tls_port is not None:
        lines.append(f"  acme_tls_port: {acme_tls_port}  # tls-alpn-01 looks here instead of port 443")
    lines += [
        "",
        "# Who gets a leaf, and how. Add more with 'pki provisioner add'.",
        "provisioners:",
        "  - type: acme",
        "    name: acme",
        "",
        "# How long leaves live.",
        "claims:",
        "  min_tls: 5m",
        "  default_tls: 24h",
        "  max_tls: 24h",
    ]
    text = "\n".join(lines) + "\n"
    load_text(text, _HERE)
    return text


def _scalar(value: str, quote: Any) -> str:
    plain = value.replace(" ", "").isalnum() and value.isascii() and value[:1].isalpha()
    return value if plain and value.lower() not in ("yes", "no", "on", "off", "true", "false", "null", "y", "n") else str(quote(value))


def _constraint_lines(permitted: Sequence[str], dns_names: Sequence[str], quote: Any) -> list[str]:
    """Permit what is asked, and the names of the CA itself: it could not serve otherwise."""
    from stepca_pki.config.checks import name_is_permitted
    from stepca_pki.values import is_ip

    if not permitted:
        return []
    domains = list(permitted)
    own = [name for name in dns_names if not is_ip(name) and not name_is_permitted(name, {"permitted_dns": domains})]
    networks = [f"{name}/{128 if ':' in name else 32}" for name in dns_names if is_ip(name)]
    lines = ["  name_constraints:", f"    permitted_dns: [{', '.join(map(quote, [*domains, *own]))}]"]
    return [*lines, *([f"    permitted_ip: [{', '.join(map(quote, networks))}]"] if networks else [])]
