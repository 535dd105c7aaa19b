"""The kit's one-pager and its clause for a contract, as Markdown with the figures of policies/slo.yaml and the history."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import redis

from ops.reports.slo.state import TITLES, ScopeState, shown, state
from producer.errors import ConfigurationError, Problem
from worker.history.collector import HOURS_KEPT_SECONDS
from worker.history.document import ALL, OTHERS
from worker.history.read import slices
from worker.humanize import one_line
from worker.objectives.indicators import Sli, counts_of
from worker.objectives.policy import FILE, Dated, SloPolicy, Targets
from worker.objectives.windows import measured

DAY_MS = 86_400_000
LONGEST_LINE = 1000
LISTED = 20  # features
NEEDED = (Sli.SUCCESS, Sli.ANSWER, Sli.AVERAGE_COST)  # without them there is nothing to promise
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#~])")


def markdown(text: str) -> str:
    """A text of somebody else as one line of Markdown, in which nothing is markup."""
    return _MARKUP.sub(r"\\\1", one_line(text, LONGEST_LINE))


@dataclass(frozen=True)
class Facts:
    """What both documents are filled from. `features`: those that were used; empty for a tenant, because features are not
    counted by tenant. `busiest`: the most requests in one hour."""

    policy: SloPolicy
    targets: Targets
    state: ScopeState
    tenant: str
    features: Sequence[str]
    busiest: int
    today: datetime

    @property
    def daily(self) -> float:
        """Requests a day."""
        return self.state.counts.requests / self.policy.window_days

    @property
    def updated(self) -> str:
        """The day of the last change of a target; without a changelog, today."""
        last = max((each.date for each in self.policy.client.changelog), default=self.today.date())
        return last.isoformat()


def gather(client: redis.Redis, policy: SloPolicy, now_ms: int, tenant: str) -> Facts:
    """Read what the documents need. `tenant` "": of all jobs. Raises ConfigurationError for a target that is missing."""
    dimension = "tenant" if tenant else ALL
    targets = policy.of(dimension, tenant)
    where = f"tenants.{tenant}" if tenant in policy.tenants else "targets"
    if missing := [sli for sli in NEEDED if getattr(targets, sli) is None]:
        fix = "set it: a document for clients promises success, p95 to the answer and average cost"
        raise ConfigurationError([Problem(f"policies/{FILE}", f"{where}.{sli}", "is not set", fix) for sli in missing])
    since_ms = now_ms - policy.window_days * DAY_MS
    (of, *others) = state(client, policy, since_ms, now_ms, dimension, tenant).scopes
    features = [each.name for each in others if each.dimension == "feature"]
    hours = measured(client, policy, slices(client, since_ms, now_ms))
    found = (each.document.facts[dimension].get(tenant) for each in hours)
    busiest = max((counts_of(facts).requests for facts in found if facts), default=0)
    return Facts(policy, targets, of, tenant, features, busiest, datetime.fromtimestamp(now_ms / 1000, UTC))


def page(facts: Facts) -> str:
    """The one-pager of the reliability kit."""
    return "\n".join(_page(facts)) + "\n"


def _page(facts: Facts) -> Iterator[str]:
    policy, client = facts.policy, facts.policy.client
    yield f"# {markdown(client.service)} — Reliability SLO{_for(facts)}"
    yield f"\nLast updated: {facts.updated}\n\n## Scope\n"
    yield f"- Covered features: {_features(facts)}."
    yield (
        f"- Traffic profile: {facts.daily:,.0f} requests a day in the last {policy.window_days} days; "
        f"at most {facts.busiest:,} in one hour."
    )
    yield f"- Measurement window: rolling {policy.window_days} days.\n\n## SLIs (how we measure)\n"
    yield "- Success rate: 1 - (failed requests + answers later than promised) / total requests, at our own edge."
    yield "- p95 to the answer: from the acceptance of a request to its whole answer."
    yield "- Cost per request: what providers charge, failed calls included, divided by total requests."
    yield "\n## Targets (SLOs)\n"
    yield from _targets(facts)
    yield "\n## Error budget\n"
    yield from _budget(facts)
    yield "\n## Measurement and tooling\n"
    yield "- Source of truth: the history of failover-worker, which counts every request once by minute and hour."
    yield f"- Time: UTC. Retention: {HOURS_KEPT_SECONDS // 86400} days."
    yield "\n## Burn-rate policy (what we do when it slips)\n"
    yield (
        "- Fast burn: if the success rate burns the error budget more than 2 times too fast over 1 hour, we open an "
        "incident, fail over to the secondary, and freeze launches."
    )
    yield (
        "- Slow burn: if more than 50% of the month's error budget is used by day 15, or more than 80% by day 25, we reduce "
        "model cost, use prompt caching, and review prompts and context."
    )
    yield "\n## Change management\n"
    yield (
        f"- A change of model or provider must meet the p95 target on 200 sample requests, and keep the average cost within "
        f"its target for {client.trial_days} days, before it is kept."
    )
    yield "\n## Exclusions\n"
    yield f"- {_maintenance(facts)}\n- Abuse, or use outside of stated limits."
    yield "- Requests that a model refuses, and requests that are wrong themselves."
    yield f"\n## Contact and status\n\n- Incidents: {markdown(client.contact)}. Review: monthly."
    yield from _changelog(client.changelog)


def sow(facts: Facts) -> str:
    """The clause for a proposal or a statement of work."""
    return "\n".join(_sow(facts)) + "\n"


def _sow(facts: Facts) -> Iterator[str]:
    days, targets, client = facts.policy.window_days, facts.targets, facts.policy.client
    yield f"# SOW clause: Reliability SLO{_for(facts)}"
    yield f"\nLast updated: {facts.updated}. This is no legal advice: have it reviewed by counsel.\n"
    yield (
        f'- Provider: We operate an AI inference service, {markdown(client.service)} (the "Service"), that routes across '
        f"approved model providers. We commit to the Service Level Objectives below, measured at our API edge over a rolling "
        f"{days}-day window."
    )
    yield (
        f"- SLOs: Success rate ≥ {targets.success_percent:g}%; p95 end-to-end latency ≤ {targets.p95_answer_seconds:g} "
        f"seconds, to the whole answer; average cost per request ≤ ${targets.average_cost_usd:g}."
    )
    yield (
        "- Measurement: Metrics are collected in the same way for every provider. We will provide access to monthly reports "
        "and on-request drill results."
    )
    yield (
        "- Error budget and remediation: If the error budget is exhausted within a window, we will (1) pause changes that risk "
        "reliability, (2) prioritize mitigations (provider pinning, prompt caching, context reduction), and (3) run a joint "
        "review."
    )
    yield f"- Exclusions: {_maintenance(facts)[:-1]}, third-party abuse, or use outside of agreed rate or volume limits."
    if client.credit_percent is not None:
        yield (
            f"- Credits: If we miss the success-rate SLO for a full {days}-day window, we will apply a service credit of "
            f"{client.credit_percent:g}% of that month's AI usage fees."
        )
    yield "\n## Proposal appendix: operational transparency\n"
    yield (
        "- We run a 30-minute failover drill at least quarterly and on major provider changes. We share the drill summary and "
        "any reliability changes that follow."
    )
    yield from _changelog(client.changelog)


def _for(facts: Facts) -> str:
    return f" for {markdown(facts.tenant)}" if facts.tenant else " (client-facing)"


def _features(facts: Facts) -> str:
    if facts.tenant:
        return "every feature that you use"
    names = [markdown(name) for name in facts.features if name != OTHERS]
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return (", ".join(names[:LISTED]) + more) or "all"


def _targets(facts: Facts) -> Iterator[str]:
    """Each target, and what was measured."""
    for each in facts.state.indicators:
        if each.target is None:
            continue
        sign = "≥" if each.sli is Sli.SUCCESS else "≤"
        now = shown(each.sli, each.value) if each.value is not None else "no request yet"
        title = TITLES[each.sli][0].upper() + TITLES[each.sli][1:]
        yield f"- {title}: {sign} {_target(each.sli, each.target)}. Last {facts.policy.window_days} days: {now}."


def _target(sli: Sli, target: float) -> str:
    if sli is Sli.SUCCESS:
        return f"{target:g}%"
    return f"${target:g}" if sli in (Sli.AVERAGE_COST, Sli.P95_COST) else f"{target:g} s"


def _budget(facts: Facts) -> Iterator[str]:
    success = facts.targets.success_percent or 0
    yield f"- Budget = {100 - success:.4g}% of the requests over {facts.policy.window_days} days."
    if (budget := facts.state.budget) is not None:
        yield (
            f"- With the {facts.state.counts.requests:,} requests of the last {facts.policy.window_days} days: "
            f"{budget.allowed:,.0f} may fail, {budget.spent:,} did."
        )


def _maintenance(facts: Facts) -> str:
    limits = facts.policy.maintenance
    return (
        f"Scheduled maintenance windows (≤ {limits.minutes} minutes, {limits.per_quarter} per quarter) announced 48 hours "
        "in advance."
    )


def _changelog(changes: Sequence[Dated]) -> Iterator[str]:
    if changes:
        yield "\n## Changelog of targets\n"
        yield from (f"- {each.date.isoformat()}: {markdown(each.what)}" for each in reversed(changes))
