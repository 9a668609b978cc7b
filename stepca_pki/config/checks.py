"""Contradictions within pki.yaml that no single field shows. Pure.

They read plain values, not the model, so that what can be judged is judged even when another part of the file is
wrong: a person gets all faults at once.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from stepca_pki.provisioners.base import effective_claims
from stepca_pki.values import (
    BUILT_IN_CLAIMS,
    CLAIM_KINDS,
    Claims,
    format_duration,
    is_ip,
    parse_duration,
    split_address,
)

RESERVED_NAME = "pki-canary"


class Finding(NamedTuple):
    """What is wrong at one place of the file, and what to change."""

    place: tuple[str | int, ...]
    problem: str
    fix: str


@dataclass(frozen=True)
class _Values:
    """Reads nested plain values; what is absent or of another kind is None."""

    root: Any

    def get(self, *place: str | int) -> Any:
        value = self.root
        for part in place:
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, (list, tuple)) and isinstance(part, int):
                value = value[part]
            else:
                return None
        return value

    def mapping(self, *place: str | int) -> Mapping[str, Any]:
        value = self.get(*place)
        return value if isinstance(value, Mapping) else {}

    def items(self, *place: str | int) -> list[Any]:
        value = self.get(*place)
        return list(value) if isinstance(value, (list, tuple)) else []

    def duration(self, *place: str | int, default: str | None = None) -> timedelta | None:
        value = self.get(*place)
        try:
            return parse_duration(default if value is None else value)
        except ValueError:
            return None


def contradictions(values: Any) -> Iterator[Finding]:
    """Return every contradiction in the plain values of a file."""
    seen = _Values(values)
    yield from _lifetimes(seen)
    yield from _claims(seen)
    yield from _provisioner_names(seen)
    yield from _constrained_names(seen)
    yield from _keys(seen)
    yield from _addresses(seen)
    yield from _sources(seen)


# --- times -----------------------------------------------------------------------------------------


def _lifetimes(seen: _Values) -> Iterator[Finding]:
    root = seen.duration("root", "lifetime", default="10y")
    intermediate = seen.duration("intermediate", "lifetime", default="5y")
    crl = seen.duration("root", "crl", "lifetime", default="180d")
    if root and intermediate and intermediate > root:
        yield Finding(
            ("intermediate", "lifetime"),
            f"{format_duration(intermediate)} is longer than the life of the root ({format_duration(root)})",
            "shorten it, or lengthen root.lifetime",
        )
    if root and crl and crl > root:
        yield Finding(("root", "crl", "lifetime"), "is longer than the life of the root", "shorten it")


def _claims(seen: _Values) -> Iterator[Finding]:
    authority = _parse_claims(seen.mapping("claims"))
    if authority is None:
        return
    yield from _one_claims(("claims",), authority, authority.over(BUILT_IN_CLAIMS), seen)
    for index, item in enumerate(seen.items("provisioners")):
        own = _parse_claims(item.get("claims") or {}) if isinstance(item, Mapping) else None
        if own is not None and dict(own) != dict(Claims()):
            place = ("provisioners", index, "claims")
            yield from _one_claims(place, own, effective_claims(authority, own), seen)


def _parse_claims(values: Mapping[str, Any]) -> Claims | None:
    try:
        return Claims.model_validate(dict(values))
    except ValueError:
        return None  # reported by the model


def _one_claims(place: tuple[str | int, ...], own: Claims, effective: Claims, seen: _Values) -> Iterator[Finding]:
    for kind in CLAIM_KINDS:
        yield from _one_kind(place, kind, own, effective)
    longest, life = effective.max_tls, seen.duration("intermediate", "lifetime", default="5y")
    if own.max_tls is not None and longest is not None and life is not None and longest > life:
        yield Finding(
            (*place, "max_tls"),
            f"{format_duration(longest)} is longer than the life of the intermediate ({format_duration(life)})",
            "shorten it, or lengthen intermediate.lifetime",
        )


def _one_kind(place: tuple[str | int, ...], kind: str, own: Claims, effective: Claims) -> Iterator[Finding]:
    """min <= default <= max. step-ca moves a bound silently when only the default is given; we refuse."""
    low, usual, high = (getattr(effective, f"{side}_{kind}") for side in ("min", "default", "max"))
    declared = [side for side in ("min", "default", "max") if getattr(own, f"{side}_{kind}") is not None]
    if not declared:
        return
    if low > high:
        side = "min" if "min" in declared else "max"
        yield Finding(
            (*place, f"{side}_{kind}"),
            f"min_{kind} ({format_duration(low)}) is longer than max_{kind} ({format_duration(high)})",
            f"lower min_{kind} to {format_duration(high)} or less, or raise max_{kind}",
        )
    elif not low <= usual <= high:
        side = "default" if "default" in declared else declared[0]
        yield Finding(
            (*place, f"{side}_{kind}"),
            f"default_{kind} ({format_duration(usual)}) is outside {format_duration(low)} to {format_duration(high)}",
            f"set min_{kind}, default_{kind} and max_{kind} so that they are in order",
        )


# --- names -----------------------------------------------------------------------------------------


def _provisioner_names(seen: _Values) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, item in enumerate(seen.items("provisioners")):
        name = item.get("name") if isinstance(item, Mapping) else None
        if not isinstance(name, str):
            continue
        if name.lower() == RESERVED_NAME:
            yield Finding(("provisioners", index, "name"), "is the name of the health probe", "choose another name")
        if name.lower() in first:
            problem = f"'{name}' is also the name of provisioners[{first[name.lower()]}]"
            yield Finding(("provisioners", index, "name"), problem, "give each provisioner a name of its own")
        first.setdefault(name.lower(), index)


def _constrained_names(seen: _Values) -> Iterator[Finding]:
    constraints = seen.mapping("intermediate", "name_constraints")
    if not constraints:
        return
    names = seen.items("server", "dns_names") or ["localhost", "127.0.0.1"]
    for index, name in enumerate(names):
        if isinstance(name, str) and not name_is_permitted(name, constraints):
            yield Finding(
                ("server", "dns_names", index) if seen.items("server", "dns_names") else ("server", "dns_names"),
                f"'{name}' is outside the intermediate's name constraints, so the CA could not serve under it",
                "permit it in intermediate.name_constraints, or remove it here",
            )


def name_is_permitted(name: str, constraints: Mapping[str, Any]) -> bool:
    """Whether RFC 5280 section 4.2.1.10 lets a leaf have this DNS name or IP address."""
    kind = "ip" if is_ip(name) else "dns"
    within = _in_network if kind == "ip" else _in_domain
    permitted = constraints.get(f"permitted_{kind}") or ()
    excluded = constraints.get(f"excluded_{kind}") or ()
    return (not permitted or any(within(name, one) for one in permitted)) and not any(
        within(name, one) for one in excluded
    )


def _in_domain(name: str, domain: object) -> bool:
    name, base = name.lower(), str(domain).lower()
    return name.endswith(base) if base.startswith(".") else name == base or name.endswith(f".{base}")


def _in_network(address: str, network: object) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(str(network))
    except ValueError:
        return True  # not a network: reported by the model


# --- keys, addresses, sources ----------------------------------------------------------------------


def _keys(seen: _Values) -> Iterator[Finding]:
    """Two keys on one declared token must differ in label and id. The embedded tokens are two."""
    tokens = [seen.mapping(role, "token") for role in ("root", "intermediate")]
    names = [{name: token.get(name) for name in ("module", "label", "serial")} for token in tokens]
    if not all(tokens) or names[0] != names[1]:
        return
    for field, defaults in (("label", ("root", "intermediate")), ("id", ("01", "02"))):
        values = [
            seen.get(role, "key", field) or default
            for role, default in zip(("root", "intermediate"), defaults, strict=True)
        ]
        if values[0] == values[1]:
            yield Finding(
                ("intermediate", "key", field),
                f"is that of the root key on the same token: '{values[0]}'",
                f"give each key a {field} of its own",
            )


def _addresses(seen: _Values) -> Iterator[Finding]:
    ports: dict[int, str] = {}
    for field in ("address", "insecure_address", "metrics_address"):
        value = seen.get("server", field) or ("127.0.0.1:8443" if field == "address" else None)
        try:
            port = split_address(value)[1] if isinstance(value, str) else None
        except ValueError:
            continue
        if port is not None and port in ports:
            yield Finding(("server", field), f"has the port of {ports[port]} ({port})", "choose another port")
        elif port is not None:
            ports[port] = field
    url = seen.get("server", "crl", "url")
    if isinstance(url, str) and url.startswith("http://") and not seen.get("server", "insecure_address"):
        yield Finding(
            ("server", "crl", "url"),
            "is plain HTTP, and server.insecure_address is not declared, so nothing would serve it",
            "declare server.insecure_address, or serve the list elsewhere under an https:// URL",
        )


def _sources(seen: _Values) -> Iterator[Finding]:
    """step-ca reads the intermediate's PIN itself, and can only read a file."""
    source = seen.get("intermediate", "token", "pin_source")
    if isinstance(source, str) and (source == "prompt" or source.startswith(("env:", "credential:"))):
        yield Finding(
            ("intermediate", "token", "pin_source"),
            "is not a file, and step-ca can only read the PIN from a file",
            "name a file of mode 0600",
        )
    if seen.get("root", "location") == "offline" and seen.get("root", "token") is not None:
        yield Finding(
            ("root", "token"), "is declared here, and the root is offline", "remove it, or set location: here"
        )
