"""`pki cert`: explain certificates."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from stepca_pki.cli.context import HomeOption, Output, OutputOption, coloured, emit, locate_home, new_app
from stepca_pki.errors import NotHealthy, UsageError

app = new_app("Explain a certificate or a served chain.")


@app.callback()
def _group() -> None:
    """Explain a certificate or a served chain."""


@app.command("show")
def show(
    target: Annotated[str, typer.Argument(metavar="FILE|HOST:PORT", help="A PEM or DER file, or a TLS server.")],
    name: Annotated[
        str | None, typer.Option("--name", help="The name it must be for [the HOST].", show_default=False)
    ] = None,
    roots: Annotated[Path | None, typer.Option("--roots", help="Trust only the certificates in this file.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 4 if it is not trusted.")] = False,
    home: HomeOption = None,
    output: OutputOption = Output.text,
) -> None:
    """Explain a certificate, or the chain a server sends: by depth, trusted or why not, days left.

    Trusted are the home's root, where there is a home, and what this machine trusts; or --roots alone.

    \b
    Examples:
      pki cert show certs/intermediate.crt
      pki cert show www.int.example:443
      pki cert show localhost:8443 --roots certs/root.crt --check
    """
    from datetime import UTC, datetime

    from stepca_pki.x509.explain import explain

    served, expected = _served(target, name)
    now = datetime.now(UTC)
    trusted, source = _trusted(roots, home)
    found = explain(served, trusted, name=expected, now=now)
    if not found.trusted and roots is None:  # the machine's own roots are many: asked only where ours do not do
        from stepca_pki.stepca.served import system_roots

        found, source = explain(served, [*trusted, *system_roots()], name=expected, now=now), f"{source}this machine's"
    value = {"target": target, "trusted": found.trusted, "reasons": list(found.reasons), "trust": source,
             "chain": [asdict(link) for link in found.links]}  # fmt: skip
    emit(output, value, lambda: _text(value))
    if check and not found.trusted:
        raise NotHealthy(f"{target} is not trusted: {found.reasons[0]}")


def _served(target: str, name: str | None) -> tuple[list[Any], str | None]:
    from stepca_pki.stepca.served import certificates_in, served_by
    from stepca_pki.values import split_address

    if Path(target).is_file():
        return certificates_in(Path(target)), name
    try:
        host, port = split_address(target)
    except ValueError:
        raise UsageError(
            f"{target} is neither a file nor HOST:PORT", fix="give a path, or a host with its port"
        ) from None
    host = host or "localhost"
    return served_by(host, port, name), name or host


def _trusted(roots: Path | None, home: Path | None) -> tuple[list[Any], str]:
    from stepca_pki.stepca.served import certificates_in

    if roots is not None:
        return certificates_in(roots), str(roots)
    at = locate_home(home)
    if at.root_certificate.is_file():
        return certificates_in(at.root_certificate), f"{at.root_certificate}, "
    return [], ""


def _text(value: dict[str, Any]) -> str:
    lines = []
    for link in reversed(value["chain"]):
        lines.append(f"depth {link['depth']}  {link['kind']} ({link['source']})")
        lines.append(f"  subject   {link['subject']}")
        lines.append(f"  issuer    {link['issuer']}")
        if link["names"]:
            lines.append(f"  names     {', '.join(link['names'])}")
        lines.append(f"  key       {link['key']}, serial {link['serial']}")
        lines.append(
            f"  valid     {link['not_before']:%Y-%m-%d %H:%M} to {link['not_after']:%Y-%m-%d %H:%M} UTC, {_left(link)}"
        )
        lines.append(f"  sha-256   {link['sha256']}")
    verdict = "trusted" if value["trusted"] else "NOT trusted"
    if coloured():
        verdict = typer.style(verdict, fg="green" if value["trusted"] else "red")
    lines.append(f"{verdict} (roots: {value['trust'].rstrip(', ')})")
    return "\n".join([*lines, *(f"  because {reason}" for reason in value["reasons"])])


def _left(link: dict[str, Any]) -> str:
    return f"{link['days_left']} days left" if link["days_left"] >= 0 else "expired"
