"""The model of pki.yaml: what an authority can be. Values only; config/load.py reads the file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, model_validator

from stepca_pki.provisioners.base import Provisioner
from stepca_pki.provisioners.registry import parse_provisioner
from stepca_pki.values import Address, Claims, Duration, Host, KeyType, Line, Model, parse_duration, shortened

MIN_SESSIONS = 2  # step-ca refuses 1
PROMPT = "prompt"


def _parse_pin_source(text: str) -> str:
    kind, colon, name = text.partition(":")
    if text == PROMPT or not colon:
        return text
    if kind not in ("file", "env", "credential") or not name:
        raise ValueError("is not a PIN source; write a path, env:NAME, credential:NAME or prompt")
    return text


PinSource = Annotated[str, Field(min_length=1), AfterValidator(_parse_pin_source)]
"""Where a PIN is read at use: a path (relative to the home), ``env:NAME``, ``credential:NAME``, ``prompt``."""


class TokenRef(Model):
    """The token that holds a key. Named, never numbered: slot numbers move."""

    module: str = "softhsm2"
    """Path of the PKCS#11 module, or a name from `pki hsm modules`."""
    label: Line | None = Field(default=None, max_length=32)
    serial: Line | None = Field(default=None, max_length=16)
    pin_source: PinSource
    """Where the PIN is read at use; the PIN itself never enters the model."""
    so_pin_source: PinSource | None = None
    """Needed only to initialise the token."""
    environment: dict[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")], str] = Field(default={})
    """What the module wants in its environment, such as SOFTHSM2_CONF. Relative paths are not expanded."""
    max_sessions: int = Field(default=16, ge=MIN_SESSIONS, le=1024)

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if (self.label is None) == (self.serial is None):
            raise ValueError("give exactly one of 'label' and 'serial'")
        return self


_KEY_TYPES_REFUSED = {"ed25519", "ed448", "eddsa"}


def _parse_key_type(value: object) -> object:
    if isinstance(value, str) and value.lower() in _KEY_TYPES_REFUSED:
        raise ValueError("is not usable: step-ca cannot sign with EdDSA through PKCS#11; use P-256 or P-384")
    return value


class Key(Model):
    """A key on a token: its type, and the two names by which step-ca finds exactly one."""

    type: Annotated[KeyType, BeforeValidator(_parse_key_type)]
    label: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")]
    id: Annotated[str, Field(pattern=r"^(?:[0-9a-f]{2}){1,20}$")]
    """CKA_ID in plain hex."""
    backup: bool = False
    """Whether the key may ever leave the token, wrapped. Fixed when the key is generated."""


class Subject(Model):
    """A distinguished name, most specific part first. Lengths: RFC 5280 appendix A.1, upper bounds."""

    common_name: Line
    organisation: Line | None = None
    organisational_unit: Line | None = None
    locality: Line | None = None
    province: Line | None = None
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] | None = None


_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")  # RFC 3986 section 2; no braces: URLs enter templates


def _parse_url(text: str) -> str:
    if not _URL.fullmatch(text):
        raise ValueError("has a character that RFC 3986 does not allow in a URL")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not an http:// or https:// URL")
    return text


Url = Annotated[str, AfterValidator(_parse_url)]


class RootCrl(Model):
    """The list of intermediates that the root has revoked."""

    lifetime: Duration = parse_duration("180d")
    """From thisUpdate to nextUpdate: the next ceremony is due before."""
    url: Url | None = None
    """Where verifiers fetch it; goes into the intermediate as CRL distribution point."""


class Root(Model):
    """The self-signed CA certificate and its key."""

    location: Literal["here", "offline"] = "here"
    """offline: the key is on another machine, and signing waits for a ceremony."""
    token: TokenRef | None = None
    """None: the embedded SoftHSM2."""
    key: Key = Key(type=KeyType.P384, label="root", id="01")
    subject: Subject | None = None
    lifetime: Duration = parse_duration("10y")
    path_length: Annotated[int, Field(ge=1, le=10)] | None = 1
    """How many intermediates may follow; None is no limit."""
    crl: RootCrl = RootCrl()
    certificate_url: Url | None = None
    """Where verifiers fetch the root; goes into the intermediate as AIA caIssuers."""

    @property
    def is_here(self) -> bool:
        return self.location == "here"


_CONSTRAINT = re.compile(r"\.?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")


def _parse_constraint(text: str) -> str:
    if not _CONSTRAINT.fullmatch(text.lower()):
        raise ValueError("is not a DNS constraint; write a domain such as int.example, without '*'")
    return text.lower()


def _parse_network(text: str) -> str:
    import ipaddress

    return str(ipaddress.ip_network(text))


DnsConstraint = Annotated[str, AfterValidator(_parse_constraint)]
Network = Annotated[str, AfterValidator(_parse_network)]


class NameConstraints(Model):
    """The names for which the intermediate may issue, as a critical extension (RFC 5280 section 4.2.1.10)."""

    permitted_dns: tuple[DnsConstraint, ...] = ()
    excluded_dns: tuple[DnsConstraint, ...] = ()
    permitted_ip: tuple[Network, ...] = ()
    excluded_ip: tuple[Network, ...] = ()
    permitted_email: tuple[Line, ...] = ()
    excluded_email: tuple[Line, ...] = ()

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not any(dict(self).values()):
            raise ValueError("lists no names; RFC 5280 forbids an empty constraint")
        return self


class Intermediate(Model):
    """The CA certificate signed by the root; its key is online in step-ca."""

    token: TokenRef | None = None
    """None: the embedded SoftHSM2."""
    key: Key = Key(type=KeyType.P256, label="intermediate", id="02")
    subject: Subject | None = None
    lifetime: Duration = parse_duration("5y")
    name_constraints: NameConstraints | None = None


class Badger(Model):
    type: Literal["badgerv2"] = "badgerv2"


class PostgreSql(Model):
    type: Literal["postgresql"]
    url: str
    """postgresql://user@host/database?sslmode=…, never with a password."""
    password_file: Path | None = None
    """A PostgreSQL password file (.pgpass format), mode 0600."""

    @model_validator(mode="after")
    def _no_secret(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme not in ("postgresql", "postgres"):
            raise ValueError("url must start with postgresql://")
        if parts.password is not None or "password=" in parts.query:
            raise ValueError("url holds a password; put it into a password file and name that in password_file")
        return self


class LeafCrl(Model):
    """The list of leaves that step-ca has revoked; served at /crl."""

    url: Url
    """The address verifiers fetch it from: CRL distribution point and issuing distribution point."""
    lifetime: Duration = parse_duration("24h")


class Server(Model):
    """How step-ca serves."""

    address: Address = "127.0.0.1:8443"
    dns_names: Annotated[tuple[Host, ...], Field(min_length=1)] = ("localhost", "127.0.0.1")
    """Names and addresses in the server's own certificate; the first is the one that clients are told."""
    database: Annotated[Badger | PostgreSql, Field(discriminator="type")] = Badger()
    log: Literal["json", "text"] = "json"
    insecure_address: Address | None = None
    """Plain HTTP for the CRL alone."""
    metrics_address: Address | None = None
    crl: LeafCrl | None = None
    acme_http_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Where http-01 looks instead of port 80. For labs: ACME clients on the Internet expect 80."""
    acme_tls_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Where tls-alpn-01 looks instead of port 443. For labs."""
    resolver: Address | None = None
    """DNS server that step-ca asks, instead of the system's."""


def _parse_one(value: Any) -> Provisioner:
    return value if isinstance(value, Provisioner) else parse_provisioner(value)


AnyProvisioner = Annotated[SerializeAsAny[Provisioner], BeforeValidator(_parse_one)]


class Authority(Model):
    """One declared authority: the whole of pki.yaml."""

    version: Literal[1] = 1
    name: Line
    organisation: Line | None = None
    root: Root = Root()
    intermediate: Intermediate = Intermediate()
    server: Server = Server()
    provisioners: tuple[AnyProvisioner, ...] = ()
    claims: Claims = Claims()

    @property
    def root_subject(self) -> Subject:
        return self.root.subject or Subject(common_name=shortened(f"{self.name} Root"), organisation=self.organisation)

    @property
    def intermediate_subject(self) -> Subject:
        return self.intermediate.subject or Subject(
            common_name=shortened(f"{self.name} Intermediate"), organisation=self.organisation
        )
