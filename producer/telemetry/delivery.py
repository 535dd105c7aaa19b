"""Sends spans and metrics from a thread of its own. However a receiver behaves, no job waits for it.

What waits is bounded; more is dropped, counted, and said once, as are a receiver's failures.
"""

from __future__ import annotations

import gzip
import logging
import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from producer.errors import FailoverError
from producer.telemetry.settings import Destination, Settings
from producer.telemetry.spans import Batch

log = logging.getLogger("failover.telemetry")

MOST_CONTENT = 16_000_000  # characters of prompts and answers that wait
LONGEST_PAUSE_SECONDS = 60.0  # before a receiver that failed is asked again
SOON = frozenset({408, 429, 502, 503, 504})  # OTLP: the same request may succeed later
PROTOBUF, JSON = "application/x-protobuf", "application/json"

Bodies = Callable[[Batch], Iterator[bytes]]
Options = Callable[[str], dict[str, Any]]  # what a client of httpx needs for calls to a URL: proxy, certificates


class Delivery:
    """To one destination. `options`: how calls leave this machine. `bodies`: the requests for a batch. `flush`: called before it
    looks for batches. `metrics`: returns the body of a request of metrics; b"" if there are none."""

    def __init__(
        self,
        to: Destination,
        settings: Settings,
        options: Options,
        bodies: Bodies,
        flush: Callable[[], None],
        metrics: Callable[[], bytes],
    ) -> None:
        self._to, self._settings, self._options = to, settings, options
        self._bodies, self._flush, self._metrics = bodies, flush, metrics
        self._waiting: deque[Batch] = deque()
        self.dropped = 0  # spans
        self._trouble = self._full = False  # told already
        self._wake, self._closing = threading.Event(), False
        self._metrics_at = time.monotonic() + settings.metrics_every
        self._thread = threading.Thread(target=self._run, name=f"telemetry to {to.name}", daemon=True)
        self._thread.start()

    def put(self, batch: Batch) -> None:
        """Take a batch; it never waits. If too much waits already, the batch is dropped."""
        if not self._to.traces:
            return
        content = batch.content + sum(each.content for each in list(self._waiting))
        if self.waiting + len(batch) > self._settings.spans or content > MOST_CONTENT:
            self.dropped += len(batch)
            if not self._full and not self._trouble:
                log.warning("telemetry is dropped: spans come faster than they are taken", extra={"to": self._to.name})
            self._full = True
            return
        self._waiting.append(batch)
        self._wake.set()

    @property
    def waiting(self) -> int:
        """Spans that are not sent yet."""
        return sum(map(len, list(self._waiting)))

    def ask_to_close(self) -> None:
        """Send what waits, once."""
        self._closing = True
        self._wake.set()

    def close(self, seconds: float) -> None:
        """Wait for that, at most so long; then say how much was dropped."""
        self._thread.join(seconds)
        if left := self.dropped + self.waiting:
            log.warning("telemetry was dropped", extra={"to": self._to.name, "spans": left})

    def _run(self) -> None:
        try:
            options = self._options(self._to.traces or self._to.metrics) | self._trust()
        except (OSError, FailoverError) as error:  # ssl.SSLError is one
            variables = "OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE or _CLIENT_KEY"
            problem = str(error) if isinstance(error, FailoverError) else f"{variables}: {error.strerror or error}"
            log.warning("telemetry: something cannot be used", extra={"problem": problem})
            return
        try:
            with httpx.Client(**options, timeout=self._to.timeout) as client:
                self._deliver(client)
        except Exception:
            log.exception("telemetry ends: a fault of failover-worker", extra={"to": self._to.name})

    def _trust(self) -> dict[str, ssl.SSLContext]:
        """The certificates that are for this destination alone. Raises OSError."""
        if not self._to.certificate and self._to.identity is None:
            return {}
        context = ssl.create_default_context(cafile=self._to.certificate or None)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as in worker/network.py
        if self._to.identity is not None:
            context.load_cert_chain(*self._to.identity)
        return {"verify": context}

    def _deliver(self, client: httpx.Client) -> None:
        closing = False
        while not closing:
            self._wake.wait(max(0.0, min(self._settings.delay, self._metrics_at - time.monotonic())))
            if not self._wake.is_set():
                self._flush()
            self._wake.clear()
            closing = self._closing
            self._send_spans(client)
            if closing or time.monotonic() >= self._metrics_at:
                self._metrics_at = time.monotonic() + self._settings.metrics_every
                self._send_metrics(client)

    def _send_spans(self, client: httpx.Client) -> None:
        while self._waiting:
            batch = self._waiting[0]  # it counts as waiting until it is sent
            for body in self._bodies(batch):
                if not self._insist(client, body):
                    self.dropped += len(batch)
                    break
            self._waiting.popleft()

    def _insist(self, client: httpx.Client, body: bytes) -> bool:
        """Send it, and again while that may help. Meanwhile new spans wait, as far as there is room. Whether it was taken."""
        pause = 1.0
        while (after := self._post(client, self._to.traces, body)) is not None:
            if after < 0 or self._closing:
                return False
            self._wait(max(after, min(pause, LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)))  # noqa: S311 - jitter
            pause *= 2
        return True

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._closing and (left := until - time.monotonic()) > 0:
            self._wake.wait(left)
            self._wake.clear()

    def _send_metrics(self, client: httpx.Client) -> None:
        if self._to.metrics and (body := self._metrics()):
            self._post(client, self._to.metrics, body)  # if it fails: the next ones hold these too

    def _post(self, client: httpx.Client, url: str, body: bytes) -> float | None:
        """None: taken. Else in how many seconds it may be sent again; negative: never."""
        form = PROTOBUF if self._to.form == "otlp" else JSON
        headers = {**self._to.headers, "content-type": form, "user-agent": "failover-worker"}
        if self._to.gzip:
            body, headers["content-encoding"] = gzip.compress(body, 1), "gzip"
        try:
            response = client.post(url, content=body, headers=headers)
        except (httpx.HTTPError, OSError) as error:
            self._fails(url, type(error).__name__)
            return 0.0
        if response.is_success:
            self._works(response)
            return None
        self._fails(url, f"HTTP {response.status_code}")
        wait = response.headers.get("retry-after", "")
        after = min(float(wait), LONGEST_PAUSE_SECONDS) if wait.isdecimal() else 0.0
        return after if response.status_code in SOON else -1.0

    def _fails(self, url: str, why: str) -> None:
        if not self._trouble:
            fix = "check the endpoint and its key (docs/telemetry.md); this is said once"
            facts = {"to": self._to.name, "url": url.partition("?")[0], "why": why, "fix": fix}
            log.warning("telemetry is not taken; jobs are not affected", extra=facts)
        self._trouble = True

    def _works(self, response: httpx.Response) -> None:
        if self._trouble:
            log.info("telemetry is taken again", extra={"to": self._to.name, "dropped_spans": self.dropped})
        self._trouble = False
        if self._to.form == "otlp" and response.content and response.headers.get("content-type") == PROTOBUF:
            try:
                self.dropped += ExportTraceServiceResponse.FromString(response.content).partial_success.rejected_spans
            except DecodeError:
                return
