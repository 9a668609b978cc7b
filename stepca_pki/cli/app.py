"""The Typer application: loads the module of a command when that command is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from stepca_pki.cli.context import note
from stepca_pki.cli.main import COMMANDS
from stepca_pki.errors import PkiError
from stepca_pki.version import STEP_CA_VERSION, VERSION


class LazyGroup(TyperGroup):
    """Knows its commands by name, and imports one only to run it or to show its own help."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        _, _, module, is_group = COMMANDS[cmd_name]
        app = import_module(f"stepca_pki.cli.{module}").app
        command = typer.main.get_group(app)
        return command if is_group else command.commands[cmd_name]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print a screen of groups that read like the work; no module is imported for it."""
        formatter.write_usage("pki", "COMMAND [ARGS]...")
        formatter.write_paragraph()
        formatter.write_text("Run a private certificate authority whose keys live in an HSM.")
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, (group, text, _, _) in COMMANDS.items():
            groups.setdefault(group, []).append((name, text))
        for group, rows in groups.items():
            with formatter.section(group):
                formatter.write_dl(rows)
        with formatter.section("Options"):
            formatter.write_dl([("--version", "Print the version."), ("--install-completion", "For your shell.")])
        formatter.write_paragraph()
        formatter.write_text("Start with 'pki init'. 'pki COMMAND --help' has examples.")


app = typer.Typer(
    cls=LazyGroup, name="pki", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        typer.echo(f"pki {VERSION} (for step-ca {STEP_CA_VERSION})")
        raise typer.Exit


def run(words: Sequence[str]) -> int:
    """Return the exit code of the command."""
    try:
        app(args=list(words), prog_name="pki")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except PkiError as error:
        return _say(f"pki: error: {error}", error.exit_code)
    except KeyboardInterrupt:
        return _say("pki: interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on; that is no fault
    except Exception as error:  # a defect of ours: still no traceback, unless asked for
        if os.environ.get("PKI_DEBUG"):
            raise
        return _say(f"pki: error: unexpected {type(error).__name__}: {error}\n  fix: report it with PKI_DEBUG=1", 1)
    return 0


def _say(message: str, code: int) -> int:
    note(message)
    return code
