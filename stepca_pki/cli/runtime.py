"""`pki up`, `down`, `restart`, `reload`, `status`, `logs`: running step-ca."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from stepca_pki.cli.context import HomeOption, Output, OutputOption, emit, existing_home, new_app, note, working
from stepca_pki.errors import NotHealthy, UsageError
from stepca_pki.home import Home

app = new_app()

STARTING = "starting step-ca"


@app.command("up")
def up(
    home: HomeOption = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when the CA is ready.")] = False,
) -> None:
    """Check everything that step-ca does not check, start it, and watch it.

    Ready means: a leaf was issued through the HSM and verified against the root.

    \b
    Examples:
      pki up
      pki up --detach
    """
    at = existing_home(home)
    from stepca_pki.hsm.client import prestart

    prestart()
    if detach:
        from stepca_pki.runtime.control import start_detached

        with working(STARTING):
            state = start_detached(at)
        typer.echo(f"ready: step-ca (process {state.step_ca.pid if state.step_ca else '?'}) signed a probe leaf")
        return
    from stepca_pki.runtime.supervisor import Supervisor

    Supervisor(at, note).run(
        on_ready=lambda: note("ready: step-ca signed a probe leaf through the HSM; Ctrl-C stops it")
    )


@app.command("down")
def down(home: HomeOption = None) -> None:
    """Stop the CA. Stopping one that does not run is no fault.

    \b
    Example:
      pki down
    """
    from stepca_pki.runtime.control import stop

    with working("stopping step-ca"):
        stopped = stop(existing_home(home))
    typer.echo("stopped" if stopped else "it was not running")


@app.command("restart")
def restart(home: HomeOption = None) -> None:
    """Stop and start step-ca; everything is checked before the old one is stopped.

    \b
    Example:
      pki restart
    """
    from stepca_pki.runtime import control

    at = existing_home(home)
    if control.running(at) is None:
        with working(STARTING):
            control.start_detached(at)
        typer.echo("started: it was not running")
        return
    with working("restarting step-ca"):
        message = control.restart(at)
    _report(message, "restarted")


@app.command("reload")
def reload(home: HomeOption = None) -> None:
    """Make the running CA take its configuration anew: by SIGHUP where that is safe, else by a restart.

    \b
    Example:
      pki reload
    """
    from stepca_pki.runtime.control import reload as reload_now

    with working("reloading step-ca"):
        message = reload_now(existing_home(home))
    _report(message, "reloaded")


def _report(message: str, done: str) -> None:
    if message:
        note(f"warning: provisioner {message}")
    typer.echo(f"{done}: the CA signs")


@app.command("status")
def status(home: HomeOption = None, output: OutputOption = Output.text) -> None:
    """One look: what runs, since when, until when. Asks neither the HSM nor the network.

    \b
    Examples:
      pki status
      pki status --output json
    """
    from stepca_pki.runtime.status import status_of

    at = existing_home(home)
    value = status_of(at, time.time())
    emit(output, value, lambda: _status_text(value))
    if not value["running"]:
        raise NotHealthy(f"the CA in {at.path} does not run", fix="start it with 'pki up'")


def _status_text(value: dict[str, Any]) -> str:
    rows = [("home", value["home"]), ("state", value["phase"])]
    if value["running"]:
        rows += [("since", value["since"]), ("process", f"{value['step_ca']} (supervisor {value['supervisor']})")]
        rows += [("restarts", str(value["restarts"]))]
    rows += [
        ("serves", value["address"] or "unknown"),
        ("root", value["root"]),
        ("intermediate", value["intermediate"]),
    ]
    if value["message"]:
        rows.append(("note", value["message"]))
    return "\n".join(f"{name:13}{text}" for name, text in rows)


@app.command("logs")
def logs(
    home: HomeOption = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many.", min=0, max=100_000)] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come; Ctrl-C ends it.")] = False,
) -> None:
    """Print the CA's log. One-time tokens were removed before it was written.

    \b
    Examples:
      pki logs -n 100
      pki logs -f
    """
    at = existing_home(home)
    if not at.log.exists():
        raise UsageError(f"{at.log}: there is no log yet", fix="start the CA with 'pki up'")
    position = _print_tail(at.log, lines)
    while follow:
        time.sleep(0.2)
        position = _print_from(at, position)


def _print_tail(path: Path, count: int) -> int:
    from collections import deque

    with path.open(encoding="utf-8", errors="replace") as file:
        for line in deque(file, maxlen=count):
            typer.echo(line, nl=False)
        return file.tell()


def _print_from(at: Home, position: int) -> int:
    size = at.log.stat().st_size
    if size < position:  # rotated
        position = 0
    with at.log.open(encoding="utf-8", errors="replace") as file:
        file.seek(position)
        for line in file:
            typer.echo(line, nl=False)
        return file.tell()
