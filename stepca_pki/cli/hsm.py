"""`pki hsm`: PKCS#11 modules, tokens and keys."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from stepca_pki.cli.context import HomeOption, Output, OutputOption, emit, existing_home, new_app, note, working
from stepca_pki.errors import HsmError, UsageError

if TYPE_CHECKING:
    from stepca_pki.config.model import TokenRef

app = new_app("PKCS#11 modules, tokens and keys.")

ModuleOption = Annotated[
    str | None, typer.Option("--module", help="Path of a module, or its name.", show_default=False)
]
LabelOption = Annotated[str | None, typer.Option("--label", help="Label of the token.", show_default=False)]
SerialOption = Annotated[str | None, typer.Option("--serial", help="Serial number of the token.", show_default=False)]
PinOption = Annotated[str, typer.Option("--pin-source", help="A file, env:NAME, or prompt.")]
SoPinOption = Annotated[str, typer.Option("--so-pin-source", help="A file, env:NAME, or prompt.")]
RoleOption = Annotated[str, typer.Option("--role", help="root or intermediate.")]


@app.command("modules")
def modules(output: OutputOption = Output.text) -> None:
    """List the PKCS#11 modules that are known by name, and where they are on this machine.

    \b
    Example:
      pki hsm modules
    """
    from stepca_pki.hsm.modules import known_modules

    rows = [
        {
            "name": known.name,
            "title": known.title,
            "path": str(known.path) if known.path else None,
            "package": known.package,
        }
        for known in known_modules()
    ]
    emit(output, rows, lambda: "\n".join(f"{row['name']:15}{row['path'] or '-':48}{row['title']}" for row in rows))


@app.command("list")
def list_tokens(module: ModuleOption = None, home: HomeOption = None, output: OutputOption = Output.text) -> None:
    """List the tokens of a module; without --module, those of the authority's modules. No PIN is asked.

    \b
    Examples:
      pki hsm list
      pki hsm list --module /usr/lib/x86_64-linux-gnu/opensc-pkcs11.so
    """
    from stepca_pki.hsm.modules import find_module
    from stepca_pki.hsm.token import list_tokens as tokens_of

    rows = [
        {"module": str(path), **asdict(token)}
        for path, environment in _modules(module, home, find_module)
        for token in tokens_of(path, environment)
    ]
    emit(output, rows, lambda: "\n".join(_token_line(row) for row in rows) or "no tokens")


def _modules(module: str | None, home: Path | None, find: Any) -> list[tuple[Path, dict[str, str]]]:
    if module is not None:
        return [(find(module), {**_own_environment()})]
    refs = [_declared(home, role) for role in ("root", "intermediate")]
    unique = {(str(find(ref.module)), tuple(sorted(ref.environment.items()))) for ref in refs if ref is not None}
    return [(Path(path), dict(environment)) for path, environment in sorted(unique)]


def _own_environment() -> dict[str, str]:
    """A module named on the command line sees its own variables, as it would under any other tool."""
    import os

    return {
        name: value
        for name, value in os.environ.items()
        if name.endswith(("_CONF", "_STORE")) or name.startswith("PKCS11")
    }


def _token_line(row: dict[str, Any]) -> str:
    if not row["initialised"]:
        return f"{'(blank)':33}slot {row['slot']}  {row['manufacturer']}"
    warning = next((text for flag, text in _FLAGS.items() if row[flag]), "" if row["pin_initialised"] else "no PIN set")
    return f"{row['label']:33}{row['serial']:18}{row['model']:18}{warning}".rstrip()


_FLAGS = {"pin_locked": "PIN LOCKED", "pin_final_try": "ONE PIN TRY LEFT", "pin_count_low": "a wrong PIN was given"}


@app.command("show")
def show(
    role: RoleOption = "intermediate",
    module: ModuleOption = None,
    label: LabelOption = None,
    serial: SerialOption = None,
    pin_source: PinOption = "prompt",
    home: HomeOption = None,
    output: OutputOption = Output.text,
) -> None:
    """Show the keys on a token.

    \b
    Examples:
      pki hsm show --role root
      pki hsm show --module opensc --label "SmartCard-HSM" --pin-source prompt
    """
    from stepca_pki.hsm.token import open_token

    with open_token(_ref(role, module, label, serial, pin_source, home)) as token:
        keys = token.keys()
    rows = [{**asdict(key), "spki": key.spki.hex() if key.spki else None} for key in keys]
    emit(output, rows, lambda: "\n".join(_key_line(row) for row in rows) or "no keys")


def _key_line(row: dict[str, Any]) -> str:
    halves = {(True, True): "pair", (True, False): "private only", (False, True): "public only"}
    kept = "extractable" if row["extractable"] else "not extractable"
    there = halves[row["has_private"], row["has_public"]]
    return f"{row['label']:25}id {row['id']:18}{row['type'] or 'other':10}{there:14}{kept}"


@app.command("init")
def init(
    label: Annotated[str, typer.Option("--label", help="Label that the token gets.")],
    module: ModuleOption = "softhsm2",
    pin_source: PinOption = "prompt",
    so_pin_source: SoPinOption = "prompt",
) -> None:
    """Initialise a blank token under a label and set its PIN. A token in use is never touched.

    \b
    Examples:
      pki hsm init --module opensc --label root-2026
      pki hsm init --label test --pin-source ./pin --so-pin-source ./so-pin
    """
    from stepca_pki.config.model import TokenRef
    from stepca_pki.hsm.pins import read_pin
    from stepca_pki.hsm.token import init_token

    ref = TokenRef(module=module or "softhsm2", label=label, pin_source=pin_source, environment=_own_environment())
    note("the SO-PIN initialises and unblocks; the PIN signs")
    so_pin = read_pin(_absolute(so_pin_source))
    init_token(ref, read_pin(_absolute(pin_source)), so_pin)
    typer.echo(f"token '{label}' is initialised, and its PIN is set")


@app.command("check")
def check(
    role: RoleOption = "intermediate",
    module: ModuleOption = None,
    label: LabelOption = None,
    serial: SerialOption = None,
    pin_source: PinOption = "prompt",
    home: HomeOption = None,
    output: OutputOption = Output.text,
) -> None:
    """Prove on scratch keys that a token can serve as root or intermediate. Exit code 1 if it cannot.

    \b
    Examples:
      pki hsm check --role intermediate
      pki hsm check --role root --module opensc --label root-2026
    """
    from stepca_pki.hsm.check import check_token, serves

    ref = _ref(role, module, label, serial, pin_source, home)
    with working("checking with a scratch key"):
        verdicts = check_token(ref, None, cast(Literal["root", "intermediate"], role))
    good = serves(verdicts)
    value = {"role": role, "serves": good, "capabilities": [asdict(verdict) for verdict in verdicts]}
    lines = [f"{'ok' if one.passed else 'no':4}{one.capability:14}{one.detail}" for one in verdicts]
    emit(output, value, lambda: "\n".join([*lines, f"it {'can' if good else 'cannot'} serve as {role}"]))
    if not good:
        raise HsmError(f"the token cannot serve as {role}", fix="use another token, or another key type")


def _ref(
    role: str, module: str | None, label: str | None, serial: str | None, pin_source: str, home: Path | None
) -> TokenRef:
    """The token that the options name; without any, the authority's token of *role*."""
    from stepca_pki.config.model import TokenRef

    if role not in ("root", "intermediate"):
        raise UsageError(f"there is no role '{role}'", fix="--role root or --role intermediate")
    if label is None and serial is None:
        declared = _declared(home, role)
        if declared is None:
            raise UsageError(f"the {role} is on another machine", fix="name a token with --module and --label")
        return declared
    if label is not None and serial is not None:
        raise UsageError("a token is named by label or by serial", fix="give one of --label and --serial")
    source = _absolute(pin_source)
    return TokenRef(
        module=module or "softhsm2", label=label, serial=serial, pin_source=source, environment=_own_environment()
    )


def _declared(home: Path | None, role: str) -> TokenRef | None:
    from stepca_pki.config.load import load
    from stepca_pki.config.tokens import Role, token_of

    at = existing_home(home)
    authority = load(at.config)
    if role == "root" and not authority.root.is_here:
        return None
    return token_of(at, authority, cast(Role, role))


def _absolute(source: str) -> str:
    if source == "prompt" or source.startswith(("env:", "credential:")):
        return source
    return str(Path(source.removeprefix("file:")).absolute())
