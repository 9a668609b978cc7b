"""`pki cert`: issue, renew, rekey, revoke and explain certificates."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from stepca_pki.cli.client import CaUrlOption, ProvisionerOption, RootOption, connect, duration
from stepca_pki.cli.context import (
    HomeOption,
    Output,
    OutputOption,
    coloured,
    emit,
    existing_home,
    locate_home,
    new_app,
    note,
)
from stepca_pki.errors import NotHealthy, UsageError

app = new_app("Issue, renew, rekey, revoke and explain certificates.")

CertificateArgument = Annotated[Path, typer.Argument(metavar="CERT", help="The leaf and its chain, PEM.")]
KeyArgument = Annotated[Path, typer.Argument(metavar="KEY", help="Its private key, PEM, mode 0600.")]


@app.command("issue")
def issue(
    name: Annotated[str, typer.Argument(help="Common name, and the name itself unless --san is given.")],
    san: Annotated[list[str] | None, typer.Option("--san", help="A name, address, e-mail or URI. Repeat.")] = None,
    provisioner: ProvisionerOption = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="A token from 'pki token', mode 0600; - is standard input.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option("--cert", help="Where the chain goes [NAME.crt].")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Where the key goes, mode 0600 [NAME.key].")] = None,
    key_type: Annotated[str, typer.Option("--key-type", help="P-256, P-384, P-521, RSA-2048 …")] = "P-256",
    lifetime: Annotated[str | None, typer.Option("--lifetime", help="Life of the leaf [the provisioner's].")] = None,
    p12: Annotated[Path | None, typer.Option("--p12", help="Also write PKCS#12, for browsers and Java.")] = None,
    p12_password_file: Annotated[
        Path | None, typer.Option("--p12-password-file", help="File (0600) with the password for --p12.")
    ] = None,
    ca_url: CaUrlOption = None,
    root: RootOption = None,
    home: HomeOption = None,
    output: OutputOption = Output.text,
) -> None:
    """Issue a certificate for a program, a server or a client. The key is made here and never leaves.

    On the CA's machine the token is minted on the way; elsewhere bring one with --token-file.

    \b
    Examples:
      pki cert issue db1.int.example --san db1.int.example --san 10.0.0.5
      pki cert issue alice@int.example --p12 alice.p12 --p12-password-file password
      pki cert issue web2.int.example --token-file web2.token
    """
    from stepca_pki.enrol import leaf as leaves
    from stepca_pki.files import read_secret

    pair = leaves.Pair(certificate or Path(f"{_file_name(name)}.crt"), key or Path(f"{_file_name(name)}.key"))
    leaves.refuse_existing(pair)
    if (p12 is None) != (p12_password_file is None):
        raise UsageError("--p12 and --p12-password-file belong together")
    password = None if p12_password_file is None else read_secret(p12_password_file)
    kind, life = _key_type(key_type), None if lifetime is None else duration(lifetime)
    api, anchor = connect(home, ca_url, root)
    made = leaves.make_key(kind)
    csr = leaves.make_request(made, name)
    ott = _token(token_file, home, provisioner, name, san, leaves.digest(csr))
    with api:
        chain = api.sign(leaves.pem(csr), ott, lifetime=life)
    found = leaves.verified(chain, anchor, made.public_key())
    leaves.store_new(pair, made, chain)
    if p12 is not None and password is not None:
        leaves.write_p12(p12, pair, password)
    value = _issued(pair, found)
    emit(output, value, lambda: _issued_text(value))


def _token(
    token_file: Path | None, home: Path | None, provisioner: str | None, name: str, san: list[str] | None, csr: bytes
) -> str:
    from stepca_pki.config.load import load
    from stepca_pki.enrol.leaf import mint_token, token_provisioner
    from stepca_pki.files import read_secret

    if token_file == Path("-"):
        return typer.get_text_stream("stdin").readline().strip()
    if token_file is not None:
        return read_secret(token_file)
    at = existing_home(home)
    authority = load(at.config)
    chosen = token_provisioner(authority, provisioner)
    return mint_token(at, authority, chosen, path="/1.0/sign", subject=name, sans=san or [name], csr_digest=csr)


def _file_name(name: str) -> str:
    import re

    return re.sub(r"[^A-Za-z0-9@._-]", "_", name).lstrip(".") or "leaf"


def _key_type(text: str) -> Any:
    from stepca_pki.values import KeyType

    try:
        return KeyType(text)
    except ValueError:
        raise UsageError(f"'{text}' is no key type", fix=f"the types are: {', '.join(KeyType)}") from None


def _issued(pair: Any, leaf: Any) -> dict[str, Any]:
    return {
        "certificate": str(pair.certificate),
        "key": str(pair.key),
        "serial": str(leaf.serial_number),
        "not_after": leaf.not_valid_after_utc.isoformat(),
    }


def _issued_text(value: dict[str, Any]) -> str:
    return (
        f"{value['certificate']} is valid until {value['not_after']} (serial {value['serial']}); key in {value['key']}"
    )


@app.command("renew")
def renew(
    certificate: CertificateArgument,
    key: KeyArgument,
    if_due: Annotated[bool, typer.Option("--if-due", help="Only after two thirds of its life; for timers.")] = False,
    daemon: Annotated[bool, typer.Option("--daemon", help="Stay, and renew whenever it is due.")] = False,
    hook: Annotated[
        str | None, typer.Option("--exec", help="Run this after a renewal, such as 'systemctl reload nginx'.")
    ] = None,
    ca_url: CaUrlOption = None,
    root: RootOption = None,
    home: HomeOption = None,
) -> None:
    """Renew a certificate with the same key: the present one is the proof (mutual TLS).

    \b
    Examples:
      pki cert renew db1.crt db1.key
      pki cert renew db1.crt db1.key --if-due --exec "systemctl reload postgresql"
      pki cert renew db1.crt db1.key --daemon
    """
    from datetime import UTC, datetime

    from stepca_pki.enrol import leaf as leaves

    pair = leaves.Pair(certificate, key)
    if leaves.finish(pair):
        note(f"finished a rekey that was cut off: {key}")
    if daemon:
        _renew_for_ever(pair, hook, ca_url, root, home)
        return
    present = leaves.load_leaf(certificate)
    due = leaves.due(present, leaves.spread_of(present))
    if if_due and datetime.now(UTC) < due:
        typer.echo(f"not due before {due:%Y-%m-%d %H:%M} UTC")
        return
    _renew_once(pair, hook, ca_url, root, home)


def _renew_once(pair: Any, hook: str | None, ca_url: str | None, root: Path | None, home: Path | None) -> None:
    import shlex
    from datetime import timedelta

    from stepca_pki import commands
    from stepca_pki.enrol import leaf as leaves

    api, anchor = connect(home, ca_url, root)
    with api:
        fresh = leaves.renew(api, pair, anchor)
    typer.echo(f"{pair.certificate} is valid until {fresh.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if hook is not None:
        commands.run(shlex.split(hook), timeout=timedelta(minutes=5))


def _renew_for_ever(pair: Any, hook: str | None, ca_url: str | None, root: Path | None, home: Path | None) -> None:
    import random
    import time
    from datetime import UTC, datetime, timedelta

    from stepca_pki.enrol import leaf as leaves
    from stepca_pki.errors import PkiError

    first = timedelta(seconds=10)
    pause = first
    while True:
        present = leaves.load_leaf(pair.certificate)
        wait = leaves.due(present, leaves.spread_of(present)) - datetime.now(UTC)
        if wait > timedelta(0):
            time.sleep(min(wait, timedelta(hours=1)).total_seconds())  # in steps: clocks are set, machines sleep
            continue
        try:
            _renew_once(pair, hook, ca_url, root, home)
            pause = first
            time.sleep(pause.total_seconds())  # a clock ahead of the CA's must not make a storm of renewals
        except PkiError as error:
            note(f"not renewed: {error}; next try in {pause.total_seconds():.0f} s")
            time.sleep(pause.total_seconds() * random.uniform(0.8, 1.2))  # noqa: S311
            pause = min(2 * pause, timedelta(minutes=10))


@app.command("rekey")
def rekey(
    certificate: CertificateArgument,
    key: KeyArgument,
    key_type: Annotated[str, typer.Option("--key-type", help="P-256, P-384, P-521, RSA-2048 …")] = "P-256",
    ca_url: CaUrlOption = None,
    root: RootOption = None,
    home: HomeOption = None,
) -> None:
    """Renew a certificate with a new key.

    \b
    Example:
      pki cert rekey db1.crt db1.key
    """
    from stepca_pki.enrol import leaf as leaves

    pair = leaves.Pair(certificate, key)
    leaves.finish(pair)
    kind = _key_type(key_type)
    api, anchor = connect(home, ca_url, root)
    with api:
        fresh = leaves.rekey(api, pair, anchor, kind)
    typer.echo(f"{certificate} has a new key, and is valid until {fresh.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")


@app.command("revoke")
def revoke(
    target: Annotated[str, typer.Argument(metavar="CERT|SERIAL", help="A PEM file, or a serial (decimal or 0x…).")],
    key: Annotated[
        Path | None, typer.Option("--key", help="Its private key: the proof on machines without the home.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="RFC 5280's word, such as keyCompromise.")] = "unspecified",
    provisioner: ProvisionerOption = None,
    ca_url: CaUrlOption = None,
    root: RootOption = None,
    home: HomeOption = None,
) -> None:
    """Revoke a certificate: by its own key, or on the CA's machine by any JWK provisioner's token.

    \b
    Examples:
      pki cert revoke db1.crt --reason keyCompromise
      pki cert revoke 0x5f3a --reason superseded
      pki cert revoke db1.crt --key db1.key
    """
    from stepca_pki.config.load import load
    from stepca_pki.enrol import leaf as leaves

    if reason not in leaves.REASONS:
        raise UsageError(f"'{reason}' is no reason", fix=f"the reasons are: {', '.join(leaves.REASONS)}")
    serial = _serial(target)
    client = ott = None
    if key is not None:
        client = (Path(target), key)
    else:
        at = existing_home(home)
        authority = load(at.config)
        chosen = leaves.token_provisioner(authority, provisioner)
        ott = leaves.mint_token(at, authority, chosen, path="/1.0/revoke", subject=str(serial), sans=[])
    api, _ = connect(home, ca_url, root)
    with api:
        api.revoke(serial, leaves.REASONS[reason], ott=ott, client=client)
    typer.echo(f"serial {serial} is revoked ({reason})")


def _serial(target: str) -> int:
    from stepca_pki.enrol.leaf import load_leaf

    if Path(target).is_file():
        return load_leaf(Path(target)).serial_number
    try:
        return int(target, 16) if target.lower().startswith("0x") else int(target, 10)
    except ValueError:
        raise UsageError(
            f"{target} is neither a file nor a serial number", fix="give a PEM file, 123 or 0x7b"
        ) from None


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
