"""`pki init`: the first pki.yaml, the keys, the certificates, and a CA that answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stepca_pki.cli.context import Output, OutputOption, emit, interactive, locate_home, new_app, note, working
from stepca_pki.cli.plan import plan_text, plan_value, tell
from stepca_pki.errors import UsageError
from stepca_pki.home import Home

app = new_app()

DEFAULT_NAME = "Private CA"


@app.command("init")
def init(
    home: Annotated[
        Path | None, typer.Option("--home", help="Folder to make.", envvar="PKI_HOME", show_default=False)
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the authority, as people will read it.")] = None,
    organisation: Annotated[str | None, typer.Option("--organisation", help="Organisation in the subjects.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="host:port to serve on [127.0.0.1:8443].")] = None,
    dns_name: Annotated[
        list[str] | None, typer.Option("--dns-name", help="Name or IP of the CA; repeat. [localhost, 127.0.0.1]")
    ] = None,
    permit: Annotated[list[str] | None, typer.Option("--permit", help="Domain it may issue for; repeat. [any]")] = None,
    root_lifetime: Annotated[str, typer.Option("--root-lifetime", help="Life of the root.")] = "10y",
    intermediate_lifetime: Annotated[
        str, typer.Option("--intermediate-lifetime", help="Life of the intermediate.")
    ] = "5y",
    root_key: Annotated[str, typer.Option("--root-key", help="Type of the root key.")] = "P-384",
    intermediate_key: Annotated[
        str, typer.Option("--intermediate-key", help="Type of the intermediate key.")
    ] = "P-256",
    offline_root: Annotated[bool, typer.Option("--offline-root", help="The root is on another machine.")] = False,
    acme_http_port: Annotated[
        int | None, typer.Option("--acme-http-port", help="Port of http-01 instead of 80 (labs).")
    ] = None,
    acme_tls_port: Annotated[
        int | None, typer.Option("--acme-tls-port", help="Port of tls-alpn-01 instead of 443 (labs).")
    ] = None,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Start the CA at the end.")] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take defaults.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show pki.yaml and the plan; write nothing.")] = False,
    output: OutputOption = Output.text,
) -> None:
    """Make a new authority: declare it in pki.yaml, make its keys and certificates, start it.

    \b
    Examples:
      pki init
      pki init --yes --home ~/ca --name "Example CA" --dns-name ca.int.example
      pki init --yes --permit int.example --no-start
    """
    at = _free_home(home)
    ask = interactive() and not yes
    if not ask and not yes and name is None:
        raise UsageError(
            "nobody is here to answer questions", fix="give --name and the other options, or --yes for defaults"
        )
    name = name or (_ask("Name of the authority", DEFAULT_NAME) if ask else DEFAULT_NAME)
    organisation = organisation or (_ask("Organisation (empty for none)", "") if ask else "") or None
    address = address or (_ask("Address to serve on", "127.0.0.1:8443") if ask else "127.0.0.1:8443")
    names = dns_name or (
        _ask("Names and addresses of the CA", "localhost 127.0.0.1").split() if ask else ["localhost", "127.0.0.1"]
    )
    permit = permit or (_ask("Domains it may issue for (empty for any)", "").split() if ask else [])

    from stepca_pki.hsm.client import prestart

    prestart()
    from stepca_pki.config.edit import new_file

    text = new_file(
        name=name,
        organisation=organisation,
        address=address,
        dns_names=names,
        permitted_dns=permit,
        root_location="offline" if offline_root else "here",
        root_lifetime=root_lifetime,
        intermediate_lifetime=intermediate_lifetime,
        root_key=root_key,
        intermediate_key=intermediate_key,
        acme_http_port=acme_http_port,
        acme_tls_port=acme_tls_port,
    )
    if dry_run:
        planned = _plan(at, text)
        emit(output, {"pki.yaml": text, **plan_value(planned)}, lambda: f"{text}\n{plan_text(planned)}")
        return
    if ask and not typer.confirm(f"Make the authority in {at.path}?", default=True, err=True):
        raise typer.Exit(2)
    _make(at, text, start=start, output=output)


def _ask(question: str, default: str) -> str:
    return str(typer.prompt(question, default=default, show_default=bool(default), err=True)).strip()


def _free_home(given: Path | None) -> Home:
    at = locate_home(given)
    if at.config.exists():
        raise UsageError(
            f"{at.config}: there is an authority here already",
            fix="'pki apply' finishes what was cut off, 'pki up' starts it; another one needs another --home",
        )
    return at


def _plan(at: Home, text: str) -> Any:
    from stepca_pki.apply import plan_change

    return plan_change(at, text)[0]


def _make(at: Home, text: str, *, start: bool, output: Output) -> None:
    from stepca_pki.apply import apply
    from stepca_pki.config.load import load_text
    from stepca_pki.files import ensure_folder, write_new

    authority = load_text(text, at.config)  # refuse a fault before anything is on disk
    if start and authority.root.is_here:
        from stepca_pki.stepca.binary import find_step_ca

        find_step_ca()  # likewise
    ensure_folder(at.path)
    write_new(at.config, text)
    ready = _load_meanwhile()
    note(f"pki.yaml is in {at.path}; making what it declares")
    apply(at, report=tell)
    ready.join()  # the start forks, and a fork keeps only the thread that called it
    if start:
        from stepca_pki.runtime.control import start_detached

        with working("starting step-ca"):
            start_detached(at)
        note("  step-ca runs, and signed a probe leaf through the HSM")
    _finish(at, authority, started=start, output=output)


def _load_meanwhile() -> Any:
    """Import what the start needs in a thread, while this one waits for tokens and disks."""
    import threading
    from importlib import import_module

    def load() -> None:
        import_module("stepca_pki.ceremony.steps")  # first: the signatures come before the start
        import_module("stepca_pki.runtime.supervisor")

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    return thread


def _finish(at: Home, authority: Any, *, started: bool, output: Output) -> None:
    from stepca_pki.certificates import fingerprint
    from stepca_pki.values import split_address

    _, port = split_address(authority.server.address)
    url = f"https://{authority.server.dns_names[0]}:{port}"
    digest = fingerprint(at.root_certificate)
    value = {
        "home": str(at.path),
        "root": str(at.root_certificate),
        "fingerprint": digest,
        "url": url,
        "running": started,
        "directories": {
            item.name: f"{url}/acme/{item.name}/directory" for item in authority.provisioners if item.kind == "acme"
        },
    }
    emit(output, value, lambda: _summary(value))


def _summary(value: dict[str, Any]) -> str:
    folder = value["home"]
    state = "runs" if value["running"] else "is made"
    nexts = (
        ["pki health", "pki trust install", "pki enrol nginx --name HOST"]
        if value["running"]
        else ["pki up", "pki health", "pki trust install"]
    )
    directories = [f"  ACME         {url}" for url in value["directories"].values()]
    return "\n".join(
        [
            f"The authority {state}.",
            f"  home         {folder}",
            f"  root         {value['root']}",
            f"  fingerprint  {value['fingerprint']}",
            f"  serves       {value['url']}",
            *directories,
            "Next:",
            *(f"  {command} --home {folder}" for command in nexts),
        ]
    )
