"""The one function that knows where the packaged templates are. Undefined names are errors."""

from __future__ import annotations

import shlex
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def _environment() -> Environment:
    environment = Environment(  # noqa: S701  # text for nginx, sh and systemd: HTML escaping would break it
        loader=PackageLoader("stepca_pki", "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sh"] = lambda value: shlex.quote(str(value))
    return environment


def render_text(template: str, **values: Any) -> str:
    """Return a packaged template filled with *values*. Raises jinja2's UndefinedError for a missing one."""
    return _environment().get_template(template).render(**values)
