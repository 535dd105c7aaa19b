"""A conversation that another provider began, translated for the next one: roles, fields, ids of tool calls, the order of
turns.

Message fields go by an allow-list, as parameters do: what a provider does not know is left out, and said in the trail's
`dropped`. Sources: the providers' API references and the issues of gateways, as of November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

_FIELDS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})
_CALL_FIELDS = frozenset({"id", "type", "function", "index"})
_NINE = re.compile(r"[a-zA-Z0-9]{9}")
UNSIGNED = "skip_thought_signature_validator"  # Google's own word for calls that came from elsewhere


@dataclass(frozen=True)
class MessageRules:
    """`takes`: the fields of a message; `call_takes`: of a tool call. `developer`: the role is known. `nine_letter_ids`:
    ids of tool calls are nine letters or digits. `signs_calls`: each turn that calls tools carries a thought signature.
    `assistant_after_tool`: no user speaks right after a tool's answer."""

    takes: Set[str] = _FIELDS
    call_takes: Set[str] = _CALL_FIELDS
    developer: bool = False
    nine_letter_ids: bool = False
    signs_calls: bool = False
    assistant_after_tool: bool = False


OPENAI = MessageRules(_FIELDS | {"refusal", "audio", "function_call"}, developer=True)
GOOGLE = MessageRules(call_takes=_CALL_FIELDS | {"extra_content"}, signs_calls=True)
MISTRAL = MessageRules(_FIELDS | {"prefix"}, nine_letter_ids=True, assistant_after_tool=True)
GROQ = MessageRules(_FIELDS - {"name"})
DEEPSEEK = MessageRules(_FIELDS | {"prefix", "reasoning_content"})
OTHERS = MessageRules()


def translated(messages: Any, rules: MessageRules) -> tuple[Any, tuple[str, ...]]:
    """(the conversation as the provider takes it, what was changed, in words). Messages that need no change stay as they
    are."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return messages, ()
    dropped: dict[str, None] = {}
    sent: list[dict[str, Any]] = []
    for message in messages:
        fitting = _fields(message, rules, dropped)
        if message.get("role") == "developer" and not rules.developer:
            fitting = {**fitting, "role": "system"}
            dropped["developer as system"] = None
        fitting = _calls(fitting, rules, dropped)
        if rules.assistant_after_tool and sent and sent[-1].get("role") == "tool" and fitting.get("role") == "user":
            sent.append({"role": "assistant", "content": "Understood."})
            dropped["a turn of the assistant between a tool and the user"] = None
        sent.append(fitting)
    return (sent, tuple(dropped)) if dropped else (messages, ())


def _fields(message: dict[str, Any], rules: MessageRules, dropped: dict[str, None]) -> dict[str, Any]:
    """Without the fields that are not taken; what is null or empty anyway is left out without a word in it."""
    foreign = [
        name for name, value in message.items() if name not in rules.takes or (value is None and name != "content")
    ]
    if not foreign:
        return message
    dropped |= {f"messages.{name}": None for name in foreign}
    return {name: value for name, value in message.items() if name not in foreign}


def _calls(message: dict[str, Any], rules: MessageRules, dropped: dict[str, None]) -> dict[str, Any]:
    """Tool calls and their answers, with ids and fields as the provider takes them."""
    changed: dict[str, Any] = {}
    if rules.nine_letter_ids and isinstance(given := message.get("tool_call_id"), str) and not _NINE.fullmatch(given):
        changed["tool_call_id"] = _short(given)
    if isinstance(calls := message.get("tool_calls"), list) and calls:
        fitting = [_call(call, rules, dropped) if isinstance(call, dict) else call for call in calls]
        if rules.signs_calls and isinstance(fitting[0], dict) and not _signature(fitting[0]):
            fitting[0] = {**fitting[0], "extra_content": {"google": {"thought_signature": UNSIGNED}}}
            dropped["no thought signature of its own"] = None
        if fitting != calls:
            changed["tool_calls"] = fitting
    if rules.nine_letter_ids and changed:
        dropped["ids of tool calls"] = None
    return {**message, **changed} if changed else message


def _call(call: dict[str, Any], rules: MessageRules, dropped: dict[str, None]) -> dict[str, Any]:
    foreign = [name for name, value in call.items() if name not in rules.call_takes or value is None]
    dropped |= {f"tool_calls.{name}": None for name in foreign}
    fitting = {name: value for name, value in call.items() if name not in foreign}
    if rules.nine_letter_ids and isinstance(given := fitting.get("id"), str) and not _NINE.fullmatch(given):
        fitting["id"] = _short(given)
    return fitting


def _signature(call: Mapping[str, Any]) -> bool:
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    return isinstance(google, dict) and bool(google.get("thought_signature"))


def _short(given: str) -> str:
    """The same nine letters for the same id, wherever it stands."""
    return sha256(given.encode("utf-8", "surrogatepass")).hexdigest()[:9]
