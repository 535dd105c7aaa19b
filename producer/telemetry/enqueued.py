"""The span of handing in a job, and how its context gets into the job."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from producer.job import LLMJob
from producer.telemetry.context import TRACEPARENT, SpanContext, active_span, parse
from producer.telemetry.recorder import Recorder
from producer.telemetry.spans import SEND, copy_of, failed, fill, place

Job = tuple[LLMJob, str | None]


class Sending:
    """The spans of one submission. `jobs`: what is sent in place of the jobs, each with its context."""

    def __init__(self, recorder: Recorder, jobs: Sequence[Job], queue: str) -> None:
        self._recorder, self._queue, self._began = recorder, queue, time.time_ns()
        self._like = Span(name=f"send {queue}", kind=SEND, flags=1)
        attributes = self._like.attributes
        fill(attributes, (("messaging.system", "failover-worker"), ("messaging.destination.name", queue)))
        fill(attributes, (("messaging.operation.type", "send"), ("messaging.operation.name", "send")))
        above = active_span()
        self._spans = [self._context(job, above) for job, _ in jobs]
        self.jobs = [(within(job, own), job_id) for (job, job_id), (own, _) in zip(jobs, self._spans, strict=True)]

    def _context(self, job: LLMJob, above: SpanContext | None) -> tuple[SpanContext, bytes]:
        """The span's own context, and its parent's id."""
        parent = parse(job.metadata.get(TRACEPARENT)) or above
        trace_id = parent.trace_id if parent else os.urandom(16)
        sampled = self._recorder.settings.sampling.of(trace_id, parent.sampled if parent else None)
        return SpanContext(trace_id, os.urandom(8), sampled), parent.span_id if parent else b""

    def ended(self, receipts: Sequence[tuple[str, str]]) -> None:
        """`receipts`: (job id, accepted | duplicate | conflict) of each job."""
        now = time.time_ns()
        for (job, _), (context, parent), (job_id, outcome) in zip(self.jobs, self._spans, receipts, strict=True):
            if not context.sampled:
                continue
            span = copy_of(self._like)
            place(span, context.trace_id, context.span_id, parent, self._began, now)
            own = (("messaging.message.id", job_id), ("failover.outcome", outcome), ("user_id", job.user_id))
            fill(span.attributes, own)
            self._recorder.tag(span, job.tenant_id, job.feature, job.job_type)
            if outcome == "conflict":
                failed(span, outcome)
            self._recorder.put(span)


def within(job: LLMJob, context: SpanContext) -> LLMJob:
    """The job as part of a trace."""
    return job.model_copy(update={"metadata": {**job.metadata, TRACEPARENT: context.header}})
