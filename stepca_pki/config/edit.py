"""Writing and changing pki.yaml as text: comments, order and layout stay.

A changed text is read again, and must mean exactly the change that was asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from stepca_pki.config.load import load_text
from stepca_pki.config.model import Authority
from stepca_pki.errors import PkiError, UsageError
from stepca_pki.home import CONFIG_NAME

_HERE = Path(CONFIG_NAME)


def add_provisioner(text: str, entry: Mapping[str, Any]) -> str:
    """Return *text* with one provisioner more, after the last. Raises UsageError if the name is taken, ConfigError."""
    before = load_text(text, _HERE)
    if any(item.name.lower() == str(entry.get("name", "")).lower() for item in before.provisioners):
        raise UsageError(
            f"there is a provisioner '{entry['name']}' already", fix="choose another name, or remove that one first"
        )
    lines, found = text.splitlines(), _provisioners(text)
    if found is None:
        lines += ["", "provisioners:", *_block(entry, 2)]
    elif found.flow_style or not isinstance(found, yaml.SequenceNode) or not found.value:
        lines = _rewritten(lines, found, [*_plain_items(text), dict(entry)])
    else:
        end = _last_line(found.value[-1]) + 1
        lines[end:end] = _block(entry, found.start_mark.column)
    return _checked(before, lines, len(before.provisioners) + 1)


def remove_provisioner(text: str, name: str) -> str:
    """Return *text* without the provisioner *name* and the comments inside it. Raises UsageError if there is none."""
    before = load_text(text, _HERE)
    index = next((number for number, item in enumerate(before.provisioners) if item.name == name), None)
    if index is None:
        names = ", ".join(item.name for item in before.provisioners) or "none"
        raise UsageError(f"there is no provisioner '{name}'", fix=f"the provisioners are: {names}")
    lines, found = text.splitlines(), _provisioners(text)
    if found.flow_style or len(found.value) == 1:
        items = _plain_items(text)
        lines = _rewritten(lines, found, items[:index] + items[index + 1 :])
    else:
        node = found.value[index]
        del lines[node.start_mark.line : _last_line(node) + 1]
    return _checked(before, lines, len(before.provisioners) - 1)


def _provisioners(text: str) -> Any:
    """Return the node of `provisioners`, with its place in the text; None if the key is not there."""
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    return next((value for key, value in root.value if key.value == "provisioners"), None)


def _plain_items(text: str) -> list[Any]:
    return list(yaml.safe_load(text).get("provisioners") or [])


def _last_line(node: Any) -> int:
    """The line (from 0) of the last text of a block node: its end mark lies behind the comments that follow."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style or not node.value:
        return int(node.end_mark.line if node.end_mark.column else node.end_mark.line - 1)
    last = node.value[-1]
    return _last_line(last[1] if isinstance(node, yaml.MappingNode) else last)


def _block(entry: Mapping[str, Any], column: int) -> list[str]:
    dumped = yaml.safe_dump([dict(entry)], sort_keys=False, allow_unicode=True, width=4096)
    return [" " * column + line for line in dumped.splitlines()]


def _rewritten(lines: list[str], node: Any, items: list[Any]) -> list[str]:
    """Replace the value of `provisioners` by *items* in block form; what stands before and behind it stays."""
    start, end = node.start_mark, node.end_mark
    head = lines[start.line][: start.column].rstrip()
    block_end = end.line if node.flow_style or not node.value else _last_line(node) + 1
    tail = [lines[end.line][end.column :]] if node.flow_style or not node.value else []
    body = [line for item in items for line in _block(item, 2)]
    if not head:  # a block sequence starts on a line of its own, below its key
        key = lines[start.line - 1]
        return [
            *lines[: start.line - 1],
            *([key, *body] if body else [key.replace(":", ": []", 1)]),
            *lines[block_end:],
        ]
    rest = [line for line in tail if line.strip()]
    new = [f"{head}{rest[0] if rest else ''}", *body] if body else [f"{head} []{rest[0] if rest else ''}"]
    return [*lines[: start.line], *new, *lines[(end.line + 1 if tail else block_end) :]]


def _checked(before: Authority, lines: list[str], count: int) -> str:
    changed = "\n".join(lines) + "\n"
    after = load_text(changed, _HERE)
    same = before.model_copy(update={"provisioners": ()}) == after.model_copy(update={"provisioners": ()})
    if not same or count != len(after.provisioners):
        raise PkiError(
            "the edit would change more of pki.yaml than was asked, so nothing was done", fix="edit it by hand"
        )
    return changed


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
    quote = partial(
        json.dumps, ensure_ascii=False
    )  # JSON strings are YAML strings; nothing that a person typed can leave its quotes
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
        f'  key: {{type: {root_key}, label: root, id: "01"}}',
        f"  lifetime: {root_lifetime}",
        "",
        "# The intermediate is online: step-ca signs leaves with it, through the HSM.",
        "intermediate:",
        f'  key: {{type: {intermediate_key}, label: intermediate, id: "02"}}',
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
    return (
        value
        if plain and value.lower() not in ("yes", "no", "on", "off", "true", "false", "null", "y", "n")
        else str(quote(value))
    )


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
