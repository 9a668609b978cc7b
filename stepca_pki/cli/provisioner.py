"""`pki provisioner`: ways to a certificate."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stepca_pki.cli.context import HomeOption, Output, OutputOption, emit, existing_home, new_app
from stepca_pki.cli.plan import WaitOption, plan_text, plan_value, tell
from stepca_pki.errors import UsageError
from stepca_pki.home import Home

app = new_app("Ways to a certificate: each change edits pki.yaml, keeps its comments, and is applied.")

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="A field of this type, as FIELD=VALUE; lists with commas. Repeat.", show_default=False),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the plan; change nothing.")]


@app.command("add")
def add(
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="Its type, such as acme.")],
    name: Annotated[str | None, typer.Argument(help="Its name; without it, the type's.", show_default=False)] = None,
    challenge: Annotated[
        list[str] | None, typer.Option("--challenge", help="ACME: a challenge to offer. Repeat.")
    ] = None,
    min_tls: Annotated[str | None, typer.Option("--min-tls", help="Shortest life of a leaf.")] = None,
    default_tls: Annotated[str | None, typer.Option("--default-tls", help="Usual life of a leaf.")] = None,
    max_tls: Annotated[str | None, typer.Option("--max-tls", help="Longest life of a leaf.")] = None,
    fields: SetOption = None,
    home: HomeOption = None,
    dry_run: DryRunOption = False,
    wait: WaitOption = 0,
    output: OutputOption = Output.text,
) -> None:
    """Add a provisioner to pki.yaml and apply it; a running CA serves it at once.

    \b
    Examples:
      pki provisioner add acme
      pki provisioner add acme servers --challenge http-01 --default-tls 12h
      pki provisioner add acme short --set force_cn=true --dry-run
      pki provisioner add jwk programs --max-tls 48h
      pki provisioner add oidc people --set client_id=pki \
          --set configuration_endpoint=https://id.example/.well-known/openid-configuration
    """
    from stepca_pki.config.edit import add_provisioner

    at = existing_home(home)
    entry: dict[str, Any] = {"type": kind.lower(), "name": name or kind.lower(), **_fields(kind, fields or [])}
    if challenge:
        entry["challenges"] = challenge
    claims = {"min_tls": min_tls, "default_tls": default_tls, "max_tls": max_tls}
    given = {claim: value for claim, value in claims.items() if value is not None}
    if given:
        entry["claims"] = given
    _change(at, add_provisioner(_text(at), entry), dry_run=dry_run, wait=wait, output=output)


def _fields(kind: str, assignments: list[str]) -> dict[str, Any]:
    """Read FIELD=VALUE against the model of the type, so that a new type needs no code here."""
    import yaml

    from stepca_pki.provisioners.registry import kinds

    if kind.lower() not in kinds():
        raise UsageError(f"there is no provisioner type '{kind}'", fix=f"the types are: {', '.join(kinds())}")
    known = set(kinds()[kind.lower()].model_fields) - {"type", "name", "claims"}
    answer: dict[str, Any] = {}
    for assignment in assignments:
        field, equals, value = assignment.partition("=")
        if not equals or field not in known:
            raise UsageError(
                f"'{assignment}' sets no field of {kind}", fix=f"the fields are: {', '.join(sorted(known))}"
            )
        answer[field] = value.split(",") if "," in value else yaml.safe_load(value)
    return answer


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="Its name.")],
    home: HomeOption = None,
    dry_run: DryRunOption = False,
    wait: WaitOption = 0,
    output: OutputOption = Output.text,
) -> None:
    """Remove a provisioner from pki.yaml and apply it. What it issued stays valid; it cannot be renewed there.

    \b
    Example:
      pki provisioner remove servers
    """
    from stepca_pki.config.edit import remove_provisioner

    at = existing_home(home)
    _change(at, remove_provisioner(_text(at), name), dry_run=dry_run, wait=wait, output=output)


@app.command("list")
def list_all(home: HomeOption = None, output: OutputOption = Output.text) -> None:
    """List the declared provisioners.

    \b
    Example:
      pki provisioner list
    """
    from stepca_pki.config.load import load

    at = existing_home(home)
    found = load(at.config).provisioners
    value = [{"type": item.kind, "name": item.name} for item in found]
    emit(output, value, lambda: "\n".join(f"{item.kind:10}{item.name}" for item in found) or "none")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Its name.")], home: HomeOption = None, output: OutputOption = Output.text
) -> None:
    """Show a provisioner: what is declared, what holds after inheritance, and what step-ca is told.

    \b
    Example:
      pki provisioner show acme
    """
    from stepca_pki.config.load import load
    from stepca_pki.observe import material_of
    from stepca_pki.provisioners.base import effective_claims
    from stepca_pki.values import split_address

    at = existing_home(home)
    authority = load(at.config)
    item = next((one for one in authority.provisioners if one.name == name), None)
    if item is None:
        names = ", ".join(one.name for one in authority.provisioners) or "none"
        raise UsageError(f"there is no provisioner '{name}'", fix=f"the provisioners are: {names}")
    claims = effective_claims(authority.claims, item.claims).model_dump(mode="json")
    value: dict[str, Any] = {
        "declared": item.model_dump(mode="json", exclude_none=True),
        "claims": claims,
        "ca.json": item.to_ca_json(material_of(authority, at, lenient=True)),
    }
    if item.kind == "acme":
        _, port = split_address(authority.server.address)
        value["directory"] = f"https://{authority.server.dns_names[0]}:{port}/acme/{item.name}/directory"
    emit(output, value, lambda: _as_yaml(value))


def _as_yaml(value: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip()


def _text(at: Home) -> str:
    from stepca_pki.config.load import MAX_BYTES
    from stepca_pki.files import read_bounded

    return read_bounded(at.config, MAX_BYTES).decode(errors="replace")


def _change(at: Home, text: str, *, dry_run: bool, wait: int, output: Output) -> None:
    from datetime import timedelta

    from stepca_pki.apply import apply_change, plan_change

    if dry_run:
        planned, _ = plan_change(at, text)
        emit(output, plan_value(planned), lambda: f"{_diff(at, text)}\n{plan_text(planned)}")
        return
    done = apply_change(at, _text(at), text, report=tell, wait=timedelta(seconds=wait))
    emit(output, plan_value(done), lambda: "done" if done else "done; nothing else had to change")


def _diff(at: Home, text: str) -> str:
    from stepca_pki.plan.steps import unified

    return unified(at.config, _text(at), text)
