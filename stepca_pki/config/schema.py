"""JSON Schema of pki.yaml, for editors. Pure."""

from __future__ import annotations

from typing import Any

from stepca_pki.config.model import Authority
from stepca_pki.provisioners.registry import kinds


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
    return schema
