"""Fixed contents of the certificates that the root signs. RFC 5280 section 4.2."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cryptography import x509


@dataclass(frozen=True)
class Constraints:
    """Names for which an intermediate may issue (RFC 5280 section 4.2.1.10). Networks in CIDR form."""

    permitted_dns: tuple[str, ...] = ()
    excluded_dns: tuple[str, ...] = ()
    permitted_ip: tuple[str, ...] = ()
    excluded_ip: tuple[str, ...] = ()
    permitted_email: tuple[str, ...] = ()
    excluded_email: tuple[str, ...] = ()


@dataclass(frozen=True)
class RootProfile:
    """A self-signed CA certificate. *path_length* None: no limit."""

    subject: x509.Name
    lifetime: timedelta
    path_length: int | None


@dataclass(frozen=True)
class IntermediateProfile:
    """A CA certificate signed by the root."""

    subject: x509.Name
    lifetime: timedelta
    path_length: int = 0
    constraints: Constraints | None = None
    crl_url: str | None = None
    issuer_url: str | None = None


def name_constraints(constraints: Constraints) -> x509.NameConstraints:
    """Return *constraints* as the extension; an absent side is None, as RFC 5280 wants."""

    def side(dns: tuple[str, ...], networks: tuple[str, ...], emails: tuple[str, ...]) -> list[Any] | None:
        names: list[Any] = [x509.DNSName(name) for name in dns]
        names += [x509.IPAddress(ipaddress.ip_network(network)) for network in networks]
        names += [x509.RFC822Name(email) for email in emails]
        return names or None

    return x509.NameConstraints(
        permitted_subtrees=side(constraints.permitted_dns, constraints.permitted_ip, constraints.permitted_email),
        excluded_subtrees=side(constraints.excluded_dns, constraints.excluded_ip, constraints.excluded_email),
    )
