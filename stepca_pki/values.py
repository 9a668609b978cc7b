"""Values that a person writes and several rooms read: durations, key types, names, addresses. Pure."""

from __future__ import annotations

import ipaddress
import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema


class Model(BaseModel):
    """What a person writes: frozen, and an unknown key is an error."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", str_strip_whitespace=False)


class KeyType(StrEnum):
    """Key types that step-ca can use through PKCS#11 (no EdDSA: its PKCS#11 library has none)."""

    P256 = "P-256"
    P384 = "P-384"
    P521 = "P-521"
    RSA2048 = "RSA-2048"
    RSA3072 = "RSA-3072"
    RSA4096 = "RSA-4096"

    @property
    def is_rsa(self) -> bool:
        return self.value.startswith("RSA-")

    @property
    def bits(self) -> int:
        """Modulus or field size in bits."""
        return int(self.value.partition("-")[2])


_UNIT_SECONDS = {"y": 365 * 86400, "w": 7 * 86400, "d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:[0-9]{1,9}[ywdhms])+")
_PART = re.compile(r"([0-9]+)([ywdhms])")
MAX_DURATION = timedelta(days=100 * 365)


def parse_duration(text: object) -> timedelta:
    """Return the duration that a person wrote: ``90d``, ``5y`` (a year is 365 days), ``1h30m``.

    Raises ValueError on anything else, on zero, and above 100 years.
    """
    if isinstance(text, timedelta):
        return text
    if not isinstance(text, str) or not _DURATION.fullmatch(text):
        raise ValueError("is not a duration; write a number with a unit, such as 90d, 24h, 5y or 1h30m")
    total = sum(int(number) * _UNIT_SECONDS[unit] for number, unit in _PART.findall(text))
    if not 0 < total <= MAX_DURATION.total_seconds():
        raise ValueError("must be above 0 and at most 100y")
    return timedelta(seconds=total)


def format_duration(duration: timedelta) -> str:
    """Return *duration* as a person would write it; parse_duration reads it back. Whole seconds only."""
    rest, parts = int(duration.total_seconds()), []
    for unit, seconds in _UNIT_SECONDS.items():
        if unit == "w":
            continue
        count, rest = divmod(rest, seconds)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def go_duration(duration: timedelta) -> str:
    """Return *duration* in Go's syntax, which has no days or years: ``2160h0m0s``."""
    minutes, seconds = divmod(int(duration.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}s"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$", "examples": ["90d", "24h", "5y"]}),
]

_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_DNS_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def parse_host(text: object) -> str:
    """Return *text* as a lower-case DNS name (A-labels) or an IP address. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError("must be text; write it in quotes")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    if len(text) > 253 or not _DNS_NAME.fullmatch(text):
        raise ValueError("is not a DNS name or IP address (write internationalised names as A-labels, xn--…)")
    return text.lower()


def is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[v6]:port``; the host may be empty. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("is not host:port, such as 127.0.0.1:8443 or :443")
    bare = host.removeprefix("[").removesuffix("]")
    if (":" in bare) != host.startswith("["):
        raise ValueError("an IPv6 address needs brackets, such as [::1]:8443")
    return (parse_host(bare) if bare else ""), int(port)


def _parse_address(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError("must be text, host:port")
    split_address(text)
    return text


Host = Annotated[str, BeforeValidator(parse_host), WithJsonSchema({"type": "string", "examples": ["ca.int.example"]})]
Address = Annotated[
    str, BeforeValidator(_parse_address), WithJsonSchema({"type": "string", "examples": ["127.0.0.1:8443"]})
]

# One line of printable text: goes into subjects, labels and logs. Excludes controls, line separators and
# direction overrides, which could make a name look like another.
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]*")


MAX_LINE_BYTES = 64  # ub-common-name and ub-organization-name; cryptography counts bytes


def _parse_line(text: Any) -> Any:
    if isinstance(text, str) and (not _PRINTABLE.fullmatch(text) or text != text.strip()):
        raise ValueError("must be one line of printable text without spaces at its ends")
    if isinstance(text, str) and len(text.encode(errors="replace")) > MAX_LINE_BYTES:
        raise ValueError(f"must be at most {MAX_LINE_BYTES} bytes in UTF-8 (letters beyond ASCII count 2 to 4)")
    return text


def shortened(text: str) -> str:
    """Return as much of *text* as a Line may have, cut between characters."""
    return text.encode()[:MAX_LINE_BYTES].decode(errors="ignore").rstrip()


Line = Annotated[str, BeforeValidator(_parse_line), Field(min_length=1, max_length=64)]

# Names of provisioners become part of URLs and file names.
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Claims(Model):
    """Provisioner claims: how long leaves may live, and what may be renewed. None inherits."""

    min_tls: Duration | None = None
    default_tls: Duration | None = None
    max_tls: Duration | None = None
    min_user_ssh: Duration | None = None
    default_user_ssh: Duration | None = None
    max_user_ssh: Duration | None = None
    min_host_ssh: Duration | None = None
    default_host_ssh: Duration | None = None
    max_host_ssh: Duration | None = None
    ssh: bool | None = None
    """Whether SSH certificates may be issued."""
    renewal: bool | None = None
    renewal_after_expiry: bool | None = None
    extensions: bool | None = None
    """Whether leaves carry step-ca's provisioner extension."""

    def over(self, inherited: Claims) -> Claims:
        """Return these claims with what is unset taken from *inherited*."""
        ours = self.model_dump(exclude_none=True)
        return Claims.model_construct(**{**dict(inherited), **{name: getattr(self, name) for name in ours}})


_HOUR = timedelta(hours=1)
_FIVE_MINUTES = timedelta(minutes=5)

BUILT_IN_CLAIMS = Claims(
    min_tls=_FIVE_MINUTES,
    default_tls=24 * _HOUR,
    max_tls=24 * _HOUR,
    min_user_ssh=_FIVE_MINUTES,
    default_user_ssh=16 * _HOUR,
    max_user_ssh=24 * _HOUR,
    min_host_ssh=_FIVE_MINUTES,
    default_host_ssh=720 * _HOUR,
    max_host_ssh=720 * _HOUR,
    ssh=False,
    renewal=True,
    renewal_after_expiry=False,
    extensions=True,
)
"""step-ca's own defaults (authority/config/config.go)."""

CLAIM_KINDS = ("tls", "user_ssh", "host_ssh")
