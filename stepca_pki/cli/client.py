"""`pki token` and `pki bootstrap`: the two halves of enrolling a machine that is not the CA's."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from stepca_pki.cli.context import HomeOption, Output, OutputOption, emit, existing_home, locate_home, new_app, note
from stepca_pki.errors import UsageError

app = new_app()

ProvisionerOption = Annotated[
    str | None, typer.Option("--provisioner", help="JWK provisioner [the only one].", show_default=False)
]
CaUrlOption = Annotated[
    str | None, typer.Option("--ca-url", help="The CA [the home's, or the one of 'pki bootstrap'].", show_default=False)
]
RootOption = Annotated[
    Path | None, typer.Option("--root", help="Root certificate of that CA, with --ca-url.", show_default=False)
]

_PATHS = {"sign": "/1.0/sign", "revoke": "/1.0/revoke"}


@app.command("token")
def token(
    subject: Annotated[str, typer.Argument(help="Common name and default name; with --for revoke the serial.")],
    san: Annotated[list[str] | None, typer.Option("--san", help="A name, address, e-mail or URI. Repeat.")] = None,
    provisioner: ProvisionerOption = None,
    purpose: Annotated[str, typer.Option("--for", help="sign or revoke.")] = "sign",
    lifetime: Annotated[str, typer.Option("--lifetime", help="How long it may be used, at most 1h.")] = "5m",
    write: Annotated[
        Path | None, typer.Option("--write", help="Write it there (mode 0600) instead of printing it.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Mint a one-time token: whoever has it gets one certificate for these names. Run it on the CA's machine.

    \b
    Examples:
      pki token www.int.example
      pki token db1 --san db1.int.example --san 10.0.0.5 --write db1.token
      pki token 1234567890 --for revoke
    """
    from stepca_pki.config.load import load
    from stepca_pki.enrol.leaf import mint_token, token_provisioner
    from stepca_pki.files import SECRET, write_new

    at = existing_home(home)
    authority = load(at.config)
    if purpose not in _PATHS:
        raise UsageError(f"there is no token for '{purpose}'", fix="the purposes are: sign, revoke")
    life = duration(lifetime)
    if life > timedelta(hours=1):
        raise UsageError(f"a token for {lifetime} could be stolen for as long", fix="at most 1h")
    chosen = token_provisioner(authority, provisioner)
    minted = mint_token(
        at, authority, chosen, path=_PATHS[purpose], subject=subject, sans=san or [subject], lifetime=life
    )
    if write is None:
        typer.echo(minted)
    else:
        write_new(write, minted + "\n", SECRET)
        note(f"the token is in {write}; it can be used once, for {lifetime}")


def duration(text: str) -> timedelta:
    """Read a duration that was given as an option. Raises UsageError."""
    from stepca_pki.values import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"'{text}' {error}") from None


@app.command("bootstrap")
def bootstrap(
    ca_url: Annotated[str, typer.Option("--ca-url", help="https://HOST:PORT of the CA.")],
    fingerprint: Annotated[str, typer.Option("--fingerprint", help="SHA-256 of its root, told by another way.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where to remember it [~/.config/stepca-pki].", show_default=False)
    ] = None,
    output: OutputOption = Output.text,
) -> None:
    """Fetch the root of a CA, check it against the fingerprint, and remember both for 'pki cert issue'.

    \b
    Example:
      pki bootstrap --ca-url https://ca.int.example:8443 --fingerprint 5A:…
    """
    from stepca_pki.enrol.bootstrap import bootstrap as fetch
    from stepca_pki.enrol.bootstrap import client_folder

    known = fetch(ca_url, fingerprint, folder or client_folder())
    value = {"url": known.url, "root": str(known.root)}
    emit(output, value, lambda: f"{known.url} is the CA; its root is in {known.root}")


def connect(home: Path | None, ca_url: str | None, root: Path | None) -> tuple[Any, Path]:
    """Return a client of the CA that is meant, and its root: options, then the home, then the bootstrapped CA."""
    from stepca_pki.config.load import load
    from stepca_pki.enrol.bootstrap import client_folder, known_ca
    from stepca_pki.stepca.api import Api

    if ca_url is not None:
        if root is None:
            raise UsageError(
                "--ca-url without --root: nothing says whom to trust", fix="give --root, or 'pki bootstrap'"
            )
        return Api.remote(ca_url, root), root
    at = locate_home(home)
    if at.config.is_file() and (home is not None or not os.environ.get("PKI_CLIENT")):
        return Api.local(at, load(at.config)), at.root_certificate
    known = known_ca(client_folder())
    if known is None:
        raise UsageError(
            "there is no authority here, and none is known",
            fix="run 'pki bootstrap --ca-url … --fingerprint …', or give --home",
        )
    return Api.remote(known.url, known.root), known.root
