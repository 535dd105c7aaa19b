"""The monthly report for clients: targets, error budget, days, outages survived, drills. What it says, not how it looks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

import redis

from ops.reports.slo.state import TITLES, shown, target_shown
from producer.errors import UsageError
from worker.control.pause import utc
from worker.history.collector import HOUR_MS, HOURS_KEPT_SECONDS
from worker.history.document import ALL, Facts, together
from worker.history.read import numbered
from worker.humanize import lasted, many
from worker.notify.incidents import Incident, Incidents
from worker.notify.kinds import KIND_INFO, OBJECTIVES, Kind
from worker.objectives.indicators import Counts, Indicator, Sli, counts_of, error_budget, indicators
from worker.objectives.policy import Dated, SloPolicy
from worker.objectives.windows import measured

SURVIVED = (Kind.COLD, Kind.REFUSED, Kind.ROUTE_OPEN, Kind.CREDENTIALS, Kind.NO_WORKERS)  # their titles name no client
DAY_HOURS = 24
MET = {True: "met", False: "missed", None: ""}


@dataclass(frozen=True)
class Plot:
    """Values over time. `points`: (day of the month, or another count; value), without those that have none. `unit`: of the
    values. `span`: the first and the last place of the plot. `each`: what a point is."""

    title: str
    unit: str
    points: tuple[tuple[float, float], ...]
    span: tuple[int, int]
    each: str
    target: float | None = None


@dataclass(frozen=True)
class Section:
    """A part of a report: sentences, a table, plots. Texts are as they are, without markup."""

    title: str
    lines: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    plots: tuple[Plot, ...] = ()


@dataclass(frozen=True)
class Report:
    """A whole report."""

    title: str
    lines: tuple[str, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Month:
    """What a month's report is made of, of all jobs or one tenant. `days`: the facts of each day, from the first on."""

    begin: datetime
    end: datetime
    complete: bool
    tenant: str
    policy: SloPolicy
    days: tuple[Facts, ...]
    incidents: tuple[Incident, ...]

    @property
    def dimension(self) -> str:
        return "tenant" if self.tenant else ALL

    @property
    def facts(self) -> Facts:
        """Of the whole month."""
        whole = Facts()
        for day in self.days:
            whole.add(day)
        return whole

    @property
    def counts(self) -> Counts:
        return counts_of(self.facts)

    def has(self, at: datetime) -> bool:
        return self.begin <= at < self.end


def bounds(month: str, now: datetime) -> tuple[datetime, datetime]:
    """Begin and end of a month such as 2026-11. Raises UsageError for one that the history does not have."""
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", month):
        raise UsageError(f"--month {month}: write it as in {now:%Y-%m}")
    begin = datetime(int(month[:4]) or 1, int(month[5:]), 1, tzinfo=UTC)
    end = (begin + timedelta(days=31)).replace(day=1)
    if begin > now:
        raise UsageError(f"--month {month}: has not begun yet")
    if (now - end).total_seconds() > HOURS_KEPT_SECONDS:
        raise UsageError(f"--month {month}: the history goes back {HOURS_KEPT_SECONDS // 86400} days")
    return begin, end


def hours_of(begin: datetime, end: datetime, now: datetime) -> range:
    """The numbers of the hours of a month, up to now."""
    return range(int(begin.timestamp() * 1000) // HOUR_MS, int(min(end, now).timestamp() * 1000 - 1) // HOUR_MS + 1)


def read(client: redis.Redis, policy: SloPolicy, month: str, now_ms: int, tenant: str) -> Month:
    """Read a month, up to now if it is not over. `tenant` "": of all jobs."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    begin, end = bounds(month, now)
    hours = hours_of(begin, end, now)
    dimension, days = "tenant" if tenant else ALL, []
    for first in range(0, len(hours), DAY_HOURS):
        day = measured(client, policy, numbered(client, hours[first : first + DAY_HOURS], HOUR_MS))
        days.append(together(each.document for each in day).facts[dimension].get(tenant) or Facts())
    stamps = (int(each.timestamp() * 1000) for each in (begin, end))
    found = Incidents(client).since(*stamps)
    return Month(begin, end, end <= now, tenant, policy, tuple(days), tuple(found))


def report(month: Month, now_ms: int) -> Report:
    """The report of a month."""
    name = f" for {month.tenant}" if month.tenant else ""
    title = f"{month.policy.client.service}: reliability report {month.begin:%B %Y}{name}"
    part = () if month.complete else ("The month is not over: these are its figures so far.",)
    sections = (
        _targets(month),
        _days(month),
        _what_happened(month),
        _outages(month, now_ms),
        _missed(month, now_ms),
        *_noted("Maintenance", _windows(month)),
        _drills(month),
        *_noted(
            "Changelog of targets", [_dated(each) for each in month.policy.client.changelog if _is_of(month, each)]
        ),
    )
    return Report(title, (f"Last updated: {utc(now_ms / 1000)}. Times are UTC.", *part), sections)


def _targets(month: Month) -> Section:
    targets, counts = month.policy.of(month.dimension, month.tenant), month.counts
    rows = tuple(
        (TITLES[each.sli], target_shown(each), shown(each.sli, each.value), MET[each.met])
        for each in indicators(counts, targets)
        if each.value is not None or each.target is not None
    )
    lines = [f"{many(counts.requests, 'request')}, {counts.failures:,} failed, of them {counts.late:,} answered late."]
    if targets.success_percent is not None:
        budget = error_budget(counts, targets.success_percent)
        lines.append(
            f"Error budget: {budget.allowed:,.1f} failures allowed, {budget.spent:,} spent, {budget.left:,.1f} left."
        )
    return Section("Targets", tuple(lines), ("indicator", "target", "measured", ""), rows)


def _days(month: Month) -> Section:
    targets = month.policy.of(month.dimension, month.tenant)
    by_day = [indicators(counts_of(day), targets) for day in month.days]
    plots = (
        _plot(by_day, Sli.SUCCESS, "Success rate", "% of requests"),
        _plot(by_day, Sli.ANSWER, "p95 to the answer", "seconds"),
        _plot(by_day, Sli.AVERAGE_COST, "Average cost", "US dollars a request"),
    )
    listed = (Sli.SUCCESS, Sli.ANSWER, Sli.AVERAGE_COST)
    rows = list[tuple[str, ...]]()
    numbered = enumerate(zip(month.days, by_day, strict=True))
    for quiet, days in groupby(numbered, lambda each: counts_of(each[1][0]).requests == 0):
        found = [
            (f"{month.begin + timedelta(days=number):%Y-%m-%d}", f"{counts_of(day).requests:,}", *_values(of, listed))
            for number, (day, of) in days
        ]
        if quiet and len(found) > 1:
            found = [(f"{found[0][0]} to {found[-1][0]}", *found[0][1:])]
        rows += found
    return Section("Days", (), ("day", "requests", *(TITLES[sli] for sli in listed)), tuple(rows), plots)


def _values(of: Sequence[Indicator], listed: Sequence[Sli]) -> Iterator[str]:
    return (shown(each.sli, each.value) for each in of if each.sli in listed)


def _plot(by_day: Sequence[Sequence[Indicator]], sli: Sli, title: str, unit: str) -> Plot:
    of = [next(each for each in day if each.sli is sli) for day in by_day]
    days = tuple((number, each.value) for number, each in enumerate(of, 1) if each.value is not None)
    return Plot(title, unit, days, (1, len(of)), "each day", of[0].target)


def _what_happened(month: Month) -> Section:
    counters = month.facts.counters
    found = {
        "saved: answered by another route than the first": counters.get("saved", 0),
        "answered in a reduced form": counters.get("degraded", 0),
        "answered from the cache": counters.get("cached", 0),
        "answered late": counters.get("late", 0),
        "dead letters": counters.get("dead", 0),
        "answered by a person": counters.get("resolved", 0),
    }
    rows = tuple((what, f"{count:,}") for what, count in found.items())
    return Section("What became of the jobs", (), ("jobs", "count"), rows)


def _outages(month: Month, now_ms: int) -> Section:
    """The outages of providers, without anything of clients."""
    survived = [each for each in month.incidents if each.kind in SURVIVED]
    saved = () if month.tenant else ("jobs saved",)
    rows = tuple(
        (
            utc(each.opened_ms / 1000),
            KIND_INFO[each.kind].title + (f": {each.subject}" if each.subject else ""),
            length(each, now_ms),
            *([f"{each.saved:,}"] if saved else []),
        )
        for each in survived
    )
    lines = () if rows else ("No outage of a provider.",)
    return Section("Outages survived", lines, ("began", "what", "lasted", *saved) if rows else (), rows)


def _missed(month: Month, now_ms: int) -> Section:
    """The alerts of its own targets: of all jobs, or of the tenant."""
    scope = f"tenant {month.tenant}" if month.tenant else ""
    alerts = [each for each in month.incidents if each.kind in OBJECTIVES and each.subject == scope]
    rows = tuple((utc(each.opened_ms / 1000), KIND_INFO[each.kind].title, length(each, now_ms)) for each in alerts)
    lines = () if rows else ("None.",)
    return Section("Alerts of targets", lines, ("began", "what", "lasted") if rows else (), rows)


def length(incident: Incident, now_ms: int) -> str:
    """How long an incident lasted, up to now if it is open."""
    return lasted(incident.seconds(now_ms)) + ("" if incident.resolved_ms else ", not over")


def _windows(month: Month) -> list[str]:
    return [
        f"{w.begin:%Y-%m-%d %H:%M} to {w.end:%H:%M}: {w.why}"
        for w in month.policy.maintenance.windows
        if month.has(w.begin)
    ]


def _drills(month: Month) -> Section:
    drills = tuple(_dated(each) for each in month.policy.client.drills if _is_of(month, each))
    return Section("Failover drills", drills or ("None in this month.",))


def _is_of(month: Month, each: Dated) -> bool:
    return f"{each.date:%Y-%m}" == f"{month.begin:%Y-%m}"


def _dated(each: Dated) -> str:
    return f"{each.date.isoformat()}: {each.what}"


def _noted(title: str, lines: Sequence[str]) -> Iterator[Section]:
    if lines:
        yield Section(title, tuple(lines))
