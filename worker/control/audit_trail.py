"""The audit trail: entries for acts that need no script of their own (lua/shared/audit_trail.lua writes the others), and what
people did lately."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import redis

from producer import keyspace
from producer.scripts import Word, ask

MOST_ENTRIES = 100_000  # as in audit_trail.lua
READ_AT_MOST = 20  # entries; that of many jobs has up to 40 KB
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


def acts_since(client: redis.Redis, begin_ms: int, most: int = 5) -> list[Act]:
    """The last acts of people since that Unix time, the newest first. What was done in parts is one act."""
    (entries,) = ask(client, [("XREVRANGE", keyspace.AUDIT, "+", begin_ms, "COUNT", READ_AT_MOST)])
    found: dict[str, Act] = {}
    for entry_id, words in entries:
        fields = {_text(name): _text(value) for name, value in words.items()}
        action, who = fields.pop("action", ""), fields.pop("who", "")
        name = fields.get("token") or _text(entry_id)
        jobs = len(fields.pop("jobs", "").split()) + (found[name].jobs if name in found else 0)
        if who != AUTOMATIC:
            found[name] = Act(int(_text(entry_id).partition("-")[0]), action, who, fields, jobs)
    return list(found.values())[:most]


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
