"""A conversation that another provider began, translated for the next one: roles, fields, parts, ids of tool calls, the order
of turns.

Message fields go by an allow-list, as parameters do: what a provider does not know is left out, and said in the trail's
`dropped`. Sources: the providers' API references and the issues of gateways, as of November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from worker.routes.tool_turns import in_order, with_tool_calls

_FIELDS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})
_CALL_FIELDS = frozenset({"id", "type", "function", "index"})
_PARTS = frozenset({"text", "image_url", "input_audio", "file", "refusal", "video_url", "document_url"})
_NINE = re.compile(r"[a-zA-Z0-9]{9}")
_NOT_IN_NAMES = re.compile(r"[\s<|\\/>]+")
LONGEST_ID = 40  # of a tool call, at OpenAI
UNSIGNED = "skip_thought_signature_validator"  # Google's own word for calls that came from elsewhere


@dataclass(frozen=True)
class MessageRules:
    """`takes`: the fields of a message; `call_takes`: of a tool call; `named`: the roles that may have a `name`. `developer`:
    the role is known. `nine_letter_ids`: ids of tool calls are nine letters or digits. `signs_calls`: each turn that calls
    tools carries a thought signature. `assistant_after_tool`: nobody else speaks right after a tool's answer.
    `plain_content`: the roles whose content is text, and no list of parts. `prefix`: a last turn of the assistant says that
    it is one."""

    takes: Set[str] = _FIELDS
    call_takes: Set[str] = _CALL_FIELDS
    named: Set[str] = frozenset({"system", "user", "assistant", "tool", "function", "developer"})
    developer: bool = False
    nine_letter_ids: bool = False
    signs_calls: bool = False
    assistant_after_tool: bool = False
    plain_content: Set[str] = frozenset()
    prefix: bool = False


OPENAI = MessageRules(_FIELDS | {"refusal", "audio", "function_call"}, developer=True)
GOOGLE = MessageRules(call_takes=_CALL_FIELDS | {"extra_content"}, signs_calls=True)
MISTRAL = MessageRules(
    _FIELDS | {"prefix"}, nine_letter_ids=True, assistant_after_tool=True, named=frozenset({"tool"}), prefix=True
)
GROQ = MessageRules(_FIELDS - {"name"}, plain_content=frozenset({"system", "assistant", "tool"}))
DEEPSEEK = MessageRules(
    _FIELDS | {"prefix", "reasoning_content"}, plain_content=frozenset({"system", "user", "assistant", "tool"})
)
OTHERS = MessageRules()


def translated(messages: Any, rules: MessageRules) -> tuple[Any, tuple[str, ...]]:
    """(the conversation as the provider takes it, what was changed, in words). Messages that need no change stay as they
    are."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return messages, ()
    dropped: dict[str, None] = {}
    ordered = messages if "function_call" in rules.takes else with_tool_calls(messages, dropped)
    ordered = in_order(ordered, dropped)
    sent: list[dict[str, Any]] = []
    for message in ordered:
        fitting = _fields(message, rules, dropped)
        if message.get("role") == "developer" and not rules.developer:
            fitting = {**fitting, "role": "system"}
            dropped["developer as system"] = None
        fitting = _calls(_content(fitting, rules, dropped), rules, dropped)
        after_tool = rules.assistant_after_tool and sent and sent[-1].get("role") == "tool"
        if after_tool and fitting.get("role") not in ("assistant", "tool"):
            sent.append({"role": "assistant", "content": "Understood."})
            dropped["a turn of the assistant between a tool and the user"] = None
        sent.append(fitting)
    if rules.prefix and sent and sent[-1].get("role") == "assistant" and not sent[-1].get("prefix"):
        sent[-1] = {**sent[-1], "prefix": True}
        dropped["the last turn as a prefix"] = None
    return (sent, tuple(dropped)) if dropped else (messages, ())


def _fields(message: dict[str, Any], rules: MessageRules, dropped: dict[str, None]) -> dict[str, Any]:
    """Without the fields that are not taken, and without those that are null or empty."""
    foreign = [
        name
        for name, value in message.items()
        if name not in rules.takes
        or (value is None and name != "content")
        or (name == "tool_calls" and not value)
        or (name == "name" and message.get("role") not in rules.named)
    ]
    if not foreign and _has_good_name(message):
        return message
    fitting = {name: value for name, value in message.items() if name not in foreign}
    refused = message.get("refusal")
    if "refusal" in foreign and refused and not message.get("content"):
        fitting["content"] = refused
    thought = message.get("reasoning")
    if "reasoning_content" in rules.takes and isinstance(thought, str) and message.get("tool_calls"):
        fitting.setdefault("reasoning_content", thought)
    if not _has_good_name(fitting):
        fitting["name"] = _NOT_IN_NAMES.sub("_", fitting["name"])
        foreign.append("name")
    dropped |= {f"messages.{name}": None for name in foreign}
    return fitting


def _has_good_name(message: Mapping[str, Any]) -> bool:
    name = message.get("name")
    return not isinstance(name, str) or not _NOT_IN_NAMES.search(name)


def _content(message: dict[str, Any], rules: MessageRules, dropped: dict[str, None]) -> dict[str, Any]:
    """Parts of kinds that are taken; texts alone as one text where a role has no parts."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    parts = [fitting for part in content if (fitting := _part(part)) is not None]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    if message.get("role") in rules.plain_content and len(texts) == len(parts):
        dropped["texts in one"] = None
        return {**message, "content": "\n".join(map(str, texts))}
    if parts == content:
        return message
    dropped["parts of messages"] = None
    return {**message, "content": parts or ""}


def _part(part: Any) -> Any:
    """A part as chat completions have it; None for one that has no counterpart there, such as a model's thinking."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict):
        return None
    kind = part.get("type")
    if kind in ("input_text", "output_text"):
        return {"type": "text", "text": part.get("text")}
    if kind == "image_url" and isinstance(part.get("image_url"), str):
        return {"type": "image_url", "image_url": {"url": part["image_url"]}}
    if not isinstance(kind, str) or kind not in _PARTS:
        return None
    return {name: value for name, value in part.items() if name != "cache_control"} if "cache_control" in part else part


def _calls(message: dict[str, Any], rules: MessageRules, dropped: dict[str, None]) -> dict[str, Any]:
    """Tool calls and their answers, with ids and fields as the provider takes them."""
    changed: dict[str, Any] = {}
    if isinstance(given := message.get("tool_call_id"), str) and (other := _id(given, rules)) != given:
        changed["tool_call_id"] = other
        dropped["ids of tool calls"] = None
    if isinstance(calls := message.get("tool_calls"), list) and calls:
        fitting = [_call(call, rules, dropped) if isinstance(call, dict) else call for call in calls]
        if rules.signs_calls and isinstance(fitting[0], dict) and not _signature(fitting[0]):
            fitting[0] = {**fitting[0], "extra_content": {"google": {"thought_signature": UNSIGNED}}}
            dropped["no thought signature of its own"] = None
        if fitting != calls:
            changed["tool_calls"] = fitting
    return {**message, **changed} if changed else message


def _call(call: dict[str, Any], rules: MessageRules, dropped: dict[str, None]) -> dict[str, Any]:
    foreign = [name for name, value in call.items() if name not in rules.call_takes or value is None]
    dropped |= {f"tool_calls.{name}": None for name in foreign}
    fitting = {name: value for name, value in call.items() if name not in foreign}
    if isinstance(given := fitting.get("id"), str) and (other := _id(given, rules)) != given:
        fitting["id"] = other
        dropped["ids of tool calls"] = None
    function = fitting.get("function")
    if isinstance(function, dict) and not function.get("arguments"):
        fitting["function"] = {**function, "arguments": "{}"}
        dropped["arguments of calls without any"] = None
    if "type" not in fitting:
        fitting["type"] = "function"
        dropped["types of tool calls"] = None
    return fitting


def _id(given: str, rules: MessageRules) -> str:
    """The same id for the same id, wherever it stands."""
    if _NINE.fullmatch(given) if rules.nine_letter_ids else len(given) <= LONGEST_ID:
        return given
    digest = sha256(given.encode("utf-8", "surrogatepass")).hexdigest()
    return digest[:9] if rules.nine_letter_ids else f"call_{digest[:32]}"


def _signature(call: Mapping[str, Any]) -> bool:
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    return isinstance(google, dict) and bool(google.get("thought_signature"))
