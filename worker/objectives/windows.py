"""Takes out of the history what objectives leave out: maintenance windows and abuse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import redis

from producer import keyspace
from producer.scripts import ask
from worker.history.collector import HOUR_MS, MINUTE_MS
from worker.history.document import ALL, Document
from worker.history.read import Slice
from worker.objectives.policy import SloPolicy


def measured(client: redis.Redis, policy: SloPolicy, read: Iterable[Slice]) -> Iterator[Slice]:
    """The slices without what is left out. A maintenance window that was written down after it began is left out of minutes
    only: an hour has apart what the workers knew to be maintenance when they counted it."""
    for each in read:
        if each.length_ms == MINUTE_MS and policy.maintained(each.begin_ms // MINUTE_MS):
            yield replace(each, document=Document())
            continue
        if each.length_ms == HOUR_MS and _touched(each, policy):
            (found,) = ask(client, [("MGET", keyspace.maintained_hour(each.begin_ms // HOUR_MS))])
            each.document.remove(Document.unpacked(found[0]))
        _remove_abuse(each, policy)
        yield each


def _touched(hour: Slice, policy: SloPolicy) -> bool:
    """Whether a maintenance window lies in this hour, in part or as a whole."""
    begin, end = hour.begin_ms / 1000, (hour.begin_ms + hour.length_ms) / 1000
    return any(w.begin.timestamp() < end and begin < w.end.timestamp() for w in policy.maintenance.windows)


def _remove_abuse(each: Slice, policy: SloPolicy) -> None:
    """Remove tenants whose traffic is left out at this time. Features are counted apart from tenants, so theirs stay."""
    at = each.begin_ms / 1000
    for tenant in {a.tenant for a in policy.abuse if a.begin.timestamp() <= at < a.end.timestamp()}:
        if (theirs := each.document.facts["tenant"].pop(tenant, None)) is not None:
            each.document.of(ALL, "").remove(theirs)
