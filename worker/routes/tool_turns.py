"""Calls of tools and their answers, in the order that every provider wants: each answer right after the turn that called, one for
each call, no id twice.

Sources: the 400s of OpenAI, Anthropic, Google and Mistral, as users of gateways report them (November 2026).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]
NO_ANSWER = "(this call has no answer)"


def calls_of(message: Message) -> list[Message]:
    """Its calls of tools, of whatever else may stand there."""
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def with_tool_calls(messages: Sequence[Message], changed: dict[str, None]) -> list[Message]:
    """The older `function_call` and its answers of role `function`, as calls of tools."""
    made: list[Message] = []
    open_calls: dict[str, str] = {}  # of functions, by name
    for message in messages:
        legacy = message.get("function_call")
        if isinstance(legacy, dict) and not message.get("tool_calls"):
            name = str(legacy.get("name"))
            open_calls[name] = call_id = f"call_{len(made)}_{name}"[:40]
            kept = {key: value for key, value in message.items() if key != "function_call"}
            made.append({**kept, "tool_calls": [{"id": call_id, "type": "function", "function": legacy}]})
        elif message.get("role") == "function":
            called = open_calls.pop(str(message.get("name")), "")
            made.append({"role": "tool", "tool_call_id": called, "content": message.get("content")})
        else:
            made.append(message)
            continue
        changed["function_call as tool_calls"] = None
    return made


def in_order(messages: Sequence[Message], changed: dict[str, None], *, unique: bool = False) -> list[Message]:
    """Answers right after their calls. What answers no call becomes a user's text, and a call without an answer gets one that
    says so. `unique`: an id that an earlier turn has is replaced, in the call and in its answer."""
    if not any(message.get("role") == "tool" or calls_of(message) for message in messages):
        return list(messages)
    sent: list[Message] = []
    taken: set[int] = set()  # answers that stand after their call already
    used: set[str] = set()
    for at, message in enumerate(messages):
        calls = calls_of(message)
        if at in taken:
            continue
        if message.get("role") == "tool":
            sent.append({"role": "user", "content": message.get("content") or NO_ANSWER})
            changed["answers of tools that nobody called, as the user's text"] = None
            continue
        if not calls:
            sent.append(message)
            continue
        answers = [_answer_to(call, messages, at, taken, changed) for call in calls]
        ids = [str(call.get("id")) for call in calls]
        if unique and (used.intersection(ids) or len(set(ids)) < len(ids)):
            message, answers = _renamed(message, answers, len(sent))
            changed["ids of tool calls that came twice"] = None
        used.update(str(call.get("id")) for call in calls_of(message))
        sent += [message, *answers]
    return sent


def _answer_to(
    call: Message, messages: Sequence[Message], at: int, taken: set[int], changed: dict[str, None]
) -> Message:
    """The next answer with the call's id, wherever it stands behind it."""
    for later in range(at + 1, len(messages)):
        message = messages[later]
        if later not in taken and message.get("role") == "tool" and message.get("tool_call_id") == call.get("id"):
            between = [n for n in range(at + 1, later) if n not in taken]
            if any(messages[n].get("role") != "tool" for n in between):
                changed["answers of tools right after their calls"] = None
            taken.add(later)
            return message
    changed["calls of tools without an answer"] = None
    return {"role": "tool", "tool_call_id": call.get("id"), "content": NO_ANSWER}


def _renamed(message: Message, answers: list[Message], turn: int) -> tuple[Message, list[Message]]:
    """The same turn with ids of its own."""
    given = calls_of(message)
    ids = [f"{str(call.get('id'))[:30]}_{turn}_{number}" for number, call in enumerate(given)]
    calls = [{**call, "id": new} for call, new in zip(given, ids, strict=True)]
    return {**message, "tool_calls": calls}, [
        {**answer, "tool_call_id": new} for answer, new in zip(answers, ids, strict=True)
    ]
