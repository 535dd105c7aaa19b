"""The drills that Redis remembers, for the page of the web process; apart from report.py, which imports the whole stage."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import redis

from producer import keyspace
from producer.scripts import although_full, ask

if TYPE_CHECKING:
    from ops.drills.report import DrillReport

LISTED = 100  # drills


def record(client: redis.Redis, report: DrillReport) -> None:
    """Remember it in Redis, where the pages list it: without its steps."""
    kept = {name: value for name, value in asdict(report).items() if name not in ("steps", "curve")}
    commands = (("LPUSH", keyspace.DRILLS, json.dumps(kept)), ("LTRIM", keyspace.DRILLS, 0, LISTED - 1))
    ask(client, [although_full(*commands)])


def recorded(client: redis.Redis) -> list[dict[str, Any]]:
    """What `record` remembered, the newest first."""
    (found,) = ask(client, [("LRANGE", keyspace.DRILLS, 0, LISTED - 1)])
    return [json.loads(raw) for raw in found]
