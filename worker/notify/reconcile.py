"""Updates the incidents from the current conditions: opens, changes and resolves them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import redis

from producer import keyspace
from producer.scripts import ask
from worker.humanize import many
from worker.notify.condition import Condition, Snapshot, late_size
from worker.notify.incidents import Incident, Incidents, explains
from worker.notify.kinds import COUNTED, KIND_INFO, OBJECTIVES, OUTAGES, Kind
from worker.notify.oncall import OnCall

COLD = (Kind.COLD, Kind.REFUSED)  # no route can be used
# parts of these incidents, so they get no incident of their own beside them
UNDER_COLD = (Kind.ROUTE_OPEN, Kind.CREDENTIALS)
# these may come and go: closed only after steady_seconds
STEADY = (*UNDER_COLD, *COLD, Kind.LATE, Kind.FLOOD, Kind.WORKER_GONE, Kind.CRASH_LOOP, Kind.CAPPED, Kind.REDIS_FULL)
VANISHED = (Kind.WORKER_GONE, Kind.CRASH_LOOP)  # parts of NO_WORKERS
AFTER_COLD_MS = 180_000  # after a COLD, a breaker that no job has probed since then opens no incident
DRAINS_MS = 30 * 60_000  # an outage stays open so long for its late jobs
DELAYS = (Kind.NO_WORKERS, Kind.COLD, Kind.REFUSED)  # over when the jobs that they delayed are answered
PROBED_MS = 180_000  # a half-open route is probed by then, unless no job comes
STORY_AT_ONCE = 20  # lines added by one update
TENANTS_KEPT = 500
UNSEEN_MS = 3_600_000  # the incident of a route or a key that no job uses closes then


class Reconciler:
    """Updates incidents for one notifier. Its timers are in memory only: after a restart they begin again."""

    def __init__(self, client: redis.Redis, on_call: OnCall) -> None:
        self._client, self._on_call = client, on_call
        self._incidents = Incidents(client)
        self._since: dict[str, int] = {}  # when a condition without an incident began, by its key
        self._over: dict[str, int] = {}  # when the condition of an open incident ended, by its id
        self._cold_ms = -AFTER_COLD_MS  # when a COLD was seen last

    def reconcile(self, snapshot: Snapshot) -> None:
        """Fold the counts, then open, update and resolve incidents."""
        opened = {each.key: each for each in self._incidents.unsettled() if each.resolved_ms is None}
        conditions = {each.key: each for each in self._joined(snapshot, opened.values())}
        outages = [
            each
            for each in opened.values()
            if explains(each)
            and (each.late or each.key in conditions or snapshot.now_ms - self._over.get(each.id, 0) < DRAINS_MS)
        ]
        first = min(outages, key=lambda each: OUTAGES.index(each.kind), default=None)
        about_to_open = any(explains(each) for key, each in conditions.items() if key not in opened)
        self._incidents.fold(snapshot.queues, first.id if first else None, keep_saved=about_to_open)
        for key, condition in conditions.items():
            if key in opened:
                self._over.pop(opened[key].id, None)
                self._update(opened[key], condition)
            else:
                self._open(condition, snapshot.now_ms)
        self._since = {key: since for key, since in self._since.items() if key in conditions and key not in opened}
        for key, incident in opened.items():
            if key not in conditions:
                self._perhaps_over(incident, snapshot)
        open_ids = {incident.id for incident in opened.values()}
        self._over = {incident_id: since for incident_id, since in self._over.items() if incident_id in open_ids}

    def forget(self) -> None:
        """Reset the timers: another notifier was active since then."""
        self._since.clear()
        self._over.clear()

    def _open(self, condition: Condition, now_ms: int) -> None:
        since = self._since.setdefault(condition.key, now_ms)
        hold = self._on_call.no_worker_seconds if condition.kind is Kind.NO_WORKERS else self._on_call.hold_seconds
        if now_ms - since < hold * 1000:
            return
        incident_id = self._incidents.open(condition, since, "; ".join(condition.marks or condition.lines)[:500])
        for incident in self._incidents.named([incident_id]):
            self._update(replace(incident, marks=condition.marks), condition)

    def _update(self, incident: Incident, condition: Condition, ends: Sequence[str] | None = None) -> None:
        """Write its current state; each mark that began or ended becomes a line of its story. `ends`: instead of a line for
        each that ended."""
        now = {tenant: max(count, incident.tenants.get(tenant, 0)) for tenant, count in condition.tenants.items()}
        tenants = dict(islice({**incident.tenants, **now}.items(), TENANTS_KEPT))
        state = json.dumps(
            {
                "title": condition.title or incident.what,
                "size": condition.size,
                "lines": condition.lines,
                "marks": condition.marks,
                "until_ms": condition.until_ms,
                "commands": condition.commands,
                "tenants": tenants,  # an affected tenant stays in the list
                "jobs": condition.jobs or incident.jobs,
            }
        )
        if state == incident.fields.get("state"):
            return
        begun = [mark for mark in condition.marks if mark not in incident.marks]
        if ends is None:
            ends = [end for mark, end in incident.marks.items() if mark not in condition.marks and end]
        late = {"late": max(incident.late, condition.late)}
        self._incidents.change(incident, "state", state, more=late, story=[*ends, *begun][:STORY_AT_ONCE])

    def _perhaps_over(self, incident: Incident, snapshot: Snapshot) -> None:
        over_ms = self._over.setdefault(incident.id, snapshot.now_ms)
        expected_ms = PROBED_MS if incident.kind is Kind.ROUTE_OPEN else UNSEEN_MS
        if _untried(incident, snapshot, over_ms) and snapshot.now_ms - over_ms < expected_ms:
            return  # only its next probe shows whether it is over
        if incident.kind not in COUNTED and not KIND_INFO[incident.kind].notice:
            to_do = f"; {many(snapshot.late, 'late job')} left." if snapshot.late else "."
            line = f"The problem seems to be over{to_do}"
            # of an outage of every route only so much is known: others may still be down
            ends = ["a route may be called again"] if incident.kind in COLD and incident.marks else None
            self._update(incident, Condition(incident.kind, incident.subject, incident.queue, (line,)), ends)
        if self._lasts(incident, snapshot, over_ms):
            return
        steady = self._on_call.steady_seconds * 1000 if incident.kind in STEADY else 0
        if snapshot.now_ms - over_ms < steady:
            return
        if incident.kind is Kind.DEAD_LETTERS:
            self._incidents.change(incident, "left", str(self._unhandled(incident)))
        end_ms = incident.last_ms if incident.kind in COUNTED else over_ms
        if self._incidents.close(incident, end_ms, "over"):
            self._over.pop(incident.id, None)

    def _lasts(self, incident: Incident, snapshot: Snapshot, over_ms: int) -> bool:
        """Whether it stays open although its condition is gone."""
        passed = snapshot.now_ms - over_ms
        if not snapshot.workers and incident.kind in (*COLD, *UNDER_COLD):
            return True  # nobody knows the state of the routes
        if incident.kind in COUNTED:
            quiet = snapshot.now_ms - incident.last_ms >= self._on_call.quiet_minutes * 60_000
            return not quiet and not (incident.kind is Kind.DEAD_LETTERS and self._unhandled(incident) == 0)
        if _untried(incident, snapshot, over_ms):
            return passed < UNSEEN_MS
        if explains(incident) and (incident.late or incident.kind in DELAYS):
            delayed = snapshot.overdue if incident.kind in DELAYS else snapshot.late
            return bool(delayed) and passed < DRAINS_MS  # late and reduced answers still belong to it
        return incident.kind is Kind.WORKER_GONE and any(c.kind is Kind.CRASH_LOOP for c in snapshot.conditions)

    def _unhandled(self, incident: Incident) -> int:
        """Its jobs that are still dead letters."""
        (left,) = ask(self._client, [("ZCOUNT", keyspace.dead(incident.queue), incident.opened_ms, "+inf")])
        return int(left)

    def _joined(self, snapshot: Snapshot, opened: Collection[Incident]) -> Iterator[Condition]:
        """One problem, one incident: late jobs join the outage that made them late, open routes join COLD."""
        open_keys = {incident.key for incident in opened}
        kinds = {incident.kind for incident in opened} | {condition.kind for condition in snapshot.conditions}
        if kinds.intersection(COLD):
            self._cold_ms = snapshot.now_ms
        hidden: tuple[Kind, ...] = (Kind.ROUTE_OPEN,) if snapshot.now_ms - self._cold_ms < AFTER_COLD_MS else ()
        if Kind.REFUSED in kinds or any(condition.kind in COLD for condition in snapshot.conditions):
            hidden = UNDER_COLD  # after an outage of another cause, a key that is still refused is news
        standing = {incident.kind for incident in opened if explains(incident)}
        standing |= {each.kind for each in snapshot.conditions if explains(each) and each.kind not in hidden}
        outage = next((kind for kind in OUTAGES if kind in standing), None)
        late = [each for each in snapshot.conditions if each.kind is Kind.LATE and each.key not in open_keys]
        for condition in snapshot.conditions:
            is_new = condition.key not in open_keys
            if is_new and condition.kind is Kind.LATE and outage is not None:
                continue
            if is_new and condition.kind in hidden:
                continue
            if is_new and condition.kind in VANISHED and Kind.NO_WORKERS in kinds:
                continue
            if is_new and condition.subject and condition.kind in OBJECTIVES and _of_all_jobs(condition.kind, snapshot):
                continue  # the incident of all jobs names its features and tenants
            if is_new and condition.kind is Kind.SPEND and Kind.BUDGET in kinds:
                continue  # the incident of the pause covers it
            if condition.kind is outage and explains(condition):
                condition, late = _with_late(condition, late), []
            yield condition


def _of_all_jobs(kind: Kind, snapshot: Snapshot) -> bool:
    """Whether all jobs together miss this target now."""
    return any(each.kind is kind and not each.subject for each in snapshot.conditions)


def _untried(incident: Incident, snapshot: Snapshot, over_ms: int) -> bool:
    """Whether its cooldown is over, but no job has shown since then that the provider answers."""
    if incident.kind in (Kind.CREDENTIALS, Kind.REFUSED):
        return _succeeded_ms(incident, snapshot) < over_ms - 2000
    return incident.kind is Kind.ROUTE_OPEN and incident.subject in snapshot.half_open


def _succeeded_ms(incident: Incident, snapshot: Snapshot) -> int:
    """When the provider of the incident answered last; any provider, if it concerns all of them."""
    if incident.subject:
        return snapshot.succeeded_ms.get(incident.subject, 0)
    return max(snapshot.succeeded_ms.values(), default=0)


def _with_late(condition: Condition, late: Sequence[Condition]) -> Condition:
    if not late:
        return condition
    tenants: Counter[str] = Counter()
    for each in late:
        tenants.update(each.tenants)
    late_jobs = sum(each.late for each in late)
    return replace(
        condition,
        size=", ".join(filter(None, (condition.size, late_size(late_jobs, tenants)))),
        lines=(*condition.lines, *(line for each in late for line in each.lines)),
        marks={**condition.marks, **{begun: end for each in late for begun, end in each.marks.items()}},
        tenants=tenants,
        late=late_jobs,
        jobs=tuple(job_id for each in late for job_id in each.jobs)[:10],
    )
