"""The Anthropic Messages dialect, spoken natively: chat-completions bodies in, chat completions out.

What differs stands in docs/dialects.md. Stable blocks (instructions, tools) are marked for the provider's prompt cache
where they are long enough to be kept and the job marks nothing itself; a schema goes to `output_config`, other JSON is
asked for in words. Source: the Messages API reference, version 2026-10-21, which the SDK speaks since its version 2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

from worker.errors.classify import Broken, Reply
from worker.providers.anthropic.answer import Assembly, completion_of
from worker.providers.anthropic.messages import lacks_thinking, system_of, turns_of
from worker.providers.anthropic.schema import moved_keywords, output_schema, tool_schema
from worker.providers.anthropic.tool_names import fitting_names, renamed
from worker.providers.http import ProviderRequest, Spoken, call, unsayable
from worker.providers.json_instruction import json_instruction
from worker.providers.transport import Transport
from worker.routes.parameters import NATIVE_OUTPUT_TOKENS
from worker.routes.tokens import estimated

VERSION = "2026-10-21"
CACHED_FROM_TOKENS = 1024  # the shortest prefix that any model keeps; a mark on a shorter one is passed over
MOST_MARKS = 4
SHORTEST_THINKING_TOKENS = 1024  # a smaller budget is refused

_CHOICE = {"auto": "auto", "none": "none", "required": "any"}
_SAMPLING = ("temperature", "top_p", "top_k")  # refused since 2026-10-21, even at their defaults
_EFFORTS = {
    "none": "low",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
_PERSONAL = re.compile(r"@|^\+?[\d\s().-]{7,}$")  # an address or a telephone number


async def complete(transport: Transport, wanted: ProviderRequest) -> Reply | Broken:
    """POST {base_url}/v1/messages with the route's model. A body that cannot be said in this dialect goes elsewhere."""
    streams = wanted.first_token_seconds is not None
    longest = wanted.route.entry.max_output_tokens
    try:
        names = fitting_names(wanted.body)
        body = renamed(wanted.body, names) if names else wanted.body
        sent, dropped = request_of(body, wanted.route.model, longest, stream=streams, caching=wanted.prompt_caching)
    except Exception as error:  # noqa: BLE001 - bodies are of any shape, and what has no counterpart fails in any way
        return unsayable(error)
    wanted.dropped.extend(dropped)
    headers = {"anthropic-version": VERSION} | ({"x-api-key": wanted.key} if wanted.key else {})
    path = path_of(wanted.route.base_url, "messages")
    answer = await call(transport, wanted, Spoken(path, headers, sent, Assembly, completion_of))
    if not names:
        return answer
    wanted.dropped.append("names of tools")
    given = {fitting: name for name, fitting in names.items()}
    return replace(answer, body=renamed(answer.body, given)) if isinstance(answer, Reply) else answer


def path_of(base_url: str, name: str) -> str:
    """Base URLs of this API are written with and without their /v1."""
    return f"/{name}" if base_url.endswith("/v1") else f"/v1/{name}"


def request_of(
    body: Mapping[str, Any], model: str, longest: int | None, *, stream: bool, caching: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(the Messages request, what of the body was changed, in words). `longest`: the route's maxOutputTokens.

    Raises ValueError, KeyError, TypeError or AttributeError for what has no counterpart.
    """
    messages, dropped = list(body["messages"]), list[str]()
    form = body.get("response_format") or {}
    schema = _schema(form, dropped)
    if schema is None and form.get("type") in ("json_object", "json_schema"):
        messages = [{"role": "system", "content": json_instruction(form)}, *messages]
        dropped.append("response_format as an instruction")
    limit, thinking = _limit_and_thinking(body, longest, messages, dropped)
    turns = turns_of(messages, dropped, thinking=thinking is not None)
    if not turns:
        raise ValueError("no message that says anything")
    sent: dict[str, Any] = {"model": model, "max_tokens": limit, "messages": turns, "stream": stream}
    if thinking is not None:
        sent["thinking"] = thinking
    sent |= _steering(body, dropped) | _tools(body, messages, dropped, thinking=thinking is not None)
    output = {"format": {"type": "json_schema", "schema": schema}} if schema is not None else {}
    if (effort := _EFFORTS.get(str(body.get("reasoning_effort")))) is not None:
        output["effort"] = effort  # type: ignore[assignment]  # beside the format
    if output:
        sent["output_config"] = output
    if system := system_of(messages):
        sent["system"] = system
    _mark(sent, dropped, caching=caching)
    return sent, tuple(dropped)


def _limit_and_thinking(
    body: Mapping[str, Any], longest: int | None, messages: list[Any], dropped: list[str]
) -> tuple[int, dict[str, Any] | None]:
    """The limit of output tokens, and thinking with a budget below it. After a tool call whose thinking is lost, it cannot
    think on."""
    named = body.get("max_completion_tokens") or body.get("max_tokens")
    limit = named or longest or NATIVE_OUTPUT_TOKENS
    thinking = body.get("thinking")
    if not isinstance(thinking, dict) or thinking.get("type") == "disabled":
        return limit, None
    if lacks_thinking(messages):
        dropped.append("thinking, as an earlier turn has none of its own")
        return limit, None
    budget = thinking.get("budget_tokens")
    if thinking.get("type") != "enabled":
        return limit, {name: value for name, value in thinking.items() if name != "budget_tokens"}
    if not isinstance(budget, int):
        return limit, {"type": "adaptive"}  # without a budget it is the model's own
    if named is None and limit <= budget:
        limit = budget + NATIVE_OUTPUT_TOKENS
    if limit <= SHORTEST_THINKING_TOKENS:
        dropped.append("thinking, as max_tokens leaves no room for it")
        return limit, None
    fitting = max(SHORTEST_THINKING_TOKENS, min(budget, limit - 1))
    if fitting != budget:
        dropped.append(f"thinking of {fitting} tokens")
    return limit, {**thinking, "budget_tokens": fitting}


def _steering(body: Mapping[str, Any], dropped: list[str]) -> dict[str, Any]:
    """What steers an answer, as far as it can be said; `dropped` names the rest."""
    dropped.extend(name for name in _SAMPLING if body.get(name) is not None)
    steering: dict[str, Any] = {}
    if (tier := body.get("service_tier")) in ("auto", "standard_only"):
        steering["service_tier"] = tier
    elif tier is not None:
        dropped.append("service_tier")
    if user := body.get("user"):
        if _PERSONAL.search(str(user)):
            user = sha256(str(user).encode()).hexdigest()[:32]
            dropped.append("user as a hash")
        steering["metadata"] = {"user_id": str(user)[:256]}
    if stop := body.get("stop"):
        given = [stop] if isinstance(stop, str) else list(stop)
        kept = [each for each in given if isinstance(each, str) and each.strip()]
        if len(kept) < len(given):
            dropped.append("blank stop sequences")
        steering |= {"stop_sequences": kept} if kept else {}
    return steering


def _schema(form: Mapping[str, Any], dropped: list[str]) -> Any:
    described = form.get("json_schema") if form.get("type") == "json_schema" else None
    if not isinstance(described, dict):
        return None
    schema = output_schema(described.get("schema"))
    if moved_keywords(described.get("schema"), schema):
        dropped.append("schema keywords as descriptions")
    return schema


def _tools(body: Mapping[str, Any], messages: list[Any], dropped: list[str], *, thinking: bool) -> dict[str, Any]:
    """The job's tools, each once. Where a conversation called some and the job has none, they are named: else it is refused."""
    given = body.get("tools") or [{"type": "function", "function": each} for each in body.get("functions") or ()]
    tools = [tool for at, tool in enumerate(given) if tool not in given[:at]]
    if not tools:
        called = dict.fromkeys(name for message in messages for name in _called(message))
        if not called:
            return {}
        dropped.append("tools that the conversation called, by their names")
        stubs = [{"name": name, "input_schema": {"type": "object", "properties": {}}} for name in called]
        return {"tools": stubs, "tool_choice": {"type": "none"}}
    choice = body.get("tool_choice") or "auto"
    if isinstance(choice, dict):
        chosen: dict[str, Any] = {"type": "tool", "name": choice["function"]["name"]}
    else:
        chosen = {"type": _CHOICE.get(choice, "auto")}
    if thinking and chosen["type"] in ("tool", "any"):  # refused together
        chosen = {"type": "auto"}
        dropped.append("tool_choice beside thinking")
    if body.get("parallel_tool_calls") is False and chosen["type"] != "none":
        chosen["disable_parallel_tool_use"] = True
    return {"tools": [_tool(tool) for tool in tools], "tool_choice": chosen}


def _called(message: Mapping[str, Any]) -> list[str]:
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return [
        str(call["name"]) for call in (*calls, *([message["function_call"]] if message.get("function_call") else ()))
    ]


def _tool(tool: Any) -> Any:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return dict(tool)
    function = tool["function"]
    schema = tool_schema(function.get("parameters"))
    if function.get("strict"):
        schema = output_schema(schema)
    made = {"name": function["name"], "input_schema": schema}
    made |= {name: function[name] for name in ("description", "strict") if function.get(name) is not None}
    mark = tool.get("cache_control") or function.get("cache_control")
    return made | ({"cache_control": mark} if isinstance(mark, dict) else {})


def _mark(sent: dict[str, Any], dropped: list[str], *, caching: bool) -> None:
    """One mark at the end of what stays the same from job to job, tools and then instructions, where the job marks nothing
    itself; of its own the last four, as more are refused."""
    stable = sent.get("system") or sent.get("tools")
    turns = [block for turn in sent["messages"] for block in turn["content"]]
    marked = [
        block for block in (*(sent.get("tools") or ()), *(sent.get("system") or ()), *turns) if "cache_control" in block
    ]
    for block in marked[:-MOST_MARKS]:
        del block["cache_control"]
        dropped.append("cache_control of more than four places")
    if not caching or not stable or marked:
        return
    if estimated({"messages": sent.get("system"), "tools": sent.get("tools")}) >= CACHED_FROM_TOKENS:
        stable[-1] = {**stable[-1], "cache_control": {"type": "ephemeral"}}
