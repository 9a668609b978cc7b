"""Finding the provisioner types: each module of this package that defines one is a type."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from stepca_pki import provisioners
from stepca_pki.provisioners.base import Provisioner

_NOT_TYPES = {"base", "registry"}


@cache
def kinds() -> Mapping[str, type[Provisioner]]:
    """Return every provisioner type by its kind. Adding a file to the package adds a type."""
    for module in pkgutil.iter_modules(provisioners.__path__):
        if module.name not in _NOT_TYPES:
            import_module(f"{provisioners.__name__}.{module.name}")
    return {cls.kind: cls for cls in sorted(Provisioner.__subclasses__(), key=lambda cls: cls.kind) if cls.kind}


def parse_provisioner(item: Any) -> Provisioner:
    """Return the typed provisioner for one entry of pki.yaml. Raises ValueError (pydantic's, with places)."""
    if not isinstance(item, Mapping):
        raise ValueError("must be a mapping with 'type' and 'name'")
    kind = item.get("type")
    if not isinstance(kind, str) or kind.lower() not in kinds():
        raise ValueError(f"type {kind!r} is unknown; the types are {', '.join(kinds())}")
    return kinds()[kind.lower()].model_validate(dict(item))
