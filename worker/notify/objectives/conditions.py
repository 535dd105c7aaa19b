"""The conditions of objectives: the targets of policies/slo.yaml that are missed now."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from worker.humanize import one_line
from worker.notify.condition import FIRST, LONGEST_NAME, Condition
from worker.notify.kinds import Kind
from worker.notify.objectives.follow import done_lines, proposed_commands
from worker.objectives.alarms import Alarm
from worker.objectives.policy import Follow
from worker.objectives.watch import Finding

KINDS = {
    Alarm.SUCCESS: Kind.SLO_SUCCESS,
    Alarm.LATENCY: Kind.SLO_LATENCY,
    Alarm.COST: Kind.SLO_COST,
    Alarm.BURN: Kind.SLO_BURN,
    Alarm.BUDGET: Kind.SLO_BUDGET,
    Alarm.SPEND: Kind.SPEND,
}


def of_findings(findings: Sequence[Finding], follow: Follow) -> Iterator[Condition]:
    """One condition for each alarm and scope, with what follows it."""
    for found in findings:
        scope, (first, *others) = one_line(found.scope, LONGEST_NAME), found.what
        also = [f"Also, {what}." for what in others]
        title = f"{scope}: {first}" if scope else first[0].upper() + first[1:]
        yield Condition(
            KINDS[found.alarm],
            found.scope,
            title=title,
            size=found.size,
            lines=(f"{found.size}.", *also, *found.lines, *_parts(found, findings), *done_lines(found, follow)),
            marks={_titled(scope, what): _titled(scope, f"no longer: {what}") for what in found.what},
            commands=(_shown(found), *proposed_commands(found, follow)),
        )


def _titled(scope: str, what: str) -> str:
    return f"{scope}: {what}" if scope else what


def _parts(found: Finding, findings: Sequence[Finding]) -> Iterator[str]:
    """The features and tenants of an alarm of all jobs."""
    parts = [one_line(each.scope, LONGEST_NAME) for each in findings if each.alarm is found.alarm and each.name]
    if parts and not found.name:
        more = f" and {len(parts) - FIRST} more" if len(parts) > FIRST else ""
        yield f"So it is for {', '.join(parts[:FIRST])}{more}."


def _shown(found: Finding) -> str:
    """The command that shows its scope."""
    return f"failover slo show --{found.dimension} {shlex.quote(found.name)}" if found.name else "failover slo show"
