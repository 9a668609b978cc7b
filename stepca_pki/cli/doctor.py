"""`pki doctor`: what this machine lacks, and what brings it."""

from __future__ import annotations

from dataclasses import asdict

from stepca_pki.cli.context import Output, OutputOption, emit, new_app
from stepca_pki.errors import PkiError

app = new_app()


@app.command("doctor")
def doctor(output: OutputOption = Output.text) -> None:
    """Say what this machine lacks, and the command that brings it. Exit code 1 if something required is missing.

    \b
    Examples:
      pki doctor
      pki doctor --output json
    """
    from stepca_pki.doctor import examine_machine

    found = examine_machine()
    missing = [one.name for one in found if one.required and one.detail is None]
    value = {"complete": not missing, "parts": [asdict(one) for one in found]}
    emit(output, value, lambda: "\n".join(_line(asdict(one)) for one in found))
    if missing:
        raise PkiError(
            f"required and missing: {', '.join(missing)}", fix="run the commands above, then 'pki doctor' again"
        )


def _line(one: dict[str, str | bool | None]) -> str:
    if one["detail"] is not None:
        return f"ok       {one['name']:13}{one['detail']}"
    state = "MISSING" if one["required"] else "absent"
    return f"{state:9}{one['name']:13}{one['why']}\n{'':22}get it: {one['remedy']}"
