"""`pki health`: probe the authority."""

from __future__ import annotations

from typing import Any

import typer

from stepca_pki.cli.context import HomeOption, Output, OutputOption, coloured, emit, existing_home, new_app, working
from stepca_pki.errors import NotHealthy

app = new_app()

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


@app.command("health")
def health(home: HomeOption = None, output: OutputOption = Output.text) -> None:
    """Probe the authority: alive, answering, able to sign, in date. Exit code 0, or 4 if a probe failed.

    \b
    Examples:
      pki health
      pki health --output json
    """
    from dataclasses import asdict

    from stepca_pki.config.load import load
    from stepca_pki.health.probes import probe_all
    from stepca_pki.health.verdict import healthy

    at = existing_home(home)
    with working("probing"):
        findings = probe_all(at, load(at.config))
    good = healthy(findings)
    value = {"healthy": good, "probes": [asdict(finding) for finding in findings]}
    emit(output, value, lambda: "\n".join(_line(asdict(finding)) for finding in findings))
    if not good:
        failed = ", ".join(finding.probe for finding in findings if finding.grade == "failed")
        raise NotHealthy(f"failed: {failed}")


def _line(finding: dict[str, Any]) -> str:
    grade = f"{finding['grade']:8}"
    if coloured():
        grade = typer.style(grade, fg=_COLOURS[str(finding["grade"])])
    fix = f"\n{'':24}fix: {finding['fix']}" if finding["fix"] else ""
    return f"{grade}{finding['probe']:16}{finding['figure']}{fix}"
