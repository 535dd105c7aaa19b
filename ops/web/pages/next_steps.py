"""What a person without a terminal does about an incident: links of the pages, for each kind, and the sentence of page Now."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ops.reports.status import Status
from ops.web.pages.page import link
from worker.control.pause import Scope
from worker.humanize import many
from worker.notify.incidents import Incident
from worker.notify.kinds import KIND_INFO, OUTAGES, Kind


@dataclass(frozen=True)
class Step:
    """One thing to do. `act`: its form opens in a dialog."""

    text: str
    href: str
    act: bool = False


@dataclass(frozen=True)
class Headline:
    """The sentence on top of page Now. `level`: good | watch | bad. `since_ms`: Unix time; 0 is unknown. `fades`: it goes away
    by itself when its cause does; else an act ends it."""

    level: str
    text: str
    means: str = ""
    since_ms: int = 0
    steps: tuple[Step, ...] = ()
    fades: bool = False


STEPS = 3  # that are offered for many routes
ANSWER = Step("Answer by hand what cannot wait", "/ui/review")
_OF_KIND: dict[Kind, tuple[Step, ...]] = {
    Kind.COLD: (ANSWER,),
    Kind.ROUTE_OPEN: (Step("See the routes", "/#routes"),),
    Kind.BUDGET: (Step("Resume, after a look at its cost", "/ui/act/resume", act=True), Step("See the spending", "/ui/money")),
    Kind.SPEND: (Step("See the spending", "/ui/money"),),
    Kind.DEAD_LETTERS: (Step("See why, then requeue or answer them", "/ui/dead-letters"), ANSWER),
    Kind.LATE: (ANSWER,),
    Kind.DEGRADED: (Step("See the finished jobs", "/ui/jobs?state=done"),),
    Kind.CRASH_LOOP: (Step("See the jobs that crash workers", "/ui/dead-letters?reason=crashed"),),
    Kind.LOST: (Step("See which jobs are lost", "/ui/dead-letters#lost"),),
    Kind.SLO_SUCCESS: (Step("See objectives and failures", "/ui/history"), Step("See the routes", "/#routes")),
    Kind.SLO_LATENCY: (Step("See objectives and times", "/ui/history"), Step("See the routes", "/#routes")),
    Kind.SLO_COST: (Step("Save cost on every job", "/ui/act/save-cost", act=True), Step("See the spending", "/ui/money")),
    Kind.SLO_BURN: (Step("See what is left of the error budget", "/ui/history?days=30"),),
    Kind.SLO_BUDGET: (
        Step("See what is left of the error budget", "/ui/history?days=30"),
        Step("Save cost on every job", "/ui/act/save-cost", act=True),
    ),
}  # fmt: skip
BY_HAND = {  # where no page can do it: what to do elsewhere
    Kind.NO_WORKERS: "Start a worker. On Heroku: the page of the app, More, Restart all dynos. On Render: the page of "
    "failover-worker, Manual Deploy, Restart service. If none starts, call the operator.",
    Kind.WORKER_GONE: "If it does not come back: restart it, on Heroku or Render, with the button of that service.",
    Kind.REDIS_FULL: "Give Redis a larger plan, on the page of your Redis provider.",
    Kind.REDIS_UNSAFE: "Do what the message says, on the page of your Redis provider.",
    Kind.REDIS_UNWRITABLE: "Give Redis a larger disk, on the page of your Redis provider.",
}


def steps_of(incident: Incident) -> tuple[Step, ...]:
    """What to do about an incident, the first thing first."""
    if incident.resolved_ms is not None:
        return ()
    steps = _OF_KIND.get(incident.kind, ())
    tenant = next(iter(incident.tenants), "")
    if incident.kind is Kind.PAUSED:
        steps = (_resume(Scope.named(incident.subject)),)
    elif incident.kind in (Kind.CREDENTIALS, Kind.REFUSED):
        again = Step("Use the routes again, once it is fixed", "/ui/settings")
        steps = (Step("How to fix it", f"/ui/incidents/{incident.id}#fix"), again)
        steps += (ANSWER,) if incident.kind is Kind.REFUSED else ()
    elif incident.kind is Kind.CAPPED:
        raise_it = link("/ui/act/set-cap", scope=incident.subject)
        steps = (Step("Raise the cap", raise_it, act=True), Step("See the spending", "/ui/money"))
    elif incident.kind is Kind.FLOOD:
        whose = incident.subject or tenant
        steps = (
            _pause_client(whose),
            Step(f"Cancel what waits of {whose}", link("/ui/act/cancel-tenant", tenant=whose), act=True),
        )
    steps = (*(_disable(route) for route in named_in(incident, "routes", "disable")), *steps)
    message = KIND_INFO[incident.kind].message
    if message and incident.tenants:
        steps += (Step("Write to the clients", f"/ui/incidents/{incident.id}#messages"),)
    return steps


def named_in(incident: Incident, *command: str) -> list[str]:
    """What the incident's commands of this kind name: of `failover routes disable a/a-1` with (routes, disable), a/a-1."""
    commands = (shlex.split(each) for each in incident.commands)
    return [words[3] for words in commands if words[:3] == ["failover", *command] and len(words) > 3]


def _disable(route: str) -> Step:
    return Step(f"Disable {route}, which fails most", link("/ui/act/disable-route", route=route), act=True)


def _pause_client(tenant: str) -> Step:
    return Step(f"Pause {tenant}", link("/ui/act/pause", tenant=tenant), act=True)


def _use_again(route: str) -> Step:
    return Step(f"Use {route} again", link("/ui/act/enable-route", route=route), act=True)


def scope_query(scope: Scope) -> dict[str, str | None]:
    """The query of a link to an act on the scope of a pause, and the hidden fields of its form."""
    return {"queue": scope.queue, "provider": scope.provider, "tenant": scope.tenant}


def _resume(scope: Scope) -> Step:
    return Step("Resume, after a look at what starts", link("/ui/act/resume", **scope_query(scope)), act=True)


def headline(status: Status, incidents: Sequence[Incident]) -> Headline:
    """What is wrong, since when, and what to do; the worst first."""
    opened = [each for each in incidents if each.is_open and not each.fades]
    if shut := _all_shut(status):
        return shut
    if opened:
        worst = min(opened, key=_severity)
        more = f" And {many(len(opened) - 1, 'more problem')}, below." if len(opened) > 1 else ""
        means = KIND_INFO[worst.kind].means + more
        by_hand = BY_HAND.get(worst.kind, "")
        level = "bad" if worst.kind in _URGENT else "watch"
        paused = worst.kind is Kind.PAUSED
        flag = next(
            (each for each in status.paused if paused and str(each.scope) == (worst.subject or "everything")), None
        )
        told = f"Paused by {flag.who or 'unknown'}{f': {flag.why}' if flag.why else ''}. {means}" if flag else means
        steps = _not_done(steps_of(worst), status)
        return Headline(level, worst.title, f"{told} {by_hand}".strip(), worst.opened_ms, steps, fades=not paused)
    return _without_incident(status)


def _all_shut(status: Status) -> Headline | None:
    """Jobs wait, and people have taken every route out of use."""
    usable = [route for route in status.routes if route.health is not None]
    if not usable or not status.waiting or not all(route.closed for route in usable):
        return None
    shut = [flag for flag in status.paused if flag.route is not None or flag.provider is not None]
    steps = [_use_again(flag.route) if flag.route is not None else _resume(flag.scope) for flag in shut]
    since = max((flag.since or 0 for flag in shut), default=0)
    return Headline(
        "bad", f"No route is in use: {many(status.waiting, 'job')} waiting",
        " ".join(f"{flag}." for flag in shut[:STEPS]), int(since * 1000), tuple(steps[:STEPS]),
    )  # fmt: skip


def _not_done(steps: Sequence[Step], status: Status) -> tuple[Step, ...]:
    """Without the acts that are done already: a route that is disabled, a client that is paused."""
    done = {_disable(flag.route).href for flag in status.paused if flag.route is not None}
    done |= {_pause_client(flag.tenant).href for flag in status.paused if flag.tenant is not None}
    return tuple(step for step in steps if step.href not in done)


_URGENT = (*OUTAGES, Kind.REDIS_UNWRITABLE, Kind.REDIS_FULL, Kind.LOST, Kind.CRASH_LOOP)
_ORDER = (Kind.REDIS_UNWRITABLE, Kind.REDIS_FULL, *OUTAGES, Kind.LOST, Kind.CRASH_LOOP, Kind.DEAD_LETTERS, Kind.LATE)


def _severity(incident: Incident) -> tuple[int, int]:
    rank = _ORDER.index(incident.kind) if incident.kind in _ORDER else len(_ORDER)
    return rank, incident.opened_ms


def _without_incident(status: Status) -> Headline:
    """Before the first look of a notifier, or for what opens no incident."""
    dead = sum(queue.dead for queue in status.queues)
    whole = next((flag for flag in status.paused if flag.route is None), None)
    if whole is not None:
        step = _resume(whole.scope)
        return Headline("watch", f"Paused: {whole.scope}", f"By {whole.who or 'unknown'}. {whole.why or ''}",
                        int((whole.since or 0) * 1000), (step,))  # fmt: skip
    if not status.workers and status.waiting:
        return Headline("bad", f"No worker runs: {many(status.waiting, 'job')} waiting", BY_HAND[Kind.NO_WORKERS])
    if status.failing:
        return Headline("watch", "A worker cannot do a part of its work", status.failing[0])
    if status.odd:
        return Headline("watch", "A setting is unusual", status.odd[0])
    if dead:
        text = f"Everything runs. {many(dead, 'dead letter')} for a person to decide on."
        return Headline("watch", text, steps=(Step("See why, then requeue or answer them", "/ui/dead-letters"),))
    if not status.workers:
        return Headline("watch", "No worker runs, and no job waits", BY_HAND[Kind.NO_WORKERS])
    running = sum(queue.in_flight for queue in status.queues)
    disabled = sum(flag.route is not None for flag in status.paused)
    more = f" {many(disabled, 'route')} disabled by a person, below." if disabled else ""
    more += " Cost saving is on." if status.reduced else ""
    return Headline("good", "All is well", f"{many(running, 'job')} running, {status.waiting:,} waiting.{more}")
