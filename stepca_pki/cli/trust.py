"""`pki trust`: put the root into trust stores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepca_pki.cli.context import HomeOption, Output, OutputOption, emit, existing_home, interactive, new_app, note
from stepca_pki.errors import UsageError

if TYPE_CHECKING:
    from stepca_pki.enrol.trust import Anchor, Store

app = new_app("Put the root into trust stores: the only thing that clients need.")

FileOption = Annotated[Path | None, typer.Option("--file", help="The root certificate [the home's root.crt].")]
StoreOption = Annotated[str, typer.Option("--store", help="system, nss or java.")]
PrefixOption = Annotated[Path, typer.Option("--prefix", help="Another root folder, such as an image being built.")]
NssOption = Annotated[Path | None, typer.Option("--nss-database", help="NSS database [~/.pki/nssdb].")]
KeystoreOption = Annotated[Path | None, typer.Option("--keystore", help="Java keystore [Java's cacerts].")]
PasswordOption = Annotated[Path | None, typer.Option("--keystore-password-file", help="File with its password.")]
FingerprintOption = Annotated[str | None, typer.Option("--fingerprint", help="SHA-256 that the root must have.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Trust the home's own root without a question.")]


@app.command("install")
def install(
    store: StoreOption = "system",
    file: FileOption = None,
    fingerprint: FingerprintOption = None,
    yes: YesOption = False,
    prefix: PrefixOption = Path("/"),
    nss_database: NssOption = None,
    keystore: KeystoreOption = None,
    keystore_password_file: PasswordOption = None,
    home: HomeOption = None,
) -> None:
    """Trust the root on this machine. Its fingerprint is shown, and has to be confirmed.

    \b
    Examples:
      pki trust install
      pki trust install --store nss
      pki trust install --file root.crt --fingerprint D0:B2:50:…
    """
    anchor = _anchor(file, home)
    target = _store(store, prefix, nss_database, keystore, keystore_password_file)
    _confirm(anchor, fingerprint, yes=yes and file is None)
    if target.present(anchor):
        typer.echo(f"{target.name}: it was trusted already ({target.place})")
        return
    target.install(anchor)
    typer.echo(f"{target.name}: trusted now ({target.place})")


@app.command("uninstall")
def uninstall(
    store: StoreOption = "system",
    file: FileOption = None,
    prefix: PrefixOption = Path("/"),
    nss_database: NssOption = None,
    keystore: KeystoreOption = None,
    keystore_password_file: PasswordOption = None,
    home: HomeOption = None,
) -> None:
    """Remove exactly this root from a trust store.

    \b
    Example:
      pki trust uninstall --store system
    """
    anchor = _anchor(file, home)
    target = _store(store, prefix, nss_database, keystore, keystore_password_file)
    if not target.present(anchor):
        typer.echo(f"{target.name}: it was not there ({target.place})")
        return
    target.uninstall(anchor)
    typer.echo(f"{target.name}: removed ({target.place})")


@app.command("show")
def show(file: FileOption = None, home: HomeOption = None, output: OutputOption = Output.text) -> None:
    """Show the root's name and fingerprint, to be compared by voice or on paper.

    \b
    Example:
      pki trust show
    """
    anchor = _anchor(file, home)
    certificate = anchor.certificate
    value: dict[str, Any] = {
        "file": str(anchor.source),
        "subject": certificate.subject.rfc4514_string(),
        "fingerprint": anchor.fingerprint,
        "until": certificate.not_valid_after_utc.isoformat(),
    }
    emit(output, value, lambda: "\n".join(f"{name:13}{text}" for name, text in value.items()))


@app.command("export")
def export(
    form: Annotated[str, typer.Option("--format", help="pem or der.")] = "pem",
    to: Annotated[Path | None, typer.Option("--to", help="A new file [standard output].")] = None,
    file: FileOption = None,
    home: HomeOption = None,
) -> None:
    """Write the root certificate out.

    \b
    Examples:
      pki trust export > root.crt
      pki trust export --format der --to root.cer
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    from stepca_pki.files import write_new

    if form not in ("pem", "der"):
        raise UsageError(f"there is no format '{form}'", fix="--format pem or --format der")
    data = _anchor(file, home).certificate.public_bytes(Encoding.PEM if form == "pem" else Encoding.DER)
    if to is not None:
        write_new(to, data)
        note(f"wrote {to}")
    else:
        sys.stdout.buffer.write(data)


def _anchor(file: Path | None, home: Path | None) -> Anchor:
    from stepca_pki.enrol.trust import load_anchor

    return load_anchor(file or existing_home(home).root_certificate)


def _store(name: str, prefix: Path, nss: Path | None, keystore: Path | None, password: Path | None) -> Store:
    from stepca_pki.enrol import trust

    if name == "system":
        return trust.system_store(prefix)
    if name == "nss":
        return trust.nss_store(nss or Path.home() / ".pki" / "nssdb")
    if name == "java":
        return trust.java_store(keystore or trust.default_java_keystore(), password)
    raise UsageError(f"there is no trust store '{name}'", fix="--store system, nss or java")


def _confirm(anchor: Anchor, fingerprint: str | None, *, yes: bool) -> None:
    """Trust is given by a person who compared, by a fingerprint from elsewhere, or to the home's own root."""
    from stepca_pki.enrol.trust import same_fingerprint

    note(f"{anchor.certificate.subject.rfc4514_string()}\n  SHA-256 {anchor.fingerprint}")
    if fingerprint is not None:
        if not same_fingerprint(fingerprint, anchor):
            raise UsageError(
                "the root has another fingerprint than --fingerprint, so it is not trusted",
                fix="get the right root.crt",
            )
        return
    if yes:
        return
    if not interactive():
        raise UsageError(
            "nobody is here to compare the fingerprint", fix="give --fingerprint (or --yes for the home's own root)"
        )
    if not typer.confirm("Is this the fingerprint of your authority?", default=False, err=True):
        raise typer.Exit(2)
