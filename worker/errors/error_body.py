"""Finds the error in a body, wherever a provider or a gateway put it: its names, its numbers and its words.

OpenAI's {"error": {...}}, Gemini's array of them, Mistral's {"object": "error"}, Cloudflare's {"errors": [...]},
problem+json, FastAPI's {"detail": ...}, MiniMax's {"base_resp": ...}, OpenRouter's `metadata.raw` (JSON inside text), plain
text and HTML pages. Everything is cut before it is searched: the work is bounded, whatever came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from worker.humanize import one_line

LONGEST_WORDS = 4000  # characters that are searched
LONGEST_TEXT = 2000  # of one text inside
MOST_NODES = 200  # objects and texts
DEEPEST = 8

_NAMES = ("code", "type", "status", "reason", "error_code", "errorCode", "errcode", "__type", "error_type", "Code")
_NUMBERS = ("code", "status", "status_code", "statusCode", "http_code", "error_code", "http_status")
_WORDS = (
    *("message", "msg", "detail", "error", "error_message", "errorMessage", "error_msg", "description", "title", "raw"),
    *("error_description", "status_msg", "faultstring", "Message", "reasons", "errors", "body", "err"),
)
_TITLE = re.compile(r"<title[^>]{0,100}>([^<]{1,300})", re.IGNORECASE)
_PAGE = re.compile(r"<(?:!doctype|html|head|body|title)\b", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{0,300}>")
_CLASS = re.compile(r"\b[A-Z][A-Za-z]{3,60}(?:Error|Exception)\b")
_SNAKE = re.compile(r"\b[a-z]{1,40}(?:_[a-z]{1,40}){1,6}\b")


@dataclass
class ErrorBody:
    """`names`: codes, types and classes, the error's own before those inside it. `numbers`: codes that are numbers.
    `params`: names of the parameters that it blames. `words`: all its texts, cut and in one line."""

    names: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    params: list[str] = field(default_factory=list)
    words: str = ""
    nodes: list[Mapping[str, Any]] = field(default_factory=list)  # every object of it

    def __bool__(self) -> bool:
        return bool(self.names or self.numbers or self.words or self.nodes)


def error_in(body: Any, text: str = "") -> ErrorBody:
    """The error of a body that is known to hold one; `text`: the body where it is no JSON."""
    found = ErrorBody()
    texts: list[str] = []
    if body is None:
        texts.append(_of_page(text))
    else:
        _gather(body, found, texts, depth=0)
    found.words = " ".join(dict.fromkeys(filter(None, (one_line(each, LONGEST_WORDS) for each in texts))))[
        :LONGEST_WORDS
    ]
    found.names += [name for name in _CLASS.findall(found.words) if name not in found.names]
    found.names += [name for name in dict.fromkeys(_SNAKE.findall(found.words)) if name not in found.names]
    return found


def is_error(body: Any) -> bool:
    """Whether the body of a 200 says that it is an error."""
    if isinstance(body, list):
        return bool(body) and is_error(body[0])
    if not isinstance(body, dict):
        return False
    if body.get("error"):
        return True
    base = body.get("base_resp")
    if isinstance(base, dict) and base.get("status_code") not in (None, 0):
        return True
    if body.get("choices"):
        return False
    if (
        body.get("object") == "error"
        or body.get("type") == "error"
        or body.get("success") is False
        or body.get("errors")
    ):
        return True
    return "choices" not in body and any(
        name in body for name in ("message", "detail", "msg", "error_msg", "error_message")
    )


def _gather(node: Any, found: ErrorBody, texts: list[str], depth: int) -> None:
    """Depth first, the error's own facts before those of what lies inside it."""
    if depth > DEEPEST or len(found.nodes) + len(texts) >= MOST_NODES:
        return
    if isinstance(node, list):
        for entry in node[:20]:
            _gather(entry, found, texts, depth + 1)
        return
    if isinstance(node, str):
        _gather_text(node, found, texts, depth)
        return
    if isinstance(node, dict):
        _gather_object(node, found, texts, depth)


def _gather_object(node: Mapping[str, Any], found: ErrorBody, texts: list[str], depth: int) -> None:
    found.nodes.append(node)
    for name in _NAMES:
        if isinstance(value := node.get(name), str) and value:
            found.names.append(value[:200])
    for name in _NUMBERS:
        found.numbers += _number(node.get(name))
    for name in ("param", "parameter", "loc", "field"):
        found.params += _path(node.get(name))
    inner = [node[name] for name in _WORDS if name in node]
    inner += [value for name, value in node.items() if name not in _WORDS and isinstance(value, dict | list)]
    for value in sorted(inner, key=lambda value: not isinstance(value, str)):  # its own words first
        _gather(value, found, texts, depth + 1)


def _gather_text(text: str, found: ErrorBody, texts: list[str], depth: int) -> None:
    """A text, and the JSON that it may be or hold."""
    text = text[:LONGEST_TEXT]
    start = min((at for at in (text.find("{"), text.find("[{")) if at >= 0), default=-1)
    if 0 <= start < LONGEST_TEXT and (end := max(text.rfind("}"), text.rfind("]"))) > start:
        try:
            _gather(from_json(text[start : end + 1]), found, texts, depth + 1)
        except ValueError:
            pass
        else:
            text = text[:start]
    texts.append(_of_page(text))


def _of_page(text: str) -> str:
    """The title of an HTML page and what stands in it; other text as it is."""
    text = text[: 4 * LONGEST_TEXT]
    if not _PAGE.search(text[:500]):
        return text
    title = _TITLE.search(text)
    return (f"{title[1]} " if title else "") + _TAG.sub(" ", text)


def _number(value: Any) -> Iterator[int]:
    if isinstance(value, str) and value.isdecimal() and len(value) <= 6:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        yield value


def _path(value: Any) -> list[str]:
    """A parameter as a path: `messages.0.content` of pydantic's list, without the `body` at its head."""
    if isinstance(value, str) and value:
        return [value[:200]]
    if isinstance(value, list) and value:
        parts = [str(part) for part in value if str(part) != "body"]
        return [".".join(parts)[:200]] if parts else []
    return []
