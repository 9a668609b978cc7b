"""What every command shares: which home, which output, how results are printed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from stepca_pki.errors import UsageError
from stepca_pki.home import CONFIG_NAME, DEFAULT_HOME, Home


class Output(StrEnum):
    text = "text"
    json = "json"


HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of the authority.", envvar="PKI_HOME", show_default=False),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="text or json.", show_default=False)]


def locate_home(given: Path | None) -> Home:
    """Return the home: *given* (option or PKI_HOME), else the nearest parent with pki.yaml, else the default."""
    if given is not None:
        return Home(Path(os.path.abspath(given)))  # keeps symbolic links: they are refused where they matter
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / CONFIG_NAME).is_file():
            return Home(folder)
    return Home(DEFAULT_HOME)


def existing_home(given: Path | None) -> Home:
    """Like locate_home, but it must have a pki.yaml. Raises UsageError."""
    home = locate_home(given)
    if not home.config.is_file():
        raise UsageError(
            f"{home.path}: no {CONFIG_NAME} here", fix="run 'pki init' to make one, or name the folder with --home"
        )
    return home


def emit(output: Output, value: Any, text: Callable[[], str]) -> None:
    """Print a result on standard output: *value* as JSON, or *text()*."""
    if output is Output.json:
        import json

        typer.echo(json.dumps(value, indent=2, default=str))
    else:
        typer.echo(text())


def note(message: str) -> None:
    """Say something that is not the result: on standard error."""
    typer.echo(f"{_CLEAR}{message}" if sys.stderr.isatty() else message, err=True)


_CLEAR = "\r\x1b[K"  # ECMA-48: erase to the end of the line


def begin(message: str) -> None:
    """Say what is being done, on a terminal only; the next note stands in its place."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        text = f"{message} …"
        typer.echo(_CLEAR + (text if len(text) < width else f"{text[: width - 2]}…"), err=True, nl=False)


@contextmanager
def working(message: str) -> Iterator[None]:
    """Show, on a terminal, what takes its time."""
    begin(message)
    try:
        yield
    finally:
        if sys.stderr.isatty():
            typer.echo(_CLEAR, err=True, nl=False)


def coloured(stream: Any = None) -> bool:
    """Whether colours are wanted: on a terminal only, and never with NO_COLOR."""
    return not os.environ.get("NO_COLOR") and (stream or sys.stdout).isatty()


def interactive() -> bool:
    """Whether questions may be asked: only of a person at a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def new_app(help_text: str | None = None) -> typer.Typer:
    """Return the Typer application of one module: plain help, no traceback boxes."""
    return typer.Typer(help=help_text, no_args_is_help=True, rich_markup_mode=None, add_completion=False)
