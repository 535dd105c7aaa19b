"""The draft of the monthly review: what the router saved, whether pauses came too early, which thresholds to move, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

import redis

from ops.reports.slo.month import SURVIVED, Report, Section, bounds, hours_of, length
from ops.reports.slo.state import TITLES, shown, target_shown
from worker.control.pause import utc
from worker.history.collector import HOUR_MS
from worker.history.document import ALL, Document, Facts, together
from worker.history.read import numbered
from worker.humanize import counted, lasted, many, money, took
from worker.money.caps import Budgets
from worker.notify.incidents import Incident, Incidents
from worker.notify.kinds import KIND_INFO, OBJECTIVES, Kind
from worker.objectives.indicators import SHARE, Sli, counts_of, indicators
from worker.objectives.policy import SloPolicy
from worker.objectives.windows import measured
from worker.routes.prices import dollars

PAUSES = (Kind.BUDGET, Kind.CAPPED)
SHORT_SECONDS = 600  # an alert that is over so soon asked for nobody
MANY = 0.05  # of a route's calls fail, or of the month it is open: look at it
EASY = 0.5  # of a target: what is measured is so much better that more can be promised
EARLY = 0.8  # of a cap: a month that ends below it was paused too early


@dataclass(frozen=True)
class Evidence:
    """What a review is written from. `document`: all that happened; `facts`: of all jobs, as objectives measure it."""

    begin: datetime
    end: datetime
    complete: bool
    policy: SloPolicy
    budgets: Budgets
    document: Document
    facts: Facts
    incidents: tuple[Incident, ...]
    now_ms: int

    @property
    def hours(self) -> float:
        """The hours of the month that have passed."""
        end = min(self.end.timestamp(), self.now_ms / 1000)
        return max(1.0, (end - self.begin.timestamp()) / 3600)

    def of(self, kinds: Sequence[Kind]) -> list[Incident]:
        return [each for each in self.incidents if each.kind in kinds]


def gather(client: redis.Redis, policy: SloPolicy, budgets: Budgets, month: str, now_ms: int) -> Evidence:
    """Read the evidence of a month such as 2026-11, up to now if it is not over. Raises UsageError."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    begin, end = bounds(month, now)
    hours = hours_of(begin, end, now)
    document = together(each.document for each in numbered(client, hours, HOUR_MS))
    ours = together(each.document for each in measured(client, policy, numbered(client, hours, HOUR_MS)))
    found = Incidents(client).since(int(begin.timestamp() * 1000), int(end.timestamp() * 1000))
    return Evidence(begin, end, end <= now, policy, budgets, document, ours.of(ALL, ""), tuple(found), now_ms)


def review(of: Evidence) -> Report:
    """The draft: four questions of the SOP, each with its evidence, and room for the answer."""
    part = () if of.complete else ("The month is not over: these are its figures so far.",)
    agenda = "30 minutes: read the evidence, write one sentence for each question, change at most three settings."
    sections = (
        Section("Did the router save a deadline?", tuple(_saved(of)), *_outages(of)),
        Section("Did budget pauses trigger too early?", tuple(_pauses(of))),
        Section("Which thresholds move?", tuple(_thresholds(of)), *_routes(of)),
        Section("External incidents, for the CHANGELOG", tuple(_external(of)) or ("None.",)),
        Section("Decided", ("(write down what was changed, and why)",)),
    )
    return Report(f"Review of {of.begin:%B %Y}", (f"Draft of {utc(of.now_ms / 1000)}. {agenda}", *part), sections)


def _saved(of: Evidence) -> Iterator[str]:
    counters = of.document.of(ALL, "").counters
    saved, late, dead = (counters.get(name, 0) for name in ("saved", "late", "dead"))
    yield f"{many(saved, 'job')} answered by another route than the first, of {many(counters.get('done', 0), 'answered job')}."
    yield f"{many(late, 'answer')} came late; {many(dead, 'job')} died."
    yield "Yes: without failover these jobs had waited or died." if saved else "No job needed it in this month."


def _outages(of: Evidence) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    rows = tuple(
        (
            utc(each.opened_ms / 1000),
            each.title,
            length(each, of.now_ms),
            f"{each.saved:,}",
            f"{each.late:,}",
            f"{each.dead:,}",
        )
        for each in of.of(SURVIVED)
    )
    return (("began", "outage", "lasted", "saved", "late", "dead") if rows else ()), rows


def _pauses(of: Evidence) -> Iterator[str]:
    pauses = of.of(PAUSES)
    spent = dollars(of.document.of(ALL, "").counters.get("micros", 0))
    hard = of.budgets.cap_of("total").hard_usd
    cap = f" of a cap of {money(hard)} ({spent / hard:.0%})" if hard else "; there is no cap for all jobs"
    yield f"Spent: {money(spent)}{cap}."
    for each in pauses:
        why = f": {each.lines[0]}" if each.lines else ""
        yield f"{utc(each.opened_ms / 1000)}, {each.title}, {length(each, of.now_ms)}{why}"
    if not pauses:
        yield "No budget paused anything."
    elif hard and of.complete and spent < EARLY * hard:
        fix = "Raise BUDGET_PAUSE_AT_PERCENT, or the cap of a scope."
        yield f"Perhaps too early: the month ended below {EARLY:.0%} of its cap. {fix}"


def _thresholds(of: Evidence) -> Iterator[str]:
    for each in indicators(counts_of(of.facts), of.policy.targets):
        if each.met is None or each.value is None or each.target is None:
            continue
        measured_as = f"{TITLES[each.sli]}: {shown(each.sli, each.value)}, target {target_shown(each)}"
        if not each.met:
            yield f"{measured_as}. Missed: end the cause below, or promise less."
        elif each.sli is not Sli.SUCCESS and each.value < EASY * each.target:
            yield f"{measured_as}. Far better than promised: a stricter target is possible."
        else:
            yield f"{measured_as}. Met: leave it."
    for kind, alerts in _by_kind(of.of(OBJECTIVES)).items():
        short = sum(1 for each in alerts if each.resolved_ms and each.seconds(of.now_ms) < SHORT_SECONDS)
        told = f"{KIND_INFO[kind].title}: {many(len(alerts), 'alert')}, {short} over within {lasted(SHORT_SECONDS)}"
        noisy = short > len(alerts) / 2
        yield f"{told}. {'Too noisy: raise the numbers of fewest in slo.yaml, or move the target.' if noisy else 'Leave it.'}"


def _by_kind(alerts: Sequence[Incident]) -> Mapping[Kind, list[Incident]]:
    found: dict[Kind, list[Incident]] = {}
    for each in alerts:
        found.setdefault(each.kind, []).append(each)
    return found


def _routes(of: Evidence) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Each route: its calls, failures, p95, how long its breaker was open, and what to look at."""
    routes = of.document.facts["route"]
    rows = tuple(_route(name, routes[name], of.hours) for name in sorted(routes, key=lambda n: -routes[n].weight))
    return (("route", "calls", "failed", "most often", "p95", "breaker open", "look at") if rows else ()), rows


def _route(name: str, facts: Facts, hours: float) -> tuple[str, ...]:
    calls = facts.counters.get("attempts", 0)
    outcomes = facts.failures
    failed, open_seconds = sum(outcomes.values()), facts.counters.get("open_seconds", 0)
    p95 = facts.times["attempt"].quantile(SHARE) if "attempt" in facts.times else None
    share = f" ({failed / calls:.1%})" if calls else ""
    look = []
    if calls and failed > MANY * calls:
        look.append("fails often: another model, or later in the map")
    if open_seconds > MANY * hours * 3600:
        look.append("open for long: a longer cooldown changes nothing, another warm route does")
    opened = lasted(open_seconds) if open_seconds else "-"
    most = counted(dict(islice(outcomes.items(), 2)))
    return name, f"{calls:,}", f"{failed:,}{share}", most, took(p95), opened, "; ".join(look)


def _external(of: Evidence) -> Iterator[str]:
    """The outages of providers with exact times, as lines to copy."""
    for each in of.of((Kind.COLD, Kind.ROUTE_OPEN)):
        begin = datetime.fromtimestamp(each.opened_ms / 1000, UTC)
        end = datetime.fromtimestamp(each.resolved_ms / 1000, UTC) if each.resolved_ms else None
        until = f"{end:%H:%M}" if end and end.date() == begin.date() else f"{end:%Y-%m-%d %H:%M}" if end else "now"
        yield f"{begin:%Y-%m-%d} {begin:%H:%M} to {until} UTC: {each.subject or 'every provider'} down"
