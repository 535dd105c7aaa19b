"""The top cause of an alarm in words: which route, which failure. From what the history counted in its window."""

from __future__ import annotations

from collections.abc import Iterator

from worker.history.document import ALL, PEAK, Document, Facts, Histogram
from worker.humanize import counted, many, money, took
from worker.objectives.alarms import Alarm
from worker.objectives.indicators import LEFT_OUT, SHARE
from worker.routes.prices import dollars

MANY = 0.05  # of the calls: fewer explain no p95
QUEUED = 2.0  # an answer that takes so many times its run time has waited in the queue


def causes(alarm: Alarm, document: Document, dimension: str, name: str) -> Iterator[str]:
    """Lines that say what was the cause most likely. `document`: all that happened in the window."""
    facts = document.facts[dimension].get(name) or Facts()
    if alarm is Alarm.LATENCY:
        yield from _of_latency(document, facts)
    elif alarm is Alarm.COST:
        yield from _of_cost(document, dimension)
    else:
        yield from _of_failures(document, facts)


def failing_route(document: Document) -> str:
    """The route with the most failed calls, if more than half of its calls failed and another route answered some; else ""."""
    routes = document.facts["route"]
    good = {name: facts.counters.get("attempts ok", 0) for name, facts in routes.items()}
    bad = {name: facts.counters.get("attempts", 0) - good[name] for name, facts in routes.items()}
    worst = max(bad, key=lambda name: bad[name], default="")
    elsewhere = any(count for name, count in good.items() if name != worst)
    return worst if worst and bad[worst] > good[worst] and elsewhere else ""


def _of_failures(document: Document, facts: Facts) -> Iterator[str]:
    ends = {
        name.removeprefix("dead "): count
        for name, count in facts.counters.items()
        if name.startswith("dead ") and name.removeprefix("dead ") not in LEFT_OUT
    }
    ends |= {"late": facts.counters.get("late", 0)}
    if ends := {name: count for name, count in sorted(ends.items(), key=lambda end: -end[1]) if count}:
        yield f"Failed requests: {counted(ends)}."
    yield from _failed_calls(document)


def _failed_calls(document: Document) -> Iterator[str]:
    """The route and the failure of the most failed calls."""
    failed = {
        (route, outcome.removeprefix("attempts ")): count
        for route, facts in document.facts["route"].items()
        for outcome, count in facts.counters.items()
        if outcome.startswith("attempts ") and outcome != "attempts ok"
    }
    if not failed:
        return
    route, outcome = max(failed, key=lambda pair: failed[pair])
    calls = document.facts["route"][route].counters.get("attempts", 0)
    words = outcome.replace("_", " ")
    yield f"Top cause: {route}: {words} ({failed[route, outcome]:,} of its {many(calls, 'call')})."


def _of_latency(document: Document, facts: Facts) -> Iterator[str]:
    answer, run = (facts.times.get(name, Histogram()).quantile(SHARE) for name in ("answer", "run"))
    if answer and run and answer > QUEUED * run:
        waiting = document.of(ALL, "").counters.get(PEAK + "waiting", 0)
        most = f", at most {many(waiting, 'job')} at one time" if waiting else ""
        yield f"Top cause: jobs wait in the queue{most}; 19 in 20 of their calls take at most {took(run)}."
        return
    calls = document.of(ALL, "").counters.get("attempts", 0)
    used = {
        route: p95
        for route, of in document.facts["route"].items()
        if of.counters.get("attempts", 0) > MANY * calls and "attempt" in of.times
        if (p95 := of.times["attempt"].quantile(SHARE)) is not None
    }
    if used:
        slowest = max(used, key=lambda route: used[route])
        had = f"{document.facts['route'][slowest].counters['attempts']:,} of {many(calls, 'call')}"
        yield f"Top cause: {slowest}: 1 in 20 of its calls takes more than {took(used[slowest])}; it had {had}."
    if calls - document.of(ALL, "").counters.get("attempts ok", 0) > MANY * calls:
        yield from _failed_calls(document)


def _of_cost(document: Document, dimension: str) -> Iterator[str]:
    total = sum(facts.counters.get("micros", 0) for facts in document.facts["route"].values())
    for what, begin in (("route", "Top cause: "), ("feature", "Feature "), ("tenant", "Tenant ")):
        of = {name: facts.counters.get("micros", 0) for name, facts in document.facts[what].items()}
        if not total or not of or what == dimension:
            continue
        first = max(of, key=lambda name: of[name])
        calls = document.facts[what][first].counters.get("calls", 0)
        each = f", {money(dollars(round(of[first] / calls)))} a call" if calls else ""
        yield f"{begin}{first}: {of[first] / total:.0%} of the cost{each}."
