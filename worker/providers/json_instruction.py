"""A `response_format` in words, for models that know no such parameter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ONLY_JSON = "Answer with one JSON object and nothing else: no explanation, no code fence."


def json_instruction(form: Mapping[str, Any]) -> str:
    """A `response_format` as an instruction."""
    described = form.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    follows = f" It follows this JSON schema: {json.dumps(schema, ensure_ascii=False)}" if schema else ""
    return ONLY_JSON + follows
