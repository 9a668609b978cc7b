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
    names = (module.name for module in pkgutil.iter_modules(provisioners.__path__))
    return {name: _load(name) for name in sorted(names) if name not in _NOT_TYPES}


def find_kind(kind: str) -> type[Provisioner] | None:
    """Return one type, None if there is none. Only its own file is imported: most authorities use few."""
    wanted = kind.lower()
    known = {module.name for module in pkgutil.iter_modules(provisioners.__path__)} - _NOT_TYPES
    return _load(wanted) if wanted in known else None


def _load(name: str) -> type[Provisioner]:
    """Return the type that the file *name* defines. The file has the name of the kind."""
    module = import_module(f"{provisioners.__name__}.{name}")
    found = [item for item in vars(module).values() if isinstance(item, type) and item.__module__ == module.__name__]
    (cls,) = (item for item in found if issubclass(item, Provisioner))
    if cls.kind != name:
        raise ImportError(f"{module.__name__} defines the kind '{cls.kind}'; a type's file has its name")
    return cls


def parse_provisioner(item: Any) -> Provisioner:
    """Return the typed provisioner for one entry of pki.yaml. Raises ValueError (pydantic's, with places)."""
    if not isinstance(item, Mapping):
        raise ValueError("must be a mapping with 'type' and 'name'")
    kind = item.get("type")
    found = find_kind(kind) if isinstance(kind, str) else None
    if found is None:
        raise ValueError(f"type {kind!r} is unknown; the types are {', '.join(kinds())}")
    return found.model_validate({**item, "type": found.kind})
