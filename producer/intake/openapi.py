"""The OpenAPI schemas of bodies that the routes read by hand, which FastAPI cannot derive."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

JSON = "#/components/schemas/Json"
TEXT: dict[str, Any] = {"type": "string", "pattern": "^[^\\x00]*$"}
COMPONENTS: dict[str, Any] = {
    "Json": {
        "description": "Any JSON whose strings hold no NUL character, which providers refuse.",
        "anyOf": [
            {"type": ["null", "boolean", "number"]},
            TEXT,
            {"type": "array", "items": {"$ref": JSON}},
            {"type": "object", "propertyNames": TEXT, "additionalProperties": {"$ref": JSON}},
        ],
    }
}


def request_body(
    model: type[BaseModel], *, required: bool = True, strict: bool = False, **fields: Any
) -> dict[str, Any]:
    """The `openapi_extra` of a route whose body is `model`. `fields`: additions to the schema of each field. `strict`: no
    string may contain NUL."""
    schema = model.model_json_schema()
    for name, more in fields.items():
        schema["properties"][name] |= more
    schema = _resolved(schema, schema.pop("$defs", {}), strict)
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, in which no string may contain NUL."""
    found: dict[str, Any] = _resolved(schema, {}, True)
    return found


def _resolved(node: Any, definitions: dict[str, Any], strict: bool) -> Any:
    """The schema with its `$ref`s replaced by their definitions."""
    if isinstance(node, list):
        return [_resolved(item, definitions, strict) for item in node]
    if not isinstance(node, dict):
        return node
    if (ref := node.get("$ref")) and ref != JSON:
        return _resolved(definitions[ref.rsplit("/", 1)[-1]], definitions, strict)
    resolved = {key: _resolved(value, definitions, strict) for key, value in node.items()}
    if strict and resolved.get("type") == "object" and resolved.get("additionalProperties") is not False:
        open_to = resolved.get("additionalProperties", True)
        resolved["additionalProperties"] = {"$ref": JSON} if open_to is True else open_to
        resolved["propertyNames"] = TEXT
    if strict and resolved.get("type") == "array" and not resolved.get("items"):
        resolved["items"] = {"$ref": JSON}
    if strict and resolved.get("type") == "string" and not {"pattern", "enum", "const"} & resolved.keys():
        resolved |= TEXT
    return resolved
