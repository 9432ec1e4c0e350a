"""Strict function tools: schemas that a server can enforce while a model writes, so that no call has wrong arguments.

Strict schemas have no optional properties (https://platform.openai.com/docs/guides/structured-outputs): what may be
left out becomes what may be null, and such nulls are taken out of the arguments again.
"""

import json
from collections.abc import Mapping
from typing import Any

_KEPT = ("type", "description", "enum", "minimum", "maximum", "minItems", "maxItems")
"""Keywords that strict schemas may have, besides those for the parts of objects and arrays."""


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the strict form of a JSON schema; None where it has none."""
    try:
        return _strict(schema, optional=False)
    except LookupError:
        return None


def without_nulls(arguments: str, schema: Mapping[str, Any]) -> str:
    """Return a call's arguments without the nulls that stand for what ``schema`` lets a call leave out."""
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    kept = _kept(given, schema)
    return arguments if kept == given else json.dumps(kept, ensure_ascii=False)


def _strict(schema: Mapping[str, Any], *, optional: bool) -> dict[str, Any]:
    kinds = [schema["type"]] if isinstance(schema["type"], str) else list(schema["type"])
    made = {key: schema[key] for key in _KEPT if key in schema}
    if "object" in kinds:
        if schema.get("additionalProperties"):
            raise LookupError("a strict object has no further properties")
        properties, required = schema["properties"], schema.get("required", ())
        made["properties"] = {name: _strict(each, optional=name not in required) for name, each in properties.items()}
        made |= {"required": list(properties), "additionalProperties": False}
    if "array" in kinds:
        made["items"] = _strict(schema["items"], optional=False)
    if optional and "null" not in kinds:
        made["type"] = [*kinds, "null"]
        if "enum" in made:
            made["enum"] = [*made["enum"], None]
        if "default" in schema:
            said = f"{made.get('description', '')} null: {json.dumps(schema['default'])}."
            made["description"] = said.strip()
    return made


def _kept(given: Any, schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return given
    if isinstance(given, list):
        return [_kept(each, schema.get("items")) for each in given]
    if not isinstance(given, dict):
        return given
    properties, required = schema.get("properties", {}), schema.get("required", ())
    return {
        name: _kept(value, properties.get(name))
        for name, value in given.items()
        if value is not None or name in required or name not in properties
    }
