"""Objectives and history: what was promised and what happened, as figures and plots, over any window."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from ops.drills.record import recorded
from ops.reports.slo.state import TITLES, as_data, shown, state, target_shown
from ops.web.pages.page import Pages
from producer.errors import BadRequest
from worker.history.document import ALL, DIMENSIONS, Facts, together
from worker.history.read import Slice, facts_of, slices
from worker.notify.objectives.follow import frozen
from worker.objectives.policy import load_slo_policy
from worker.queue.dead_letters import now_ms
from worker.routes.prices import dollars

DAY_MS = 86_400_000
WINDOWS = ((1 / 24, "1 hour"), (4 / 24, "4 hours"), (1, "1 day"), (7, "7 days"), (30, "30 days"), (90, "90 days"))
POINTS = 180  # of a plot: what a phone can show
LISTED = 20  # names in a table


@dataclass(frozen=True)
class Plot:
    """One plot: `times` in Unix seconds, and for each line its name and values; None where nothing was measured."""

    title: str
    unit: str
    times: tuple[int, ...]
    lines: tuple[tuple[str, tuple[float | None, ...]], ...]

    @property
    def data(self) -> str:
        """For the script that draws it."""
        return json.dumps({"unit": self.unit, "names": [name for name, _ in self.lines],
                           "data": [self.times, *(values for _, values in self.lines)]})  # fmt: skip


def add(router: APIRouter, pages: Pages) -> None:
    @router.get("/ui/history")
    def history(request: Request) -> Response:
        given = request.query_params
        days = _days(given.get("days", "1"))
        dimension, name = given.get("of", ALL), given.get("name", "").strip()
        if dimension not in DIMENSIONS or (dimension == ALL) != (not name):
            dimension, name = ALL, ""
        client = pages.client
        now = now_ms(client)
        found = list(slices(client, int(now - days * DAY_MS), now))
        whole = together(each.document for each in found)
        total = whole.facts[dimension].get(name) or Facts()
        names = {
            by: sorted(whole.facts[by].items(), key=lambda entry: -entry[1].weight)[:LISTED] for by in DIMENSIONS[1:]
        }
        return pages.render(
            request, "history.html", days=days, windows=WINDOWS, of=dimension, name=name, total=total, names=names,
            plots=_plots(found, dimension, name), dollars=dollars, objectives=_objectives(pages, days, dimension, name, now),
            failures=list(total.failures.items())[:LISTED], frozen=frozen(client),
            drills=[each for each in recorded(client) if each["at"] * 1000 >= now - days * DAY_MS][:LISTED],
        )  # fmt: skip


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0
    if not 0 < days <= 400:
        raise BadRequest("the window is between an hour and 400 days")
    return days


def _objectives(pages: Pages, days: float, dimension: str, name: str, now: int) -> list[dict[str, Any]]:
    """Each indicator of the scope with its target, as text; empty for a route or provider, which nothing is promised of."""
    if dimension not in (ALL, "feature", "tenant"):
        return []
    policy = load_slo_policy(pages.environment)
    found = state(pages.client, policy, int(now - days * DAY_MS), now, dimension, name).scopes
    return [
        {
            "scope": of.scope,
            "data": as_data(of),
            "indicators": [
                (TITLES[each.sli], shown(each.sli, each.value), target_shown(each), each.met) for each in of.indicators
            ],
            "budget": of.budget,
            "burns": of.burns,
        }
        for of in found[: 1 + LISTED]
        if of.counts.requests or of is found[0]
    ]


def _plots(found: Sequence[Slice], dimension: str, name: str) -> list[Plot]:
    size = -(-len(found) // POINTS)
    groups = [found[begin : begin + size] for begin in range(0, len(found), size)]
    times = tuple(group[0].begin_ms // 1000 for group in groups)
    facts = [_together(facts_of(group, dimension, name)) for group in groups]

    def line(of: Callable[[Facts], float | None]) -> tuple[float | None, ...]:
        return tuple(of(each) for each in facts)

    jobs = tuple((counter, line(_counter(counter))) for counter in ("done", "dead", "late"))
    took = tuple((f"{100 * share:g}% within", line(_quantile("answer", share))) for share in (0.5, 0.95))
    plots = [
        Plot("Jobs", "jobs", times, jobs),
        Plot("Time to the answer", "seconds", times, took),
        Plot("Cost", "US dollars", times, (("cost", line(lambda each: dollars(each.counters.get("micros", 0)))),)),
        Plot("Failed calls", "calls", times, (("failed", line(lambda each: float(sum(each.failures.values())))),)),
    ]
    if dimension == ALL:
        plots.append(Plot("Jobs that wait, at most", "jobs", times, (("waiting", line(_counter("peak waiting"))),)))
    return plots


def _together(some: Sequence[Facts]) -> Facts:
    whole = Facts()
    for each in some:
        whole.add(each)
    return whole


def _counter(name: str) -> Callable[[Facts], float]:
    return lambda facts: float(facts.counters.get(name, 0))


def _quantile(name: str, share: float) -> Callable[[Facts], float | None]:
    def seconds(facts: Facts) -> float | None:
        found = facts.times[name].quantile(share) if name in facts.times else None
        return None if found is None else round(found / 1000, 3)

    return seconds
