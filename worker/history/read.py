"""Reads the history back: what happened in a window, in all or of one feature, tenant, route or provider."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import redis

from producer import keyspace
from producer.scripts import ask
from worker.history.collector import HOUR_MS, HOURS_KEPT_SECONDS, MINUTE_MS, MINUTES_KEPT_SECONDS
from worker.history.document import Document, Facts

PAGE = 200  # documents that are read at once
BY_MINUTES_MS = 4 * HOUR_MS  # a shorter window is read by minutes


@dataclass(frozen=True)
class Slice:
    """What happened from `begin_ms` on (Unix time), for `length_ms`."""

    begin_ms: int
    length_ms: int
    document: Document


def slices(client: redis.Redis, since_ms: int, until_ms: int) -> Iterator[Slice]:
    """The minutes (of a window up to four hours in the last two days) or hours from `since_ms` up to `until_ms`, in order,
    also those in which nothing happened. Times are Unix milliseconds."""
    (seconds, _) = ask(client, [("TIME",)])[0]
    now_ms = int(seconds) * 1000
    by_minutes = until_ms - since_ms <= BY_MINUTES_MS and now_ms - since_ms <= MINUTES_KEPT_SECONDS * 1000
    length = MINUTE_MS if by_minutes else HOUR_MS
    since_ms = max(since_ms, now_ms - HOURS_KEPT_SECONDS * 1000)
    return numbered(client, range(since_ms // length, until_ms // length + 1), length)


def numbered(
    client: redis.Redis, numbers: Sequence[int], length_ms: int, times: Container[str] | None = None
) -> Iterator[Slice]:
    """The minutes or hours (`length_ms`: MINUTE_MS, HOUR_MS) with these numbers, which count from 1970. `times`: only these
    histograms; None: all."""
    key = keyspace.minute if length_ms == MINUTE_MS else keyspace.hour
    for begin in range(0, len(numbers), PAGE):
        some = numbers[begin : begin + PAGE]
        (raws,) = ask(client, [("MGET", *(key(number) for number in some))])
        for number, raw in zip(some, raws, strict=True):
            yield Slice(number * length_ms, length_ms, Document.unpacked(raw, times))


def facts_of(found: Sequence[Slice], dimension: str, name: str) -> list[Facts]:
    """The facts of one name in each slice."""
    return [each.document.facts[dimension].get(name) or Facts() for each in found]
