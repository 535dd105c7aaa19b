"""From what stands to incidents: what lasts is opened, what changes goes into its story, what is over is resolved."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import redis

from producer import keyspace
from producer.scripts import ask
from worker.notify.incidents import Incident, Incidents
from worker.notify.kinds import OUTAGES, Kind
from worker.notify.oncall import OnCall
from worker.notify.watch import Condition, Sight

COUNTED = (Kind.DEAD_LETTERS, Kind.DEGRADED)  # opened by what jobs tell, over when they fall silent
UNDER_COLD = (Kind.ROUTE_OPEN, Kind.CREDENTIALS)  # parts of "no route is open", not told beside it
STEADY = (*UNDER_COLD, Kind.COLD, Kind.LATE, Kind.WORKER_GONE, Kind.CRASH_LOOP)  # what flickers
CREDITED = (Kind.COLD, *UNDER_COLD)  # outages that are credited with the jobs that failover saved
DRAINS_MS = 30 * 60_000  # for which an outage waits for its late jobs
UNSEEN_MS = 3_600_000  # after which a route or a key that nobody tries any more is no incident


class Lookout:
    """One notifier's. What it remembers (since when something stands, or is over) may be lost: then it waits anew."""

    def __init__(self, client: redis.Redis, queues: Sequence[str], on_call: OnCall) -> None:
        self._client, self._queues, self._on_call = client, queues, on_call
        self._incidents = Incidents(client)
        self._since: dict[str, int] = {}  # conditions that no incident tells of yet, by key
        self._over: dict[str, int] = {}  # open incidents whose condition is gone, by id

    def judge(self, sight: Sight) -> None:
        opened = {each.key: each for each in self._incidents.unsettled() if each.resolved_ms is None}
        credited = [each.id for each in opened.values() if each.kind in CREDITED]
        self._incidents.fold(self._queues, credited)
        conditions = {each.key: each for each in _joined(sight, opened.values())}
        for key, condition in conditions.items():
            if key in opened:
                self._over.pop(opened[key].id, None)
                self._update(opened[key], condition)
            else:
                self._open(condition, sight.now_ms)
        self._since = {key: since for key, since in self._since.items() if key in conditions and key not in opened}
        for key, incident in opened.items():
            if key not in conditions:
                self._perhaps_over(incident, sight)

    def _open(self, condition: Condition, now_ms: int) -> None:
        since = self._since.setdefault(condition.key, now_ms)
        if now_ms - since < self._on_call.hold_seconds * 1000:
            return
        incident_id = self._incidents.open(condition, since, "; ".join(condition.marks or condition.lines)[:500])
        for incident in self._incidents.named([incident_id]):
            self._update(replace(incident, marks=condition.marks), condition)

    def _update(self, incident: Incident, condition: Condition) -> None:
        """How it stands now; what is new in it, and what is so no more, becomes a line of its story."""
        tenants = {tenant: max(count, incident.tenants.get(tenant, 0)) for tenant, count in condition.tenants.items()}
        state = json.dumps(
            {
                "lines": condition.lines,
                "marks": condition.marks,
                "until_ms": condition.until_ms and -(-condition.until_ms // 5000) * 5000,
                "tenants": {**incident.tenants, **tenants},  # who was concerned stays so
                "jobs": condition.jobs or incident.jobs,
            }
        )
        if state == incident.fields.get("state"):
            return
        begun = [mark for mark in condition.marks if mark not in incident.marks]
        ended = [f"no longer: {mark}" for mark in incident.marks if mark not in condition.marks]
        late = {"late": max(incident.late, sum(condition.tenants.values()))}
        self._incidents.change(incident, "state", state, more=late, story=[*ended, *begun][:20])

    def _perhaps_over(self, incident: Incident, sight: Sight) -> None:
        over_ms = self._over.setdefault(incident.id, sight.now_ms)
        if incident.marks:
            late = sum(each.jobs for each in sight.late)
            line = f"It seems to be over; {late:,} jobs are late still." if late else "It seems to be over."
            self._update(incident, Condition(incident.kind, incident.subject, incident.queue, (line,)))
        if self._lasts(incident, sight, over_ms):
            return
        steady = self._on_call.steady_seconds * 1000 if incident.kind in STEADY else 0
        if sight.now_ms - over_ms < steady:
            return
        end_ms = incident.last_ms if incident.kind in COUNTED else over_ms
        if self._incidents.close(incident, end_ms, "over"):
            del self._over[incident.id]

    def _lasts(self, incident: Incident, sight: Sight, over_ms: int) -> bool:
        """Whether it goes on though nothing of it is to be seen now."""
        passed = sight.now_ms - over_ms
        if incident.kind in COUNTED:
            quiet = sight.now_ms - incident.last_ms >= self._on_call.quiet_minutes * 60_000
            return not quiet and not (incident.kind is Kind.DEAD_LETTERS and self._all_handled(incident))
        if incident.kind is Kind.CREDENTIALS and sight.succeeded_ms.get(incident.subject, 0) < over_ms - 2000:
            return passed < UNSEEN_MS
        if incident.kind is Kind.ROUTE_OPEN and incident.subject in sight.half_open:
            return passed < UNSEEN_MS
        if incident.kind in OUTAGES and incident.late:
            return bool(sight.late) and passed < DRAINS_MS
        return incident.kind is Kind.WORKER_GONE and any(c.kind is Kind.CRASH_LOOP for c in sight.conditions)

    def _all_handled(self, incident: Incident) -> bool:
        dead = keyspace.dead(incident.queue)
        (left,) = ask(self._client, [("ZCOUNT", dead, incident.opened_ms - 1000, "+inf")])
        return int(left) == 0


def _joined(sight: Sight, opened: Collection[Incident]) -> Iterator[Condition]:
    """One trouble, one incident: late jobs belong to the outage that makes them late, open routes to "no route is open"."""
    open_keys = {incident.key for incident in opened}
    kinds = {incident.kind for incident in opened} | {condition.kind for condition in sight.conditions}
    outage = next((kind for kind in OUTAGES if kind in kinds), None)
    late = [each for each in sight.conditions if each.kind is Kind.LATE and each.key not in open_keys]
    first = True
    for condition in sight.conditions:
        if condition.kind is Kind.LATE and condition in late and outage is not None:
            continue
        if condition.kind in UNDER_COLD and Kind.COLD in kinds and condition.key not in open_keys:
            continue
        if condition.kind is outage and first:
            first = False
            condition = _with_late(condition, late)
        yield condition


def _with_late(condition: Condition, late: Sequence[Condition]) -> Condition:
    tenants: dict[str, int] = {}
    for each in late:
        for tenant, count in each.tenants.items():
            tenants[tenant] = tenants.get(tenant, 0) + count
    return replace(
        condition,
        lines=(*condition.lines, *(line for each in late for line in each.lines)),
        marks=(*condition.marks, *(mark for each in late for mark in each.marks)),
        tenants=tenants,
        jobs=tuple(job_id for each in late for job_id in each.jobs)[:10],
    )
