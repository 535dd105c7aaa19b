"""Entries of the audit trail for acts that need no script of their own; lua/shared/audit_trail.lua writes the others."""

from __future__ import annotations

from producer import keyspace
from producer.scripts import Word

MOST_ENTRIES = 100_000  # as in audit_trail.lua


def audited(action: str, who: str, **fields: str) -> tuple[Word, ...]:
    """The command that records who did what."""
    words = [word for field in fields.items() for word in field]
    return ("XADD", keyspace.AUDIT, "MAXLEN", "~", MOST_ENTRIES, "*", "action", action, "who", who, *words)
