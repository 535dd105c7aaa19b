"""Page Now: one sentence on top, then queues, routes, money, workers and open incidents, each a section of its own.

The sections are made once a second for all who look (live.py). Their HTML changes only when the facts do: ages are written by
the reader's browser, from the times in the page.
"""

from __future__ import annotations

from dataclasses import dataclass

from ops.reports import status as statuses
from ops.reports.status import Status
from ops.web.pages.next_steps import headline, steps_of
from ops.web.pages.page import Pages
from ops.web.seldom import at_most_every
from producer.errors import ConfigurationError
from worker.control.audit_trail import ActsOfPeople
from worker.control.pause import EVERYTHING
from worker.history.document import together
from worker.history.read import slices
from worker.notify.incidents import Incident, Incidents
from worker.notify.kinds import Kind
from worker.notify.oncall import load_on_call
from worker.queue.dead_letters import now_ms
from worker.reports import client_status
from worker.routes.prices import dollars

COST_MS = 3_600_000  # the window of a route's cost
SELDOM_SECONDS = 15.0  # how long costs and the time to drain are used: to read them takes hundreds of commands
SECTIONS = ("headline", "work", "incidents", "routes", "money", "workers")
WORKERS_LISTED = 20
INCIDENTS_LISTED = 10
ACTS_LISTED = 3


@dataclass(frozen=True)
class Cost:
    """What a route has cost within COST_MS, in US dollars, and for how many paid calls."""

    usd: float
    calls: int


class NowPage:
    """Makes the sections. Used by one thread at a time."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._acts = ActsOfPeople(pages.client)
        self._seldom = at_most_every(SELDOM_SECONDS, self._costs_and_end)

    def sections(self) -> dict[str, str]:
        """The HTML of each section. Raises RedisError."""
        client = self._pages.client
        status = statuses.gather(client, self._pages.producer.queue)
        now = now_ms(client)
        known = Incidents(client).unsettled()
        opened = [each for each in known if each.is_open]
        costs, drained, on_call = self._seldom()
        top = headline(status, known)
        facts = {
            "status": status,
            "now_ms": now,
            "headline": top,
            "done": self._acts.since(top.since_ms, ACTS_LISTED) if top.since_ms else [],
            "on_call": on_call,
            "all_paused": any(flag.scope == EVERYTHING for flag in status.paused),
            "disabled": {flag.route: str(flag) for flag in status.paused if flag.route},
            "opened": [(each, steps_of(each)) for each in opened[:INCIDENTS_LISTED]],
            "more_opened": max(0, len(opened) - INCIDENTS_LISTED),
            "routes": sorted(status.routes, key=lambda each: each.health is None),  # those left out come last
            "costs": costs,
            "workers": status.workers[:WORKERS_LISTED],
            "oldest": [_began(now, queue.oldest_seconds) for queue in status.queues],
            "drained_in": drained if status.waiting and not _stopped(status, opened) else "",
        }  # fmt: skip
        return {name: self._pages.fragment(f"now/{name}.html", **facts) for name in SECTIONS}

    def _costs_and_end(self) -> tuple[dict[str, Cost], str, str]:
        """(what each route has cost, when the jobs that wait will be answered, who is on call)."""
        client = self._pages.client
        now = now_ms(client)
        whole = together(each.document for each in slices(client, now - COST_MS, now))
        costs = {
            name: Cost(dollars(facts.counters.get("micros", 0)), facts.counters.get("calls", 0))
            for name, facts in whole.facts["route"].items()
        }
        minutes = client_status.minutes(client, self._pages.queues())
        return costs, "" if minutes is None else client_status.eta(minutes), self._on_call()

    def _on_call(self) -> str:
        """The person, with how to reach them; "" for nobody, and while the file cannot be read, which Settings tell."""
        try:
            return load_on_call(self._pages.environment).now(now_ms(self._pages.client))
        except ConfigurationError:
            return ""


def _stopped(status: Status, opened: list[Incident]) -> bool:
    """What waits is not answered until something changes, or nobody knows when; the time to drain may be older than that."""
    everywhere = any(each.kind in (Kind.COLD, Kind.REFUSED, Kind.CAPPED) for each in opened)
    return everywhere or bool(status.paused) or not status.workers


def _began(now: int, seconds: float | None) -> int | None:
    """When something began that is so old, to the second, so that the page does not change with each look."""
    return None if seconds is None else round(now / 1000 - seconds) * 1000
