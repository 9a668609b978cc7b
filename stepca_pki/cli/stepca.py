"""`pki stepca`: find or build step-ca."""

from __future__ import annotations

from typing import Annotated

import typer

from stepca_pki.cli.context import Output, OutputOption, emit, new_app, note

app = new_app("Find or build step-ca.")


@app.command("show")
def show(output: OutputOption = Output.text) -> None:
    """Show the step-ca that would be used: PKI_STEP_CA, our cache, PATH.

    \b
    Example:
      pki stepca show
    """
    from stepca_pki.stepca.binary import find_step_ca

    found = find_step_ca()
    value = {"path": str(found.path), "version": found.version, "pkcs11": found.has_pkcs11}
    emit(output, value, lambda: f"step-ca {found.version} with PKCS#11: {found.path}")


@app.command("install")
def install(force: Annotated[bool, typer.Option("--force", help="Build it again.")] = False) -> None:
    """Build the step-ca that this pki is tested with into the user's cache: once, a few minutes.

    Needs a C compiler; fetches a Go toolchain where there is none. step-ca's release binaries cannot use PKCS#11.

    \b
    Example:
      pki stepca install
    """
    from stepca_pki.stepca.binary import install_step_ca

    found = install_step_ca(note, force=force)
    typer.echo(f"step-ca {found.version} with PKCS#11: {found.path}")
