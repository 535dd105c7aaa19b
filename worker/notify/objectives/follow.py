"""What follows a burn of all jobs: done by the worker that sends notifications, or proposed in the message (`follow` of
policies/slo.yaml)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence

import redis

from producer import keyspace
from producer.scripts import although_full, ask
from worker.control.pause import Scope, note_of, pause
from worker.objectives.alarms import Alarm
from worker.objectives.policy import Follow
from worker.objectives.watch import Finding

WHO = "objectives"
FROZEN_SECONDS = 120  # after the last look at which the budget burned
DISABLED_SECONDS = 3600
REDUCED_SECONDS = 86_400
REDUCED = "cost saving"


def follow_up(client: redis.Redis, follow: Follow, findings: Sequence[Finding]) -> None:
    """Do what the policy wants to be done. Launches stay frozen while it burns; the other things are done once in their time, so
    that a person who ends one of them is not overruled at the next look."""
    for found in (each for each in findings if _is_done(each, follow)):
        why = f"{found.what[0]} ({found.size})"
        if found.alarm is Alarm.BUDGET:
            if _first(client, REDUCED, REDUCED_SECONDS):
                note = note_of(who=WHO, why=why)
                ask(client, [although_full(("SET", keyspace.REDUCE, note, "EX", REDUCED_SECONDS, "NX"))])
            continue
        ask(client, [although_full(("SET", keyspace.FREEZE, note_of(who=WHO, why=why), "EX", FROZEN_SECONDS))])
        if found.route and _first(client, found.route, DISABLED_SECONDS):
            pause(client, Scope(route=found.route), who=WHO, why=why, seconds=DISABLED_SECONDS)


def _first(client: redis.Redis, what: str, seconds: int) -> bool:
    """Whether it was not done in the last `seconds`; it counts as done now."""
    ((noted,),) = ask(client, [although_full(("SET", keyspace.followed(what), "1", "EX", seconds, "NX"))])
    return bool(noted)


def frozen(client: redis.Redis) -> str:
    """Why launches are frozen; "" if they are not."""
    (raw,) = ask(client, [("GET", keyspace.FREEZE)])
    try:
        return str(json.loads(raw)["why"]) if raw else ""
    except (ValueError, TypeError, KeyError):
        return "the error budget burns"


def done_lines(found: Finding, follow: Follow) -> Iterator[str]:
    """What was done, as text for people."""
    if not _is_done(found, follow):
        return
    if found.alarm is Alarm.BUDGET:
        yield "Done: cost saving is on for all jobs, for a day at a time. `failover budget reduce --end` ends it."
        return
    yield "Done: launches are frozen while this lasts: `failover routes diff` refuses."
    if found.route:
        yield f"Done: {found.route} is disabled for an hour; other routes answer. `failover routes enable` ends it."


def proposed_commands(found: Finding, follow: Follow) -> Iterator[str]:
    """The commands that a person may give instead."""
    if found.alarm is Alarm.BUDGET and not _is_done(found, follow):
        yield "failover budget reduce --for 24h"
    if found.alarm in (Alarm.BURN, Alarm.SUCCESS) and found.route and not _is_done(found, follow):
        yield f"failover routes disable {shlex.quote(found.route)} --for 1h"


def _is_done(found: Finding, follow: Follow) -> bool:
    """Whether the policy wants it done. What concerns one feature or tenant is only proposed."""
    wanted = {Alarm.BURN: follow.fast_burn, Alarm.BUDGET: follow.slow_burn}.get(found.alarm)
    return wanted == "done" and not found.name
