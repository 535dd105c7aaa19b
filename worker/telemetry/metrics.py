"""Metrics of calls, by the conventions for generative AI: sums are kept here, and sent once a minute.

https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/client-inference.md. The names of the release
before (gen_ai.client.operation.duration, gen_ai.client.token.usage) hold the same numbers.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from producer.telemetry.recorder import Recorder
from producer.telemetry.spans import Value, put
from producer.trail import Attempt
from worker.telemetry.templates import Labels

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = tuple(float(4**power) for power in range(14))
SERIES = 2000  # of calls with different attributes; all further ones are counted as one
OVERFLOW = ("", "", "")


class Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Calls:
    """The calls with the same attributes, `labels`."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.seconds, self.first = Histogram(SECONDS), Histogram(SECONDS)
        self.input, self.output = Histogram(TOKENS), Histogram(TOKENS)


class Metrics:
    """One worker's. `labels`: the attributes of calls on a route, by its name."""

    def __init__(self, recorder: Recorder, labels: Callable[[str], Labels]) -> None:
        self._recorder, self._labels, self._lock = recorder, labels, threading.Lock()
        self._series: dict[tuple[str, str, str], Calls] = {}  # by route, outcome and the model that answered
        self._since = time.time_ns()

    def add(self, attempt: Attempt, model: str) -> None:
        """Count one call. `model`: the one that answered, "" if none did."""
        key = attempt.route, attempt.outcome, model
        tokens = attempt.prompt_tokens, attempt.completion_tokens
        with self._lock:
            calls = self._series.get(key) or self._begin(key)
            calls.seconds.add(attempt.ms / 1000)
            if attempt.first_token_ms is not None:
                calls.first.add(attempt.first_token_ms / 1000)
            if tokens[0] is not None and tokens[1] is not None:
                calls.input.add(tokens[0])
                calls.output.add(tokens[1])

    def _begin(self, key: tuple[str, str, str]) -> Calls:
        route, outcome, model = key
        if len(self._series) >= SERIES:
            return self._series.setdefault(OVERFLOW, Calls((("otel.metric.overflow", True),)))
        told: dict[str, Value] = dict(self._labels(route))
        told |= {"gen_ai.response.model": model, "error.type": outcome if outcome != "ok" else ""}
        return self._series.setdefault(key, Calls(tuple(told.items())))

    def request(self) -> bytes:
        """The body of a request; b"" before the first call."""
        with self._lock:
            if not self._series:
                return b""
            whole = ExportMetricsServiceRequest()
            resource = whole.resource_metrics.add()
            resource.resource.CopyFrom(self._recorder.resource)
            scope = resource.scope_metrics.add()
            scope.scope.CopyFrom(self._recorder.scope)
            now = time.time_ns()
            writer = _Writer(scope.metrics, self._since, now, self._recorder.settings.delta)
            self._write(writer)
            if self._recorder.settings.delta:
                self._series, self._since = {}, now
        body: bytes = whole.SerializeToString()
        return body

    def _write(self, writer: _Writer) -> None:
        series = [(calls.labels, calls) for calls in self._series.values()]
        inference = "gen_ai.client.inference"
        writer.histogram(f"{inference}.duration", "s", ((labels, calls.seconds) for labels, calls in series))
        writer.histogram(f"{inference}.time_to_first_chunk", "s", ((labels, calls.first) for labels, calls in series))
        for kind in ("input", "output"):
            told = [(labels, each) for labels, calls in series if sum((each := getattr(calls, kind)).counts)]
            writer.histogram(f"{inference}.operation.{kind}_tokens", "{token}", told)
            modal = [(_with(labels, "gen_ai.token.modality", "unknown"), each) for labels, each in told]
            writer.counter(f"{inference}.usage.{kind}_tokens", "{token}", modal)
        if self._recorder.settings.older_names:
            both = [
                (_with(labels, "gen_ai.token.type", kind), getattr(calls, kind))
                for labels, calls in series
                for kind in ("input", "output")
            ]
            writer.histogram(
                "gen_ai.client.operation.duration", "s", ((labels, calls.seconds) for labels, calls in series)
            )
            writer.histogram("gen_ai.client.token.usage", "{token}", both)


class _Writer:
    def __init__(self, metrics: Any, since: int, now: int, delta: bool) -> None:
        self._metrics, self._since, self._now = metrics, since, now
        kinds = AggregationTemporality
        self._kind = kinds.AGGREGATION_TEMPORALITY_DELTA if delta else kinds.AGGREGATION_TEMPORALITY_CUMULATIVE

    def histogram(self, name: str, unit: str, series: Iterable[tuple[Labels, Histogram]]) -> None:
        points = [(labels, each) for labels, each in series if sum(each.counts)]
        if not points:
            return
        metric = self._metrics.add(name=name, unit=unit)
        metric.histogram.aggregation_temporality = self._kind
        for labels, each in points:
            point = self._point(metric.histogram.data_points, labels)
            point.count, point.sum = sum(each.counts), each.sum
            point.bucket_counts.extend(each.counts)
            point.explicit_bounds.extend(each.bounds)

    def counter(self, name: str, unit: str, series: Iterable[tuple[Labels, Histogram]]) -> None:
        """The sums of what the histograms hold."""
        points = list(series)
        if not points:
            return
        metric = self._metrics.add(name=name, unit=unit)
        metric.sum.aggregation_temporality, metric.sum.is_monotonic = self._kind, True
        for labels, each in points:
            self._point(metric.sum.data_points, labels).as_int = round(each.sum)

    def _point(self, points: Any, labels: Labels) -> Any:
        point = points.add(start_time_unix_nano=self._since, time_unix_nano=self._now)
        for name, value in labels:
            put(point.attributes, name, value)
        return point


def _with(labels: Labels, name: str, value: str) -> Labels:
    return (*labels, (name, value))
