"""Server-sent events, and what gateways send in their place: errors without `data:`, JSON lines without any frame.

What is not known is handed on and not dropped: a line that nobody here knows may be the answer, or say why there is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json, to_json

from worker.providers.message_pieces import is_json

DONE = b"[DONE]"
BOM = b"\xef\xbb\xbf"
LONGEST_BARE = 65_536  # bytes of JSON that came without a frame, over several lines
_LENIENT = json.JSONDecoder(strict=False)  # a raw tab or line end in a text is no reason to lose it
_OTHERS = (b"id:", b"retry:", b":")  # lines of a stream that say nothing here


class Events:
    """The `data` of server-sent events, from chunks that may end anywhere (WHATWG HTML, 9.2.6)."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._bare: list[bytes] = []
        self._bare_size = 0
        self._is_error = False
        self._began = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        text = self._rest + chunk
        if not self._began and len(text) >= len(BOM):
            text, self._began = text.removeprefix(BOM), True
        if b"\r" in text:  # lines end by CR, LF or both
            held = b"\r" if text.endswith(b"\r") else b""
            text = text[: len(text) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        *lines, self._rest = text.split(b"\n")
        for line in lines:
            yield from self._line(line)

    def end(self) -> Iterator[bytes]:
        """The last event, where the stream ends without the blank line after it."""
        for line in (self._rest.removeprefix(BOM).rstrip(b"\r"), b""):
            yield from self._line(line)
        self._rest = b""
        if self._bare:
            yield b"\n".join(self._bare)[:LONGEST_BARE]

    def _line(self, line: bytes) -> Iterator[bytes]:
        if line.startswith(b"data:"):
            line = line[5:].removeprefix(b" ").removeprefix(b"data:")  # some write it twice
            if len(self._data) == 1 and _is_whole(self._data[0]):  # no blank line between two events
                yield from self._event()
            self._data.append(line)
            if line.strip() == DONE:  # the blank line after it may never come
                yield from self._event()
        elif line.startswith(b"event:"):
            self._is_error = line[6:].strip() == b"error"
        elif line.startswith(b"error:"):
            self._is_error = True
            self._data.append(line[6:].strip())
        elif not line:
            yield from self._event()
        elif not line.startswith(_OTHERS) and (self._bare or line.lstrip()[:1] in (b"{", b"[", b"<")):
            yield from self._unframed(line)

    def _event(self) -> Iterator[bytes]:
        if self._data:
            data, self._data = b"\n".join(self._data), []
            yield _as_error(data) if self._is_error else data
        self._is_error = False

    def _unframed(self, line: bytes) -> Iterator[bytes]:
        """JSON that stands there by itself, in one line or over several, or a page."""
        self._bare.append(line)
        self._bare_size += len(line)
        too_long, begins = self._bare_size > LONGEST_BARE, len(self._bare) == 1
        ends = line[:1] not in (b" ", b"\t") and line.rstrip()[-1:] in (b"}", b"]")
        may_end = ends and (begins or not too_long)
        is_page = self._bare[0].lstrip().startswith(b"<")
        if too_long or is_page or (may_end and _is_whole(b"\n".join(self._bare))):
            bare, self._bare, self._bare_size = b"\n".join(self._bare), [], 0
            yield bare


def _is_whole(data: bytes) -> bool:
    """Whether nothing is missing of an event's data."""
    return is_json(data) or data.strip() == DONE


def _as_error(data: bytes) -> bytes:
    """The data of an event that is named an error, as an object that says so."""
    try:
        told = from_json(data)
    except ValueError:
        told = data.decode("utf-8", "replace")
    if data.strip() == DONE or (isinstance(told, dict) and (told.get("error") or told.get("choices"))):
        return data
    return to_json({"error": told}, inf_nan_mode="null")


def looks_like_events(raw: bytes) -> bool:
    """Whether a body is server-sent events, whatever its content type says."""
    head = raw[:4096].removeprefix(BOM).lstrip()
    return head.startswith((b"data:", b"event:", b":", b"id:", b"retry:")) and b"data:" in raw[:8192]


def without_pings(raw: bytes) -> bytes:
    """A body without the comments that some gateways send before a whole answer."""
    while raw.startswith(b":"):
        raw = raw.partition(b"\n")[2].lstrip()
    return raw


def events_of(data: bytes) -> list[Any]:
    """The JSON of one event, or of several that were written as one. Raises ValueError for what is none.

    Halves of a character, as some gateways send them, are read too: the next event has the other half. A byte that is no
    UTF-8 becomes a replacement character, so that no piece of the answer is missing without a trace.
    """
    try:
        return [from_json(data)]
    except ValueError:
        text, found, at = data.decode("utf-8", "replace").strip(), list[Any](), 0
        while at < len(text):
            value, at = _LENIENT.raw_decode(text, at)
            found.append(value)
            while at < len(text) and text[at] in " \t\r\n":
                at += 1
        if not found:
            raise
        return found


def first_json(raw: bytes) -> Any:
    """The value with which a text begins, whatever comes after it. Raises ValueError where it begins with none."""
    return _LENIENT.raw_decode(raw.decode("utf-8", "replace").lstrip())[0]
