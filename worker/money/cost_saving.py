"""Cost saving for every job, turned on and off by operators; what it does is in policies/budgets.yaml."""

from __future__ import annotations

import json
import time

import redis

from producer import keyspace
from producer.scripts import although_full, ask
from worker.control.audit_trail import audited


def begin(client: redis.Redis, *, who: str, why: str, seconds: int | None) -> None:
    """Turn it on for `seconds`, None: until somebody ends it."""
    note = json.dumps({"who": who, "why": why, "since": round(time.time())})
    lasting = ("SET", keyspace.REDUCE, note, *(("EX", seconds) if seconds else ()))
    ask(client, [although_full(lasting, audited("begin cost saving", who, why=why))])


def end(client: redis.Redis, *, who: str) -> bool:
    """Turn it off. Returns whether it was on."""
    (was, _) = ask(client, [("DEL", keyspace.REDUCE), audited("end cost saving", who)])
    return bool(was)
