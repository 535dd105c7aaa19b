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
LONGEST_JSON = 16_384  # of JSON that a text is or holds
MOST_NODES = 200  # objects and texts
DEEPEST = 12

_NAMES = (
    "code",
    "type",
    "status",
    "reason",
    "error_code",
    "errorCode",
    "errcode",
    "__type",
    "error_type",
    "Code",
    "blockReason",
)
_ECHOES = frozenset({"input", "ctx", "value", "request", "url", "headers"})  # of the job, and not the provider's words
_NUMBERS = ("code", "status", "status_code", "statusCode", "http_code", "error_code", "http_status")
_WORDS = (
    *("message", "msg", "detail", "error", "error_message", "errorMessage", "error_msg", "description", "title", "raw"),
    *(
        "error_description",
        "status_msg",
        "faultstring",
        "Message",
        "reasons",
        "errors",
        "body",
        "err",
        "Error",
        "Response",
    ),
    *("blockReasonMessage", "explanation"),
)
_TITLE = re.compile(r"<title[^>]{0,100}>([^<]{1,300})", re.IGNORECASE)
_PAGE = re.compile(r"<(?:!doctype|html|head|body|title)\b", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{0,300}>")
_CLASS = re.compile(r"\b[A-Z][A-Za-z]{3,60}(?:Error|Exception)\b")
_ECHOED = re.compile(r"['\"]input['\"]: .{0,2000}", re.DOTALL)  # what pydantic repeats of the job
_LOC = re.compile(r"'loc': [(\[]'body', ([^)\]]{1,100})[)\]]")  # pydantic's errors as text
_URL = re.compile(r"https?://\S{1,300}")
QUOTED = re.compile(r"'[^']{0,80}'|\"[^\"]{0,200}\"|`[^`]{0,80}`")  # mostly the job's own
# A name that an SDK's text begins with, or that its Python writes out: `'code': 'insufficient_quota'`.
_LEADING = re.compile(
    r"(?:^|litellm\.|['\"](?:code|type)['\"]: ['\"])([A-Za-z]{1,40}(?:_[a-z]{1,40}){0,6})(?=['\"]|:| - |$)"
)
_SNAKE = re.compile(r"\b[a-z]{1,40}(?:_[a-z]{1,40}){1,6}\b")


@dataclass
class ErrorBody:
    """`names`: codes and types, the error's own before those inside it; `prose`: what looks like one in its texts.
    `numbers`: codes that are numbers. `params`: names of the parameters that it blames. `words`: all its texts, cut and in
    one line. `page`: it came as HTML, mostly from something between us and the provider."""

    names: list[str] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    params: list[str] = field(default_factory=list)
    words: str = ""
    nodes: list[Mapping[str, Any]] = field(default_factory=list)  # every object of it
    page: bool = False

    def __bool__(self) -> bool:
        return bool(self.names or self.numbers or self.words or self.nodes)


def error_in(body: Any, text: str = "") -> ErrorBody:
    """The error of a body that is known to hold one; `text`: the body where it is no JSON."""
    found = ErrorBody()
    texts: list[str] = []
    if body is None:
        found.page = bool(_PAGE.search(text[:500]))
        _gather_text(text, found, texts, depth=0)
    else:
        _gather(body, found, texts, depth=0)
    found.words = " ".join(dict.fromkeys(filter(None, (one_line(each, LONGEST_WORDS) for each in texts))))[
        :LONGEST_WORDS
    ]
    found.names += [name for name in _LEADING.findall(found.words) if name not in found.names]
    in_prose = _URL.sub(" ", QUOTED.sub(" ", found.words))
    names = (*_CLASS.findall(in_prose), *_SNAKE.findall(in_prose))
    found.prose = [name for name in dict.fromkeys(names) if name not in found.names]
    return found


def is_error(body: Any, *, surely: bool = False) -> bool:
    """Whether the body of a 200, or an event of a stream, says that it is an error. `surely`: without those that only bring a
    message, which in a stream may be news."""
    if isinstance(body, list):
        return bool(body) and is_error(body[0], surely=surely)
    if not isinstance(body, dict):
        return False
    base = body.get("base_resp")
    if has_facts(body.get("error")) or (isinstance(base, dict) and base.get("status_code") not in (None, 0)):
        return True
    if body.get("choices"):
        return False
    if _is_named_an_error(body):
        return True
    said = (body.get(name) for name in _SAID)
    return not surely and "choices" not in body and any(value for value in said if isinstance(value, str | list))


def _is_named_an_error(body: Mapping[str, Any]) -> bool:
    """Of a body that holds no answer."""
    if "error" in (body.get("object"), body.get("type"), body.get("status")):
        return True
    if body.get("success") is False or body.get("errors") or body.get("error_code"):
        return True
    response = body.get("Response")  # Tencent's
    if isinstance(response, dict) and response.get("Error"):
        return True
    return any(name.endswith("Exception") and isinstance(value, dict) for name, value in body.items())  # Bedrock's


_SAID = ("message", "detail", "msg", "error_msg", "error_message", "Message")


_NOTHING = frozenset({"0", "200", "ok", "success", "none", "null"})


def has_facts(error: Any) -> bool:
    """Whether an `error` says anything: some gateways send an empty one beside every answer."""
    if isinstance(error, dict):
        return any(has_facts(value) for value in error.values())
    return bool(error) and str(error).lower() not in _NOTHING


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
        if isinstance(value := node.get(name), str) and value and not value.isdecimal():
            found.names.append(named(value))
    found.names += _numbered(node)
    for name in _NUMBERS:
        found.numbers += _number(node.get(name))
    for name in ("param", "parameter", "loc", "field"):
        found.params += _path(node.get(name))
    inner = [node[name] for name in _WORDS if name in node]
    foreign = (name for name in node if name not in _WORDS and name not in _ECHOES)
    inner += [node[name] for name in foreign if isinstance(node[name], dict | list)]
    for value in sorted(inner, key=lambda value: not isinstance(value, str)):  # its own words first
        _gather(value, found, texts, depth + 1)


def _numbered(node: Mapping[str, Any]) -> Iterator[str]:
    """Codes that are numbers and mean something else at every vendor, told apart by what stands beside them."""
    for name, beside in (("status_code", "status_msg"), ("error_code", "error_msg")):  # MiniMax, Baidu
        if isinstance(node.get(name), int) and beside in node:
            yield f"{name} {node[name]}"
    code = node.get("code")
    if isinstance(code, str) and code.isdecimal() and not {"type", "param", "object"}.intersection(node):
        yield f"zhipu {code}"


def _gather_text(text: str, found: ErrorBody, texts: list[str], depth: int) -> None:
    """A text, and the JSON that it may be or hold."""
    text = text[:LONGEST_JSON]
    start = min((at for at in (text.find("{"), text.find("[{")) if at >= 0), default=-1)
    if 0 <= start < LONGEST_TEXT and (end := max(text.rfind("}"), text.rfind("]"))) > start:
        inside = _json_in(text[start : end + 1])
        if inside is not None:
            _gather(inside, found, texts, depth + 1)
            text = text[:start]
    for path in _LOC.findall(text):
        found.params.append(path.replace("'", "").replace(", ", "."))
    texts.append(_of_page(_ECHOED.sub(" ", text[: 4 * LONGEST_TEXT] if found.page else text[:LONGEST_TEXT])))


def _json_in(text: str) -> Any:
    """None for what is none; also of a text whose line ends were written as two letters."""
    for each in (text, text.replace("\\n", "\n")):
        try:
            return from_json(each)
        except ValueError:
            continue
    return None


def named(text: str) -> str:
    """A code or a class without what AWS writes around it: `com.amazon.coral.service#ThrottlingException:http://...`."""
    text = text[:200].rpartition("#")[2]
    return text.partition(":")[0] if "Exception:" in text else text


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
        return [value[:200].removeprefix("body.")]
    if isinstance(value, list) and value:
        parts = [str(part) for part in value if str(part) != "body"]
        return [".".join(parts)[:200]] if parts else []
    return []
