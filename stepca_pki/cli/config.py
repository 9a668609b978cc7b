"""`pki config`: check, show and describe pki.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stepca_pki.cli.context import HomeOption, Output, OutputOption, emit, existing_home, new_app

app = new_app("Check, show and describe pki.yaml.")

FileArgument = Annotated[
    Path | None, typer.Argument(help="The file; without it, the home's pki.yaml.", show_default=False)
]


@app.command("check")
def check(file: FileArgument = None, home: HomeOption = None, output: OutputOption = Output.text) -> None:
    """Report every fault of a pki.yaml at once, with line, field, problem and fix. Exit code 2 if there is one.

    \b
    Examples:
      pki config check
      pki config check examples/embedded.yaml
    """
    from stepca_pki.config.load import load
    from stepca_pki.errors import ConfigError

    path = file or existing_home(home).config
    try:
        load(path)
    except ConfigError as error:
        if output is Output.json:
            emit(output, {"file": str(path), "faults": [_fault(fault) for fault in error.faults]}, str)
        raise
    emit(output, {"file": str(path), "faults": []}, lambda: f"{path}: no faults")


def _fault(fault: Any) -> dict[str, Any]:
    return {"line": fault.line, "where": fault.where, "problem": fault.problem, "fix": fault.fix}


@app.command("show")
def show(file: FileArgument = None, home: HomeOption = None, output: OutputOption = Output.text) -> None:
    """Show what holds, with every default filled in.

    \b
    Examples:
      pki config show
      pki config show --output json
    """
    from stepca_pki.config.load import load

    authority = load(file or existing_home(home).config)
    value = authority.model_dump(mode="json", exclude_none=True)
    emit(output, value, lambda: _as_yaml(value))


def _as_yaml(value: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip()


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of pki.yaml, for editors that complete and check while one types.

    \b
    Example:
      pki config schema > pki.schema.json
    """
    import json

    from stepca_pki.config.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
