"""A conversation of chat completions as Anthropic's Messages take it. What the API is known to refuse is not sent, and said
in `dropped`.

Source: the Messages API reference, version 2026-10-21.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from worker.providers.anthropic.answer import BLOCKS, arguments
from worker.routes.tool_turns import in_order, with_tool_calls

IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_SAME_IMAGE = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}
# How the base64 of each kind begins: a label that does not fit the bytes is refused.
_BEGINS = (("iVBORw0KGgo", "image/png"), ("/9j/", "image/jpeg"), ("R0lGOD", "image/gif"), ("UklGR", "image/webp"))
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")


_INSTRUCTS = ("system", "developer")
_THINKING = ("thinking", "redacted_thinking")
_GO_ON = {"type": "text", "text": "Go on."}


def instructs(message: Mapping[str, Any]) -> bool:
    return message["role"] in _INSTRUCTS


def system_of(messages: Sequence[Any]) -> list[dict[str, Any]]:
    """The instructions as blocks; empty ones are refused, so they are left out."""
    return [block for message in messages if instructs(message) for block in _texts(message.get("content"))]


def turns_of(messages: Sequence[Any], dropped: list[str], *, thinking: bool) -> list[dict[str, Any]]:
    """The conversation without its instructions. Messages of one role that follow each other are one turn; what says
    nothing is left out, as an empty turn is refused. `thinking`: blocks of earlier thinking go along, with their
    signatures."""
    changed: dict[str, None] = {}
    turns: list[dict[str, Any]] = []
    ordered = in_order(with_tool_calls(list(messages), changed), changed, unique=True)
    for message in ordered:
        blocks = [] if instructs(message) else list(_blocks(message, thinking=thinking))
        if not blocks or all(block["type"] in _THINKING for block in blocks):
            continue  # thinking alone is no turn
        role = "assistant" if message["role"] == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += [
                block for block in blocks if block["type"] not in _THINKING
            ]  # it begins a turn, or none
        else:
            turns.append({"role": role, "content": blocks})
    for turn in turns:
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")  # they come first
    if turns and turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [{"type": "text", "text": "(the conversation begins)"}]})
        changed["a user's turn before the first one"] = None
    if turns and turns[-1]["role"] == "assistant" and ordered[-1]["role"] in _INSTRUCTS:
        turns.append({"role": "user", "content": list(_texts(ordered[-1].get("content"))) or [_GO_ON]})
        changed["the last instruction as the user's turn"] = None
    _trim_prefill(turns, dropped)
    dropped.extend(changed)
    return turns


def _trim_prefill(turns: list[dict[str, Any]], dropped: list[str]) -> None:
    """A last turn of the assistant must not end with blanks."""
    last = turns[-1]["content"][-1] if turns and turns[-1]["role"] == "assistant" else {}
    if last.get("type") == "text" and last["text"] != last["text"].rstrip():
        last["text"] = last["text"].rstrip()
        dropped.append("blanks at the end of the last turn")


def lacks_thinking(messages: Sequence[Any]) -> bool:
    """Whether the last turn of the assistant that the API looks at, one that called tools or one to be continued, lost its
    thinking blocks: it then refuses to think on."""
    turns = [message for message in messages if message["role"] == "assistant"]
    calls = [message for message in turns if message.get("tool_calls")]
    last_user = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=-1)
    open_calls = [message for message in messages[last_user + 1 :] if message in calls]
    answered = calls[-1:] if messages and any(message["role"] == "tool" for message in messages[-2:]) else []
    prefill = turns[-1:] if messages and messages[-1] is (turns[-1] if turns else None) else []
    return any(not list(thinking_blocks(message)) for message in (*open_calls, *answered, *prefill))


def thinking_blocks(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Earlier thinking that carries Anthropic's signature, as its answers came (worker/providers/anthropic/answer.py)."""
    blocks = message.get("thinking_blocks") or message.get(BLOCKS)
    for block in blocks if isinstance(blocks, list) else ():
        if not isinstance(block, dict):
            continue
        if block.get("type") == "thinking" and block.get("signature"):
            kept = ("type", "thinking", "signature")
            yield {name: block[name] for name in kept if name in block}
        elif block.get("type") == "redacted_thinking" and block.get("data"):
            yield {"type": "redacted_thinking", "data": block["data"]}


def _blocks(message: Mapping[str, Any], *, thinking: bool) -> Iterator[dict[str, Any]]:
    if message["role"] == "tool":
        yield _tool_result(message)
        return
    if thinking and message["role"] == "assistant":
        if blocks := list(_as_they_came(message)):
            yield from blocks
            return
        yield from thinking_blocks(message)
    yield from _parts(message.get("content"))
    yield from _calls(message)


def _calls(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for asked in message.get("tool_calls") or ():
        function = asked["function"]
        read = arguments(function.get("arguments"))
        yield {"type": "tool_use", "id": tool_id(asked["id"]), "name": function["name"], "input": read}


def _as_they_came(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The blocks of an earlier answer of Anthropic's, in their order, which thinking between calls must keep."""
    blocks, calls = message.get(BLOCKS), _calls(message)
    for block in blocks if isinstance(blocks, list) else ():
        match block.get("type") if isinstance(block, dict) else None:
            case "thinking" | "redacted_thinking":
                yield from thinking_blocks({"thinking_blocks": [block]})
            case "text":
                yield from _texts([block])
            case "tool_use":
                yield from islice(calls, 1)  # with the id that its answer has


def _tool_result(message: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of a tool: text, or text and images."""
    content = message.get("content")
    blocks = list(_parts(content)) if isinstance(content, list) else []
    plain = "".join(block["text"] for block in _texts(content))
    if isinstance(content, dict):
        plain = json.dumps(content, ensure_ascii=False)
    marks = [mark for block in blocks if (mark := block.pop("cache_control", None)) is not None]  # refused inside of it
    has_more = any(block["type"] != "text" for block in blocks)
    called = tool_id(message.get("tool_call_id"))
    made: dict[str, Any] = {"type": "tool_result", "tool_use_id": called, "content": blocks if has_more else plain}
    made |= {"is_error": True} if message.get("is_error") is True else {}
    return made | ({"cache_control": marks[-1]} if marks else {})


def tool_id(given: Any) -> str:
    """The id of a tool call, of whichever provider, in the alphabet that is taken."""
    return _NOT_IN_IDS.sub("_", str(given)) or "call"


def _texts(content: Any) -> Iterator[dict[str, Any]]:
    """The texts of a message that say something, as blocks."""
    if isinstance(content, str):
        if content.strip():
            yield {"type": "text", "text": content}
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, str) and part.strip():
                yield {"type": "text", "text": part}
            elif isinstance(part, dict) and isinstance(part.get("text"), str) and part["text"].strip():
                yield {"type": "text", "text": part["text"], **_cache_control(part)}


def _parts(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, str):
        yield from _texts(content)
        return
    for part in content or ():
        if isinstance(part, str) or (
            isinstance(part, dict) and part.get("type") in ("text", "refusal", "input_text", "output_text")
        ):
            text = part if isinstance(part, str) else part.get("text") or part.get("refusal")
            yield from _texts([{**part, "text": text} if isinstance(part, dict) else part])
        elif isinstance(part, dict) and part.get("type") in ("thinking", "redacted_thinking", "reasoning"):
            continue  # thinking goes by `thinking_blocks`, with its signature, or not at all
        else:
            yield _image(part)


def _image(part: Any) -> dict[str, Any]:
    """An image; raises ValueError for a part that has no counterpart."""
    if not isinstance(part, dict) or part.get("type") != "image_url":
        raise ValueError(f"a part of type {part.get('type') if isinstance(part, dict) else type(part).__name__}")
    url = part["image_url"]["url"] if isinstance(part["image_url"], dict) else part["image_url"]
    if url.startswith("http://"):
        raise ValueError("an image at an http:// address")
    if not url.startswith("data:"):
        return {"type": "image", "source": {"type": "url", "url": url}, **_cache_control(part)}
    head, _, data = url.partition(";base64,")
    media_type = head.removeprefix("data:").partition(";")[0].lower()
    data = "".join(data.split())
    media_type = next(
        (kind for begin, kind in _BEGINS if data.startswith(begin)), _SAME_IMAGE.get(media_type, media_type)
    )
    if not data or media_type not in IMAGES:
        raise ValueError(f"an image of type {media_type or 'unknown'}")
    source = {"type": "base64", "media_type": media_type, "data": data}
    return {"type": "image", "source": source, **_cache_control(part)}


def _cache_control(part: Mapping[str, Any]) -> dict[str, Any]:
    """The job's own mark for the provider's prompt cache."""
    mark = part.get("cache_control")
    return {"cache_control": mark} if isinstance(mark, dict) else {}
