"""JSON Schema of pki.yaml, for editors. Pure."""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import Any

from stepca_pki.config.model import Authority
from stepca_pki.provisioners.registry import kinds
from stepca_pki.values import Model


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12). Provisioners are one of the types that are installed."""
    schema = Authority.model_json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "pki.yaml"
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    names = []
    for kind, model in kinds().items():
        one = model.model_json_schema(mode="validation")
        definitions.update(one.pop("$defs", {}))
        one["properties"]["type"] = {"const": kind, "description": one.get("description", "")}
        one["required"] = sorted({*one.get("required", []), "type", "name"})
        definitions[f"provisioner_{kind}"] = one
        names.append({"$ref": f"#/$defs/provisioner_{kind}"})
    provisioners = schema["properties"]["provisioners"]
    provisioners["items"] = {"oneOf": names}
    _describe(schema, Authority)
    for name, definition in definitions.items():
        if (described := _model(name)) is not None:
            _describe(definition, described)
    return schema


def _model(name: str) -> type[Model] | None:
    if name.startswith("provisioner_"):
        return kinds()[name.removeprefix("provisioner_")]
    return next((model for model in Model.__subclasses__() if model.__name__ == name), None)


def _describe(schema: dict[str, Any], model: type[Model]) -> None:
    """Add the docstrings of fields. pydantic would read the source of every model at every start to have them."""
    for cls in (base for base in model.__mro__ if issubclass(base, Model)):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        statements = definition.body if isinstance(definition, ast.ClassDef) else []
        for field, text in pairwise(statements):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                known = schema.get("properties", {}).get(field.target.id)
                if known is not None:
                    known.setdefault("description", inspect.cleandoc(str(text.value.value)))
