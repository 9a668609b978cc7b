"""`pki enrol`: recipes that bring certificates to servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepca_pki.cli.context import HomeOption, Output, OutputOption, emit, existing_home, new_app, note
from stepca_pki.errors import FileRefused, UsageError

if TYPE_CHECKING:
    from stepca_pki.enrol.recipes import Recipe

app = new_app("Recipes that bring certificates to servers.")


@app.callback()
def _group() -> None:
    """Recipes that bring certificates to servers."""


@app.command("nginx")
def nginx(
    name: Annotated[str, typer.Option("--name", help="DNS name or IP address of the web server.")],
    client: Annotated[str, typer.Option("--client", help="certbot, acme.sh or lego.")] = "certbot",
    provisioner: Annotated[str | None, typer.Option("--provisioner", help="ACME provisioner [the first].")] = None,
    write: Annotated[Path | None, typer.Option("--write", help="Write the files into this folder.")] = None,
    folder: Annotated[Path | None, typer.Option("--folder", help="Where the files will be on the web server.")] = None,
    webroot: Annotated[Path, typer.Option("--webroot", help="Folder for http-01 answers.")] = Path("/var/www/acme"),
    document_root: Annotated[Path, typer.Option("--document-root", help="What nginx serves.")] = Path("/var/www/html"),
    http_port: Annotated[int, typer.Option("--http-port", min=1, max=65535)] = 80,
    https_port: Annotated[int, typer.Option("--https-port", min=1, max=65535)] = 443,
    listen: Annotated[str | None, typer.Option("--listen", help="One address [all, IPv4 and IPv6].")] = None,
    reload: Annotated[str | None, typer.Option("--reload", help="Shell command that reloads nginx.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="The CA as the web server reaches it.")] = None,
    home: HomeOption = None,
    output: OutputOption = Output.text,
) -> None:
    """Print or write the recipe for nginx: site on 80 and 443, ACME client, renewal timer, the root.

    \b
    Examples:
      pki enrol nginx --name www.int.example
      pki enrol nginx --name www.int.example --client lego --write /etc/pki-enrol/www.int.example
    """
    from stepca_pki.config.load import load
    from stepca_pki.enrol.clients import CLIENTS
    from stepca_pki.enrol.recipes import Wish, make_recipe

    if client not in CLIENTS:
        raise UsageError(f"there is no recipe for the client '{client}'", fix=f"the clients are: {', '.join(CLIENTS)}")
    at = existing_home(home)
    where = folder or (write.absolute() if write else None)
    wish = Wish(
        "nginx", name, client, provisioner, where, webroot, document_root, http_port, https_port, listen, reload, url
    )
    recipe = make_recipe(load(at.config), _root(at.root_certificate), wish)
    if write is not None:
        _write(recipe, write)
    emit(output, _value(recipe), lambda: _text(recipe, written=write is not None))


def _root(path: Path) -> str:
    if not path.is_file():
        raise FileRefused(path, "is missing", fix="run 'pki apply'")
    return path.read_text(encoding="ascii")


def _write(recipe: Recipe, folder: Path) -> None:
    from stepca_pki.files import ensure_folder, write_atomic

    ensure_folder(folder)
    for file in recipe.files:
        write_atomic(folder / file.name, file.text, file.mode)
        note(f"  wrote {folder / file.name}")


def _value(recipe: Recipe) -> dict[str, Any]:
    files = [
        {"path": str(recipe.folder / file.name), "mode": f"{file.mode:04o}", "text": file.text} for file in recipe.files
    ]
    return {"folder": str(recipe.folder), "directory": recipe.directory, "files": files, "steps": list(recipe.steps)}


def _text(recipe: Recipe, *, written: bool) -> str:
    lines = [f"# ACME directory: {recipe.directory}", "# On the web server:"]
    lines += [f"#   {step}" for step in recipe.steps]
    if not written:
        for file in recipe.files:
            lines += ["", f"# --- {recipe.folder / file.name} (mode {file.mode:04o})", file.text.rstrip()]
    return "\n".join(lines)
