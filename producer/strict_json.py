"""The one rule for JSON at every door. An error names the field: parsers and encoders know only a position, or nothing."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BeforeValidator
from pydantic_core import from_json

from producer.errors import InvalidJob

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
NUL = "holds a NUL character (\\u0000), which providers refuse"
DEEPEST = 190  # levels; parsers take 200, and a job is some levels deep itself
MOST_VALUES = 250_000  # of one text: each takes up to fifty times its size in memory, and a microsecond of the loop


class Fault(NamedTuple):
    """`field`: dotted path, as `body.messages.0.content`; "" for the whole value. `what`: what is wrong."""

    field: str
    what: str

    def __str__(self) -> str:
        return f"{self.field}: {self.what}" if self.field else self.what


def parse(raw: bytes) -> Any:
    """The value of a JSON text: no NaN, no lone surrogate, at most about 200 levels and MOST_VALUES values. Raises ValueError."""
    if (
        len(raw) > MOST_VALUES and sum(map(raw.count, (b",", b"[", b"{"))) > MOST_VALUES
    ):  # those in texts are counted too
        raise ValueError(f"it has more than {MOST_VALUES:,} values, lists and objects")
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        reason = str(error)
        try:
            fault = first_fault(from_json(raw))
        except ValueError:
            fault = None
        raise ValueError(fault or reason) from None


def encode(value: Any, named: Any) -> bytes:
    """The JSON text of a value that `parse` reads again. `named`: the part of it whose faults are named. Raises InvalidJob."""
    try:
        encoded = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        from_json(encoded)  # it takes fewer levels than json.dumps
    except (ValueError, TypeError, RecursionError) as error:
        raise invalid(named, error) from None
    if has_nul(encoded):
        raise InvalidJob(*(first_fault(named) or ("", NUL)))
    return encoded


def has_nul(raw: bytes) -> bool:
    """Whether a text of the JSON holds a NUL character."""
    return b"\\u0000" in raw and _NUL.search(raw) is not None  # the search alone is a hundred times slower


def invalid(named: Any, error: Exception) -> InvalidJob:
    """The error for a value that is no JSON, with the place of its first fault. `error`: of the encoder, for none."""
    fault = first_fault(named)
    return InvalidJob(fault.field if fault else "", f"cannot be sent as JSON: {f'it {fault.what}' if fault else error}")


def first_fault(value: Any, path: tuple[str, ...] = ()) -> Fault | None:
    """The first fault of a value, depth first; None if there is none."""
    if what := _fault(value, len(path)):
        return Fault(".".join(path), what)
    if isinstance(value, dict):
        for key, each in value.items():
            if what := _of_text(key) if isinstance(key, str) else "is no text":
                return Fault(".".join(path), f"has the name {key!a:.40}, which {what}")
            if found := first_fault(each, (*path, key)):
                return found
    elif isinstance(value, (list, tuple)):
        for number, each in enumerate(value):
            if found := first_fault(each, (*path, str(number))):
                return found
    return None


def _fault(value: Any, depth: int) -> str:
    """What is wrong with the value itself; "" if nothing is."""
    if depth > DEEPEST:
        return f"is nested more than {DEEPEST} levels deep"
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"is {value}, which JSON does not have: use a finite number"
    if value is None or isinstance(value, (int, dict, list, tuple)):
        return ""
    return f"is a Python {type(value).__name__}, which JSON does not have: use text, a number, a list or an object"


def _of_text(text: str) -> str:
    if "\0" in text:
        return NUL
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds a lone surrogate (\\ud800 to \\udfff), which is no Unicode text"
    return ""


def _number(value: Any) -> Any:
    if isinstance(value, (bool, str)):
        raise ValueError("should be a number")  # noqa: TRY004 - pydantic needs a ValueError
    return value


def _moment(value: Any) -> Any:
    """Unix seconds of a time as text or datetime; without a zone it would mean another time on each machine."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("should be Unix seconds or ISO 8601, such as 2026-12-01T09:00:00+01:00") from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("has no time zone: add Z or an offset, such as +01:00")
        return value.timestamp()
    return _number(value)


NUMBER = BeforeValidator(_number)  # refuses true for 1, and "5" for 5
MOMENT = BeforeValidator(_moment)
