"""What happened in one minute or hour: counters and histograms, in all and by feature, tenant, route and provider.

A document is stored as compressed JSON: {dimension: {name: [counters, histograms]}}. Of each dimension the names with the
most jobs and calls are kept apart, the others are summed up under `(others)`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from heapq import nlargest

from pydantic_core import from_json, to_json

ALL = "all"
DIMENSIONS = (ALL, "feature", "tenant", "route", "provider")
OTHERS = "(others)"
PEAK = "peak "
COST = "cost in micro-dollars"  # the histogram of what answered jobs cost, among those of times
WEIGHED = (
    "done",
    "dead",
    "resolved",
    "cancelled",
    "discarded",
    "calls",
)  # counters that decide which names are kept apart
NAMES_KEPT = 40  # of a dimension in one document
_GROWTH = math.log(1.04)  # of a bucket: what is read from it is within 2 % of what was counted


def bucket_of(ms: float) -> int:
    """The bucket of a time in milliseconds. Everything below 1 ms is 1 ms."""
    return math.ceil(math.log(ms) / _GROWTH) if ms > 1 else 0


def _middle(bucket: int) -> float:
    """The time that stands for all times of a bucket."""
    return 2 * math.exp(bucket * _GROWTH) / (math.exp(_GROWTH) + 1) if bucket else 1.0


class Histogram:
    """How often each time was counted, in buckets that are 4 % wide. Times in milliseconds; of COST micro-dollars."""

    __slots__ = ("buckets",)

    def __init__(self, buckets: Mapping[int, int] | None = None) -> None:
        self.buckets: dict[int, int] = dict(buckets or {})

    def count(self, bucket: int) -> None:
        """Count a time by its bucket."""
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def add(self, other: Histogram) -> None:
        for bucket, times in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + times

    def remove(self, other: Histogram) -> None:
        """Take away what was counted in `other`, which is a part of this one."""
        for bucket, times in other.buckets.items():
            if (left := self.buckets.get(bucket, 0) - times) > 0:
                self.buckets[bucket] = left
            else:
                self.buckets.pop(bucket, None)

    def over(self, limit: float) -> int:
        """How many of the counted times are longer than `limit` milliseconds, within 2 %."""
        return sum(times for bucket, times in self.buckets.items() if _middle(bucket) > limit)

    @property
    def times(self) -> int:
        """How many times were counted."""
        return sum(self.buckets.values())

    def quantile(self, share: float) -> float | None:
        """The time in milliseconds that `share` (0..1) of the counted ones do not exceed, within 2 %; None without any."""
        left = math.ceil(share * self.times)
        for bucket in sorted(self.buckets):
            left -= self.buckets[bucket]
            if left <= 0:
                return _middle(bucket)
        return None


@dataclass(slots=True)
class Facts:
    """The counters and histograms of one name. Money in micro-dollars. A counter whose name begins with PEAK is the highest
    value that was seen."""

    counters: dict[str, int] = field(default_factory=dict)
    times: dict[str, Histogram] = field(default_factory=dict)

    def count(self, counter: str, more: int = 1) -> None:
        if more:
            before = self.counters.get(counter, 0)
            self.counters[counter] = max(before, more) if counter.startswith(PEAK) else before + more

    def time(self, name: str, bucket: int) -> None:
        """Count a time by its bucket."""
        found = self.times.get(name)
        if found is None:
            found = self.times[name] = Histogram()
        found.count(bucket)

    def add(self, other: Facts) -> None:
        for counter, more in other.counters.items():
            self.count(counter, more)
        for name, histogram in other.times.items():
            self.times.setdefault(name, Histogram()).add(histogram)

    def remove(self, other: Facts) -> None:
        """Take away what was counted in `other`, which is a part of these facts. Peaks stay."""
        for counter, less in other.counters.items():
            if not counter.startswith(PEAK) and counter in self.counters:
                self.counters[counter] = max(0, self.counters[counter] - less)
        for name, histogram in other.times.items():
            if name in self.times:
                self.times[name].remove(histogram)

    def starting(self, prefix: str) -> dict[str, int]:
        """The counters whose names begin so, by the rest of their names, the highest first."""
        found = ((name.removeprefix(prefix), n) for name, n in self.counters.items() if name.startswith(prefix))
        return dict(sorted(found, key=lambda entry: -entry[1]))

    @property
    def failures(self) -> dict[str, int]:
        """Calls that failed, by their outcome, the most frequent first."""
        return {outcome: count for outcome, count in self.starting("attempts ").items() if outcome != "ok"}

    @property
    def weight(self) -> int:
        """How many jobs and calls it stands for."""
        return sum(self.counters.get(name, 0) for name in WEIGHED)


class Document:
    """What happened in one minute or hour."""

    def __init__(self) -> None:
        self.facts: dict[str, dict[str, Facts]] = {dimension: {} for dimension in DIMENSIONS}

    def of(self, dimension: str, name: str) -> Facts:
        """The facts of a name, which is created if it is new."""
        found = self.facts[dimension].get(name)
        if found is None:
            found = self.facts[dimension][name] = Facts()
        return found

    def add(self, other: Document) -> None:
        for dimension, names in other.facts.items():
            for name, facts in names.items():
                self.of(dimension, name).add(facts)

    def remove(self, other: Document) -> None:
        """Take away what happened in `other`, which is a part of this one."""
        for dimension, names in other.facts.items():
            for name, facts in names.items():
                if name in self.facts[dimension]:
                    self.facts[dimension][name].remove(facts)

    def _narrow(self) -> None:
        """Keep the NAMES_KEPT heaviest names of each dimension apart."""
        for dimension, names in self.facts.items():
            if len(names) <= NAMES_KEPT + 1:
                continue
            rest = names.pop(OTHERS, Facts())
            kept = set(nlargest(NAMES_KEPT, names, key=lambda name: names[name].weight))
            for name in [name for name in names if name not in kept]:
                rest.add(names.pop(name))
            self.facts[dimension][OTHERS] = rest

    def packed(self) -> bytes:
        """The document as it is stored."""
        self._narrow()
        data = {
            dimension: {
                name: [facts.counters, {of: histogram.buckets for of, histogram in facts.times.items()}]
                for name, facts in names.items()
            }
            for dimension, names in self.facts.items()
        }
        return zlib.compress(to_json(data), 1)

    @classmethod
    def unpacked(cls, raw: bytes | None, times: Container[str] | None = None) -> Document:
        """A stored document; an empty one if there is none or it cannot be read. `times`: only these histograms, because they
        are most of the work; None: all."""
        document = cls()
        if not raw:
            return document
        try:
            for dimension, names in from_json(zlib.decompress(raw)).items():
                for name, (counters, stored) in names.items():
                    wanted = stored if times is None else [of for of in stored if of in times]
                    histograms = {of: Histogram({int(b): n for b, n in stored[of].items()}) for of in wanted}
                    document.facts[dimension][name] = Facts(counters, histograms)
        except (zlib.error, ValueError, TypeError, KeyError, AttributeError):
            return cls()
        return document


def together(documents: Iterable[Document]) -> Document:
    """The sum of documents."""
    total = Document()
    for document in documents:
        total.add(document)
    return total
