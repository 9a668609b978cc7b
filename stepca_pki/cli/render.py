"""`pki render`: print what is generated from pki.yaml."""

from __future__ import annotations

import typer

from stepca_pki.cli.context import HomeOption, existing_home, new_app
from stepca_pki.errors import Waiting

app = new_app("Print what is generated from pki.yaml; nothing is written.")


@app.callback()
def _group() -> None:
    """Print what is generated from pki.yaml; nothing is written."""


@app.command("ca.json")
def ca_json(home: HomeOption = None) -> None:
    """Print step-ca's configuration as 'pki apply' would write it.

    \b
    Examples:
      pki render ca.json
      pki render ca.json | diff - config/ca.json
    """
    from stepca_pki.config.load import load
    from stepca_pki.observe import render_now

    at = existing_home(home)
    text = render_now(load(at.config), at)
    if text is None:
        raise Waiting("the key that belongs into ca.json is not made yet", fix="run 'pki apply'")
    typer.echo(text, nl=False)
