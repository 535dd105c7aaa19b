"""Replies of Redis as tests compare them: redis-py types them as everything that some server might send."""

from __future__ import annotations

from typing import Any


def texts(reply: Any) -> list[str]:
    """The members of a list or a sorted set, in their order."""
    return [member.decode() for member in reply]


def fields(reply: Any) -> dict[str, str]:
    """A hash, or the fields of a stream's entry."""
    return {name.decode(): value.decode() for name, value in reply.items()}
