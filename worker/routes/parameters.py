"""The parameters that each provider's chat-completions endpoint accepts, as data: allow-lists, and renamed parameters.

A list applies to the provider's own host. Behind a gateway the accepted parameters are unknown, so all are sent, and one
that a 400 names is dropped once. docs/dialects.md documents the same differences, row by row. Sources: the providers' API
references and the issues of gateways, as of November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from producer.policy import Capability
from worker.errors.catalog import DROPPABLE
from worker.routes.conversation import DEEPSEEK, GOOGLE, GROQ, MISTRAL, OPENAI, OTHERS, MessageRules, translated

_EVERYWHERE = frozenset(("messages", "model", "n", "stream", "stop", "temperature", "top_p", "tools", "tool_choice"))
_ALL = _EVERYWHERE | {"stream_options"}


@dataclass(frozen=True)
class Parameters:
    """`takes`: the top level of a body, as it is sent; `renames`: what goes by another name there. `messages`: how a
    conversation has to look. `schema_lacks`: keywords that a tool's schema must not have. `lacks`: what no model there can."""

    takes: Set[str]
    renames: Mapping[str, str] = field(default_factory=dict)
    messages: MessageRules = OTHERS
    schema_lacks: Set[str] = frozenset()
    lacks: Set[Capability] = frozenset()


LISTS = {
    "openai": Parameters(
        _ALL
        | {
            "audio",
            "frequency_penalty",
            "function_call",
            "functions",
            "logit_bias",
            "logprobs",
            "max_completion_tokens",
        }
        | {"metadata", "modalities", "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key"}
        | {"prompt_cache_retention", "reasoning_effort", "response_format", "safety_identifier", "seed", "service_tier"}
        | {"store", "top_logprobs", "user", "verbosity", "web_search_options"},
        {"max_tokens": "max_completion_tokens"},  # reasoning models refuse the old name, all take the new one
        messages=OPENAI,
    ),
    "google": Parameters(
        _ALL | {"max_tokens", "max_completion_tokens", "parallel_tool_calls", "reasoning_effort", "response_format"},
        messages=GOOGLE,
        schema_lacks=frozenset({"$schema", "$id", "$comment", "additionalProperties", "patternProperties"}),
    ),
    "mistral": Parameters(
        _EVERYWHERE  # its streams report usage without `stream_options`
        | {"frequency_penalty", "max_tokens", "parallel_tool_calls", "prediction", "presence_penalty", "prompt_mode"}
        | {"random_seed", "response_format", "safe_prompt"},
        {"max_completion_tokens": "max_tokens", "seed": "random_seed"},
        messages=MISTRAL,
    ),
    "groq": Parameters(
        _ALL
        | {"frequency_penalty", "max_completion_tokens", "max_tokens", "parallel_tool_calls", "presence_penalty"}
        | {"reasoning_effort", "reasoning_format", "response_format", "seed", "service_tier", "user"},
        messages=GROQ,
    ),
    "deepseek": Parameters(
        _ALL | {"frequency_penalty", "logprobs", "max_tokens", "presence_penalty", "response_format", "top_logprobs"},
        {"max_completion_tokens": "max_tokens"},
        messages=DEEPSEEK,
        lacks=frozenset({"json_schema", "vision"}),
    ),
    # It ignores response_format silently, so jobs that have one must not use it. `"api": "anthropic"` uses the native API.
    "anthropic": Parameters(
        _ALL | {"max_completion_tokens", "max_tokens", "parallel_tool_calls", "response_format"},
        lacks=frozenset({"json_mode", "json_schema"}),
    ),
}

NATIVELY = MessageRules()  # worker/providers/anthropic/messages.py translates the conversation itself
NATIVE_OUTPUT_TOKENS = 4096  # of Anthropic's Messages, which want a limit: where neither job nor route names one
# What worker/providers/anthropic/request.py can say in Anthropic's Messages.
NATIVE = Parameters(
    _ALL
    | {"max_completion_tokens", "max_tokens", "parallel_tool_calls", "response_format", "service_tier", "thinking"}
    | {"functions", "reasoning_effort", "top_k", "user"},
    messages=NATIVELY,
)

_HOSTS = {
    "api.openai.com": "openai",
    "generativelanguage.googleapis.com": "google",
    "api.mistral.ai": "mistral",
    "api.groq.com": "groq",
    "api.deepseek.com": "deepseek",
    "api.anthropic.com": "anthropic",
}


def of_host(base_url: str) -> Parameters | None:
    """The parameters of the provider whose own host this is; None if unknown: everything is sent."""
    return LISTS.get(_HOSTS.get(urlsplit(base_url).hostname or "", ""))


def essential(body: Mapping[str, Any], known: Parameters | None) -> set[str]:
    """The body's parameters that the provider does not accept and that must not be dropped, or the answer is wrong."""
    if known is None:
        return set()
    foreign = {name for name in body.keys() - known.takes if body[name] is not None}
    return foreign.difference(known.renames, DROPPABLE)


def fitted(body: Mapping[str, Any], known: Parameters | None) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """(the body as the provider accepts it, the names of what was dropped or renamed, for the trail)."""
    if body.get("tools") == [] or body.get("functions") == []:
        body = _without_empty_tools(body)
    if known is None:
        return body, ()
    foreign = body.keys() - known.takes
    messages, changed = (
        translated(body.get("messages"), known.messages) if known.messages is not NATIVELY else (None, ())
    )
    tools = body.get("tools")
    if tools and _has(tools, known.schema_lacks):
        tools = _plainer(tools, known.schema_lacks)
    if not foreign and not changed and tools is body.get("tools"):
        return body, ()
    sent, dropped = dict(body), list(changed)
    if changed:
        sent["messages"] = messages
    if tools is not body.get("tools"):
        sent["tools"] = tools
        dropped.append("keywords of tool schemas")
    for name in sorted(foreign):
        value, other = sent.pop(name), known.renames.get(name)
        if value is None:
            continue
        if other and other not in sent:
            sent[other] = value
            dropped.append(f"{name} as {other}")
        else:
            dropped.append(name)
    return sent, tuple(dropped)


def _has(schema: Any, lacks: Set[str]) -> bool:
    """Whether any keyword of these may stand in it."""
    if not lacks or not isinstance(schema, list | dict):
        return False
    inside = schema if isinstance(schema, list) else schema.values()
    return (isinstance(schema, dict) and not lacks.isdisjoint(schema)) or any(_has(each, lacks) for each in inside)


def _plainer(schema: Any, lacks: Set[str]) -> Any:
    """A schema without these keywords, at any depth; a property may have the name of one."""
    if isinstance(schema, list):
        return [_plainer(each, lacks) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: {key: _plainer(inner, lacks) for key, inner in value.items()}
        if name == "properties" and isinstance(value, dict)
        else _plainer(value, lacks)
        for name, value in schema.items()
        if name not in lacks
    }


def _without_empty_tools(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """An empty list of tools says nothing and is refused, and so is a choice among none."""
    empty = {name for name in ("tools", "functions") if body.get(name) == []}
    none_left = not any(body.get(name) for name in ("tools", "functions"))
    gone = empty | ({"tool_choice", "parallel_tool_calls", "function_call"} if none_left else set())
    return {name: value for name, value in body.items() if name not in gone}


def capabilities_of(body: Mapping[str, Any]) -> set[Capability]:
    """The capabilities that a chat body needs by what it contains."""
    asked: set[Capability] = set()
    if body.get("tools"):
        asked.add("tools")
    form = body.get("response_format")
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_object":
        asked.add("json_mode")
    elif kind == "json_schema":
        asked.add("json_schema")
    if any(_has_image(message.get("content")) for message in body["messages"]):
        asked.add("vision")
    return asked


def _has_image(content: Any) -> bool:
    return isinstance(content, list) and any(isinstance(p, dict) and p.get("type") == "image_url" for p in content)
