"""JSON schemas as Anthropic takes them: what it refuses as a keyword stands in the description, so that the model may still
follow it.

Source: the structured outputs page of the API reference, and `transform_schema` of the SDK (2.12), as of November 2026.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_KEPT = frozenset(
    (
        "type",
        "properties",
        "required",
        "items",
        "enum",
        "const",
        "anyOf",
        "allOf",
        "$ref",
        "$defs",
        "definitions",
        "description",
        "title",
    )
)
_OF_THE_FILE = frozenset({"$schema", "$id", "$comment"})  # refused where it names another draft
_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"))


def output_schema(schema: Any) -> Any:
    """A schema for `output_config` or a strict tool: closed objects, and only the keywords that are taken."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {name: schema[name] for name in ("$ref",)} | _definitions(schema)
    told = {name: value for name, value in schema.items() if not _is_kept(name, value)}
    kept: dict[str, Any] = {name: value for name, value in schema.items() if _is_kept(name, value)}
    if isinstance(one_of := told.pop("oneOf", None), list):
        kept["anyOf"] = one_of
    told.pop("additionalProperties", None)
    for name in ("anyOf", "allOf"):
        if isinstance(kept.get(name), list):
            kept[name] = [output_schema(variant) for variant in kept[name]]
    if isinstance(kept.get("properties"), dict):
        kept["properties"] = {name: output_schema(inner) for name, inner in kept["properties"].items()}
    if "items" in kept:
        kept["items"] = output_schema(kept["items"])
    kept |= _definitions(schema)
    if kept.get("type") == "object" or "properties" in kept:
        kept = {**kept, "type": "object", "properties": kept.get("properties", {}), "additionalProperties": False}
    return _described(kept, told)


def moved_keywords(before: Any, after: Any) -> bool:
    """Whether any keyword went into a description."""
    if isinstance(before, dict) and isinstance(after, dict):
        if before.get("description") != after.get("description"):
            return True
        return any(moved_keywords(before[name], after[name]) for name in before.keys() & after.keys())
    if isinstance(before, list) and isinstance(after, list):
        return any(moved_keywords(one, other) for one, other in zip(before, after, strict=False))
    return False


def tool_schema(schema: Any) -> dict[str, Any]:
    """A tool's `input_schema`: an object at the top, whatever the other side took. Variants at the top go into the
    description."""
    if not isinstance(schema, dict):
        return {"type": "object", "properties": {}}
    schema = {name: value for name, value in schema.items() if value is not None and name not in _OF_THE_FILE}
    told = {name: schema[name] for name in ("oneOf", "anyOf", "allOf") if name in schema}
    kept = {name: value for name, value in schema.items() if name not in told}
    made = {"properties": {}, **kept, "type": "object"}
    return _described(made, told) if told else made


def _is_kept(name: str, value: Any) -> bool:
    if name == "format":
        return value in _FORMATS
    if name == "minItems":
        return value in (0, 1)
    return name in _KEPT


def _definitions(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {key: output_schema(inner) for key, inner in schema[name].items()}
        for name in ("$defs", "definitions")
        if isinstance(schema.get(name), dict)
    }


def _described(kept: dict[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    if not told:
        return kept
    words = ", ".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in told.items())
    before = kept.get("description")
    return {**kept, "description": f"{before}\n\n{{{words}}}" if before else f"{{{words}}}"}
