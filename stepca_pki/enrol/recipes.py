"""Recipes: everything a web server needs for a certificate that comes and renews by itself.

Pure but for the writing, which enrol's command does. Adding a server is one entry in SERVERS and its template.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from stepca_pki.config.checks import name_is_permitted
from stepca_pki.config.model import Authority
from stepca_pki.enrol.clients import CLIENTS, Order
from stepca_pki.errors import UsageError
from stepca_pki.provisioners.acme import Acme
from stepca_pki.provisioners.base import effective_claims
from stepca_pki.render.text import render_text
from stepca_pki.values import format_duration, is_ip, parse_host, split_address

_SAFE_PATH = re.compile(r"/[A-Za-z0-9/._+@-]*")


@dataclass(frozen=True)
class Server:
    """A web server: its template, and how it is told to reload."""

    template: str
    file: str
    reload: str
    package: str


SERVERS = {"nginx": Server("nginx/site.conf.j2", "site.conf", "nginx -s reload", "nginx")}


@dataclass(frozen=True)
class Wish:
    """What the person asked for. Paths are those on the web server."""

    server: str
    name: str
    client: str = "certbot"
    provisioner: str | None = None
    folder: Path | None = None
    webroot: Path = Path("/var/www/acme")
    document_root: Path = Path("/var/www/html")
    http_port: int = 80
    https_port: int = 443
    listen: str | None = None
    """One address instead of all, IPv4 and IPv6."""
    reload: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class RecipeFile:
    name: str
    text: str
    mode: int


@dataclass(frozen=True)
class Recipe:
    """*files* belong into *folder* on the web server; *steps* is what to do there, in order."""

    folder: Path
    directory: str
    files: tuple[RecipeFile, ...]
    steps: tuple[str, ...]


def make_recipe(authority: Authority, root_pem: str, wish: Wish) -> Recipe:
    """Return the recipe for *wish*. Raises UsageError if this authority would not give that certificate."""
    name = _checked_name(authority, wish.name)
    provisioner = _acme_provisioner(authority, wish.provisioner)
    folder = wish.folder or Path("/etc/pki-enrol") / name
    for path in (folder, wish.webroot, wish.document_root):
        _check_path(path)
    directory = f"{wish.url or base_url(authority)}/acme/{provisioner.name}/directory"
    server = SERVERS[wish.server]
    reload_command = wish.reload or server.reload
    client = CLIENTS[wish.client](Order(name, directory, f"{folder}/root.crt", str(wish.webroot), str(folder)))
    lifetime = effective_claims(authority.claims, provisioner.claims).default_tls or timedelta(hours=24)
    period = lifetime / 3
    values = {
        "name": name,
        "ip": is_ip(name),
        "directory": directory,
        "folder": str(folder),
        "webroot": str(wish.webroot),
        "document_root": str(wish.document_root),
        "http_port": wish.http_port,
        "https_port": wish.https_port,
        "addresses": _addresses(wish.listen),
        "reload_command": reload_command,
        "locate": client.locate,
        "lifetime": format_duration(lifetime),
        "period_seconds": int(period.total_seconds()),
        "jitter_seconds": int(period.total_seconds() // 10),
    }
    site = render_text(server.template, **values)
    files = (
        RecipeFile("root.crt", root_pem, 0o644),
        RecipeFile(server.file, site, 0o644),
        RecipeFile("first.sh", render_text("acme/first.sh.j2", **values), 0o755),
        RecipeFile("deploy.sh", render_text("acme/deploy.sh.j2", **values), 0o755),
        _command_file("issue.sh", f"Get the first certificate of {name}.", client.issue, client.environment),
        _command_file(
            "renew.sh", f"Renew the certificate of {name}; the timer runs it.", client.renew, client.environment
        ),
        RecipeFile(f"pki-renew-{name}.service", render_text("acme/renew.service.j2", **values), 0o644),
        RecipeFile(f"pki-renew-{name}.timer", render_text("acme/renew.timer.j2", **values), 0o644),
    )
    return Recipe(folder, directory, files, _steps(name, folder, server, client.package, period))


def _addresses(listen: str | None) -> list[str]:
    if listen is None:
        return ["0.0.0.0", "[::]"]  # noqa: S104  # a web server is there for everybody
    if not is_ip(listen):
        raise UsageError(f"--listen {listen}: is not an IP address", fix="give one address of the web server")
    return [f"[{listen}]" if ":" in listen else listen]


def base_url(authority: Authority) -> str:
    _, port = split_address(authority.server.address)
    host = authority.server.dns_names[0]
    return f"https://{f'[{host}]' if ':' in host else host}:{port}"


def _checked_name(authority: Authority, name: str) -> str:
    try:
        name = parse_host(name)
    except ValueError as error:
        raise UsageError(f"--name {name}: {error}", fix="give the DNS name or IP address of the web server") from None
    constraints = authority.intermediate.name_constraints
    if constraints is not None and not name_is_permitted(name, dict(constraints)):
        raise UsageError(
            f"this authority may not issue for '{name}': it is outside the intermediate's name constraints",
            fix="permit the name in pki.yaml (intermediate.name_constraints), then 'pki apply'",
        )
    return name


def _acme_provisioner(authority: Authority, name: str | None) -> Acme:
    found = [item for item in authority.provisioners if isinstance(item, Acme) and name in (None, item.name)]
    able = [item for item in found if "http-01" in item.challenges]
    if not able:
        what = f"'{name}'" if name else "any"
        raise UsageError(f"there is no ACME provisioner {what} that offers http-01", fix="pki provisioner add acme")
    return able[0]


def _check_path(path: Path) -> None:
    """These paths enter nginx's and systemd's syntax: characters that mean something there are refused."""
    if not _SAFE_PATH.fullmatch(str(path)) or ".." in path.parts:
        raise UsageError(f"{path}: must be absolute, of letters, digits and . _ + @ - only", fix="choose another path")


def _command_file(
    name: str, purpose: str, commands: tuple[tuple[str, ...], ...], environment: dict[str, str]
) -> RecipeFile:
    text = render_text("acme/command.sh.j2", purpose=purpose, commands=commands, environment=environment)
    return RecipeFile(name, text, 0o755)


def _steps(name: str, folder: Path, server: Server, client_package: str, period: timedelta) -> tuple[str, ...]:
    hours = max(1, int(period.total_seconds() // 3600))
    return (
        f"install: apt-get install {server.package} {client_package} openssl",
        f"put these files into {folder} (pki enrol --write does it on this machine)",
        f"{folder}/first.sh",
        f"ln -s {folder}/{server.file} /etc/nginx/conf.d/{name}.conf && nginx -t && {server.reload}",
        f"{folder}/issue.sh",
        f"cp {folder}/pki-renew-{name}.* /etc/systemd/system/ && systemctl enable --now pki-renew-{name}.timer",
        f"  without systemd, in cron: 17 */{hours} * * * root {folder}/renew.sh",
        f"on each client: trust {folder}/root.crt (pki trust install --file root.crt)",
    )
