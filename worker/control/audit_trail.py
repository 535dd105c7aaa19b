"""The audit trail: entries for acts that need no script of their own (lua/shared/audit_trail.lua writes the others), and what
people did lately."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import redis

from producer import keyspace
from producer.scripts import Word, ask

MOST_ENTRIES = 100_000  # as in audit_trail.lua
READ_AT_MOST = 200  # entries; a cancel of thousands of jobs is written in parts
AUTOMATIC = "failover-worker"  # `who` of what the system did by itself


def audited(action: str, who: str, **fields: str) -> tuple[Word, ...]:
    """The command that records who did what."""
    words = [word for field in fields.items() for word in field]
    return ("XADD", keyspace.AUDIT, "MAXLEN", "~", MOST_ENTRIES, "*", "action", action, "who", who, *words)


@dataclass(frozen=True)
class Act:
    """What a person did. `at_ms`: Unix time. `jobs`: how many it was about; 0 for none."""

    at_ms: int
    action: str
    who: str
    fields: Mapping[str, str]
    jobs: int = 0


class ActsOfPeople:
    """What people did lately, read again only when something was done. Used by one thread at a time."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._newest: object = None
        self._read = list[Act]()

    def since(self, begin_ms: int, most: int = 5) -> list[Act]:
        """The last acts since that Unix time, the newest first. What was done in parts is one act. Raises RedisError."""
        (newest,) = ask(self._client, [("XREVRANGE", keyspace.AUDIT, "+", "-", "COUNT", 1)])
        if newest != self._newest:
            (entries,) = ask(self._client, [("XREVRANGE", keyspace.AUDIT, "+", "-", "COUNT", READ_AT_MOST)])
            self._newest, self._read = newest, list(_acts(entries))
        return [act for act in self._read if act.at_ms >= begin_ms][:most]


def _acts(entries: Iterable[tuple[bytes, Mapping[bytes, bytes]]]) -> Iterator[Act]:
    """Neighbours that differ in their jobs alone are one act."""
    read = [
        (_text(entry_id), {_text(name): _text(value) for name, value in words.items()}) for entry_id, words in entries
    ]

    def of(entry: tuple[str, dict[str, str]]) -> dict[str, str]:
        return {name: value for name, value in entry[1].items() if name not in ("jobs", "token")}

    for _, parts in groupby(read, of):
        (entry_id, fields), *others = parts
        jobs = sum(len(each.get("jobs", "").split()) for each in (fields, *(more for _, more in others)))
        action, who = fields.pop("action", ""), fields.pop("who", "")
        if who != AUTOMATIC:
            yield Act(int(entry_id.partition("-")[0]), action, who, fields, jobs)


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
