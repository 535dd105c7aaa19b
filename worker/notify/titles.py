"""The title of an incident: what is wrong, how many jobs, whose. A push message shows nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from worker.humanize import counted, many, one_line
from worker.notify.kinds import KIND_INFO, Kind

if TYPE_CHECKING:
    from worker.notify.incidents import Incident

LONGEST_NAME = 60  # characters of a tenant, in a title
REASONS = 3  # of dead letters, in a title


def title(incident: Incident) -> str:
    """`12 dead letters of acme (exhausted 12)`, `All AI providers are down: 240 jobs wait`."""
    if incident.kind is Kind.DEAD_LETTERS and incident.dead:
        why = f" ({counted(incident.reasons, REASONS)})" if incident.reasons else ""
        return f"{many(incident.dead, 'dead letter')}{_of(incident.tenants)}{why}"
    if incident.kind is Kind.DEGRADED and incident.degraded:
        return f"{many(incident.degraded, 'degraded answer')}{_of(incident.degraded_of)}"
    info = KIND_INFO[incident.kind]
    about = incident.subject or ("".join(tuple(incident.marks)[-1:]) if incident.kind is Kind.REDIS_FULL else "")
    what = incident.what or info.title + (f": {about}" if about else "")
    size = incident.size if incident.resolved_ms is None else ""
    return f"{what}: {size}" if size else what


def late_size(late: int, tenants: Mapping[str, int]) -> str:
    """`12 late of acme`; "" without late jobs."""
    return f"{late:,} late{_of(tenants)}" if late else ""


def _of(tenants: Mapping[str, int]) -> str:
    """` of acme`, ` of acme and 2 other clients`: the one with the most jobs is named."""
    if not tenants:
        return ""
    others = len(tenants) - 1
    named = one_line(next(iter(tenants)), LONGEST_NAME)
    return f" of {named}" + (f" and {many(others, 'other client')}" if others else "")
