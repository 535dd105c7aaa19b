"""The OpenAPI schemas of /v1's bodies: what wanted.py, responses/asked.py, responses/items.py and batches/batches.py take."""

from __future__ import annotations

from typing import Any

from ops.web.batches.batches import ENDPOINT, WINDOW
from producer.intake.openapi import JSON, strict

Schema = dict[str, Any]
BOOL: Schema = {"type": ["boolean", "null"]}
MAYBE: Schema = {"anyOf": [{"type": "string"}, {"type": "null"}]}
OBJECT: Schema = {"anyOf": [{"type": "object"}, {"type": "null"}]}
ANY: Schema = {"$ref": JSON}
METADATA: Schema = {"anyOf": [{"type": "object", "additionalProperties": {"type": "string"}}, {"type": "null"}]}
STRING: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "minLength": 1}


def json_body(schema: Schema) -> Schema:
    """The `openapi_extra` of a route that takes it."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": strict(schema)}}}}


def _object(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "required": required, "properties": properties}


def _of(*kinds: str) -> Schema:
    return {"enum": list(kinds)}


CHAT_BODY = _object(
    ["messages"],
    model=MAYBE,
    messages={"type": "array", "minItems": 1, "items": _object(["role"], role=STRING)},
    stream=BOOL,
    stream_options=OBJECT,
    metadata=METADATA,
    user=MAYBE,
    safety_identifier=MAYBE,
    n={"enum": [1, None]},
    tools={"anyOf": [{"type": "array"}, {"type": "null"}]},
    response_format=OBJECT,
)
BATCH_BODY = _object(
    ["input_file_id", "endpoint"],
    input_file_id=STRING,
    endpoint=_of(ENDPOINT),
    completion_window={"anyOf": [{"type": "string", "pattern": WINDOW}, {"enum": [None, ""]}]},
    metadata=METADATA,
)
_PART: Schema = {
    "anyOf": [
        _object(["type", "text"], type=_of("input_text", "output_text", "text"), text=STRING),
        _object(["type", "refusal"], type=_of("refusal"), refusal=STRING),
        _object(["type", "image_url"], type=_of("input_image"), image_url=STRING, detail=MAYBE),
        _object(["type", "file_data"], type=_of("input_file"), file_data=NAME, filename=MAYBE),
        _object(["type", "input_audio"], type=_of("input_audio"), input_audio={"type": "object"}),
    ]
}
_CONTENT: Schema = {"anyOf": [STRING, {"type": "array", "items": _PART}]}
_ROLE = _of("user", "assistant", "system", "developer")
_TURN: Schema = {
    "anyOf": [
        _object(["role", "content"], type=_of("message"), role=_ROLE, content=_CONTENT),
        _object(["type", "call_id", "name"], type=_of("function_call"), call_id=NAME, name=STRING, arguments=MAYBE),
        _object(["type", "call_id", "output"], type=_of("function_call_output"), call_id=NAME, output=_CONTENT),
    ]
}
_ITEM: Schema = {"anyOf": [*_TURN["anyOf"], _object(["type"], type=_of("reasoning"))]}
_FUNCTION = _object(["type"], type=_of("function"), name=ANY, description=ANY, parameters=ANY, strict=ANY)
_FORMAT: Schema = {"anyOf": [{"type": "null"}, _object(["type"], type=_of("text", "json_object", "json_schema"))]}
_ANYTHING = (
    "temperature",
    "top_p",
    "parallel_tool_calls",
    "service_tier",
    "prompt_cache_key",
    "max_output_tokens",
    "stream_options",
    "prompt_cache_retention",
    "max_tool_calls",
)
RESPONSE_BODY: Schema = {
    **_object(
        ["input"],
        model=MAYBE,
        input={"anyOf": [STRING, {"type": "array", "minItems": 1, "items": _ITEM, "contains": _TURN}]},
        instructions=MAYBE,
        previous_response_id=MAYBE,
        background=BOOL,
        store=BOOL,
        stream=BOOL,
        metadata=METADATA,
        user=MAYBE,
        safety_identifier=MAYBE,
        tools={"anyOf": [{"type": "array", "items": _FUNCTION}, {"type": "null"}]},
        tool_choice={
            "anyOf": [
                _of("auto", "none", "required"),
                {"type": "null"},
                _object(["type", "name"], type=_of("function"), name=STRING),
            ]
        },
        text={"anyOf": [_object([], format=_FORMAT, verbosity=ANY), {"type": "null"}]},
        reasoning=OBJECT,
        truncation={"enum": ["disabled", None]},
        top_logprobs={"enum": [0, None]},
        include={
            "anyOf": [{"type": "array", "maxItems": 1, "items": _of("reasoning.encrypted_content")}, {"type": "null"}]
        },
        **dict.fromkeys(_ANYTHING, ANY),
    ),
    "additionalProperties": {"type": "null"},  # any other parameter is refused by its name
    "not": {
        "required": ["background", "store"],
        "properties": {"background": {"const": True}, "store": {"const": False}},
    },
}
