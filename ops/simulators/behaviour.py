"""The behaviour of a simulated provider: its faults, for which requests, and its normal answers."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0)]
Fault = Literal["none", "hang", "reset", "drip", "cut", "garbage", "stall", "keep_alive", "bad_event", "no_done"]


class Behaviour(BaseModel):
    """How an upstream answers. The default is a healthy provider that answers immediately. Times in seconds.

    Faults of any answer: hang (no answer), reset (the connection breaks), drip (one byte at a time, without end), cut
    (half of it, then the connection breaks), garbage (HTML). Of a streamed one: stall (half of it, then silence),
    keep_alive (comments without end, no token), bad_event (one event is not JSON), no_done (no [DONE] at its end).
    """

    model_config = ConfigDict(extra="forbid")

    latency: tuple[Seconds, Seconds] = (0.0, 0.0)  # uniform between the two
    first_token: Seconds = 0.0  # of a stream, after its headers
    chunks: Annotated[int, Field(ge=1)] = 4  # pieces of a streamed text
    chunk_gap: Seconds = 0.0
    status: int = 200
    error: dict[str, Any] | None = None  # the error object of a non-200, or of a 200 that is one
    body: Any = None  # the whole body of an answer with `status`, as it is
    retry_after: str | None = None
    headers: dict[str, str] = {}  # of every answer that is not streamed
    cached_tokens: Annotated[int, Field(ge=0)] = 0  # of each prompt, at most: read from the provider's cache
    fault: Fault = "none"
    times: int | None = None  # the fault or status applies to this many requests, then it is healthy
    until: float | None = None  # ... or for this many seconds from now: an outage window
    every: Annotated[int, Field(ge=1)] = 1  # ... and for every n-th request only
    keys: list[str] | None = None  # any other key gets a 401
    unknown: list[str] = []  # parameters that are refused with a 400
    ignores: list[str] = []  # parameters that are silently ignored
    context: int | None = None  # characters; a longer conversation is refused with a 400
    prefill: bool = True  # False: a conversation that ends with the assistant is refused with a 400
    finish_reason: str = "stop"
    text: str | None = None  # the answer; by default it echoes the last message


@dataclass
class Upstream:
    """One provider: its behaviour, and its own record of the requests."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    since: float = field(default_factory=time.monotonic)
    asked: int = 0  # requests received
    answered: int = 0  # completions sent whole
    prompt_tokens: int = 0  # of those
    completion_tokens: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    last: dict[str, Any] = field(default_factory=dict)  # the body of the latest request
    by_key: Counter[str] = field(default_factory=Counter)  # requests by Idempotency-Key
    answers_by_key: Counter[str] = field(default_factory=Counter)
    log: list[dict[str, Any]] = field(default_factory=list)  # every request
    left: int | None = None
    count: int = 0

    def behave(self, behaviour: Behaviour) -> None:
        self.behaviour, self.left, self.since, self.count = behaviour, behaviour.times, time.monotonic(), 0

    def current(self) -> Behaviour:
        """The behaviour for the next request; healthy if the fault does not apply to it."""
        behaviour = self.behaviour
        over = behaviour.until is not None and time.monotonic() - self.since > behaviour.until
        self.count += 1
        over = over or self.count % behaviour.every != 0
        if self.left is not None:
            over = over or self.left <= 0
            self.left -= 1
        if not over:
            return behaviour
        return behaviour.model_copy(update={"fault": "none", "status": 200, "error": None, "body": None})


def refusal(behaviour: Behaviour, body: dict[str, Any], key: str) -> tuple[int, dict[str, Any]] | None:
    """(status, error) for a request that this provider refuses; else None."""
    if behaviour.keys is not None and key not in behaviour.keys:
        return 401, {"message": f"Incorrect API key provided: {key}", "code": "invalid_api_key"}
    for parameter in behaviour.unknown:
        if parameter in body:
            return 400, {
                "message": f"Unsupported parameter: '{parameter}'",
                "code": "unsupported_parameter",
                "param": parameter,
            }
    messages = body["messages"]
    if behaviour.context is not None and len(json.dumps(messages)) > behaviour.context:
        limit = f"This model's maximum context length is {behaviour.context} characters"
        return 400, {"message": limit, "code": "context_length_exceeded"}
    if not behaviour.prefill and messages[-1].get("role") == "assistant":
        return 400, {
            "message": "This model does not support assistant message prefill.",
            "type": "invalid_request_error",
        }
    return None


def completion(behaviour: Behaviour, body: dict[str, Any], number: int) -> dict[str, Any]:
    """A chat completion with its usage: it echoes the last message, makes a forced tool call, or answers in the requested
    JSON."""
    prompt = str(body["messages"][-1].get("content"))
    text = f"You said: {prompt}" if behaviour.text is None else behaviour.text
    used = {name: value for name, value in body.items() if name not in behaviour.ignores}
    form = used.get("response_format") or {}
    if form.get("type") in ("json_object", "json_schema"):
        text = json.dumps(_sample((form.get("json_schema") or {}).get("schema") or {"type": "object"}))
    message: dict[str, Any] = {"role": "assistant", "content": text}
    finish = behaviour.finish_reason
    if tool := _forced(used):
        called = {"name": tool["name"], "arguments": json.dumps(_sample(tool.get("parameters") or {}))}
        message = {
            **message,
            "content": None,
            "tool_calls": [{"id": f"call_{number}", "type": "function", "function": called}],
        }
        finish, text = "tool_calls", str(called)
    asked, answered = max(1, len(prompt) // 4), max(1, len(text) // 4)
    usage: dict[str, Any] = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
    if behaviour.cached_tokens:
        usage["prompt_tokens_details"] = {"cached_tokens": min(asked, behaviour.cached_tokens)}
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage,
    }


def _forced(body: dict[str, Any]) -> dict[str, Any] | None:
    """The function that the body requires the model to call, or None."""
    functions: list[dict[str, Any]] = [tool["function"] for tool in body.get("tools") or ()]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        return next((function for function in functions if function["name"] == choice["function"]["name"]), None)
    return functions[0] if functions and choice == "required" else None


def _sample(schema: Any) -> Any:
    """A value that fits a simple JSON schema."""
    if not isinstance(schema, dict):
        return None
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: _sample(part) for name, part in (schema.get("properties") or {}).items()}
        case "array":
            return [_sample(schema.get("items"))]
        case "integer" | "number":
            return 7
        case "boolean":
            return True
    return "Lisbon"


def stream_events(behaviour: Behaviour, whole: dict[str, Any]) -> Iterator[bytes]:
    """The completion as server-sent events: the role, the text in pieces, the finish, the usage, [DONE]."""
    head = {name: whole[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    message, finish = whole["choices"][0]["message"], whole["choices"][0]["finish_reason"]
    text = message["content"] or ""
    size = max(1, -(-len(text) // behaviour.chunks))
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": text[start : start + size]} for start in range(0, len(text), size)]
    deltas += [{"tool_calls": [{"index": n, **called}]} for n, called in enumerate(message.get("tool_calls") or ())]

    def event(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"

    for number, delta in enumerate(deltas):
        if behaviour.fault == "bad_event" and number == 2:
            yield b'data: {"choices": [{"delta": \n\n'
        yield event(delta)
    yield event({}, finish)
    yield b"data: " + json.dumps({**head, "choices": [], "usage": whole["usage"]}).encode() + b"\n\n"
    if behaviour.fault != "no_done":
        yield b"data: [DONE]\n\n"
