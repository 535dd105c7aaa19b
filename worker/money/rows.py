"""Reads the ledger's rows as Redis holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

_NUMBERS = ("at", "micros", "prompt", "completion")


def closed_row(fields: Mapping[bytes, bytes]) -> dict[str, Any]:
    """A closed row: an entry of the month's stream. Money in micro-dollars, `at` in Unix milliseconds."""
    row = {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
    return {name: int(value) if name in _NUMBERS and value.isdecimal() else value for name, value in row.items()}


def json_object(raw: bytes) -> dict[str, Any]:
    """A JSON object, as an open or ambiguous row is stored; empty if the value is not one."""
    try:
        found = from_json(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
