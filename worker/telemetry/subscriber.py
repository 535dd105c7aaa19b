"""One execution as spans: the execution itself, and each call to a provider below it.

All of them are made when the execution ends. The span of an execution has an id that follows from the job's id and the
number of the execution, so the next one refers to it from whatever worker, also after a crash: of an execution whose worker
vanished, the next one tells, because nobody else can.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from producer.errors import InvalidJob
from producer.job import ForeignJob, LLMJob, NewerSchema, decode_job
from producer.telemetry.context import TRACEPARENT, derived, parse
from producer.telemetry.recorder import Recorder
from producer.telemetry.settings import Settings
from producer.telemetry.spans import copy_of, fill, link, place, put
from producer.trail import Attempt
from worker.events import Event, EventKind, Hooks
from worker.routes.route import Route
from worker.telemetry.content import input_messages, output_messages
from worker.telemetry.metrics import Metrics
from worker.telemetry.templates import Call, For, Process, Templates

USES_IT_UP = frozenset({EventKind.DONE.value, EventKind.DEAD.value, EventKind.RETRIED.value})  # the execution's number
FAILURES = frozenset({EventKind.DEAD.value, EventKind.RETRIED.value, EventKind.FENCED.value})
CRASHED = "crashed"
NANO = 10**9


def subscribe(hooks: Hooks, recorder: Recorder, routes: Callable[[], Sequence[Route]]) -> None:
    """Record every execution. `routes`: those of the configuration now."""
    executions = Executions(recorder, routes)
    recorder.metrics = executions.metrics.request
    hooks.subscribe(executions.tell, [EventKind.EXECUTED])


class Executions:
    """The spans of one worker's executions."""

    def __init__(self, recorder: Recorder, routes: Callable[[], Sequence[Route]]) -> None:
        self._recorder, self._settings = recorder, recorder.settings
        self._templates = Templates(recorder, routes)
        self.metrics = Metrics(recorder, self._templates.labels)

    def tell(self, event: Event) -> None:
        """Make the spans of an execution that ended, and count its calls."""
        facts: Mapping[str, Any] = event.facts
        job = _read(facts) if self._settings.content or not facts["tenant"] else None
        if job is not None:
            facts = {**facts, "tenant": job.tenant_id, "user": job.user_id, "feature": job.feature}
            facts |= {"job_type": job.job_type, "traceparent": job.metadata.get(TRACEPARENT, "")}
        answer = Answer(facts["attempts"], facts["completion"])
        parent = parse(facts["traceparent"])
        trace_id = parent.trace_id if parent else derived(event.job_id, 16)
        if self._settings.sampling.of(trace_id, parent.sampled if parent else None):
            trace = _Trace(event.job_id, facts, trace_id, parent.span_id if parent else b"", self._templates)
            own, spans = trace.of_execution(round(event.at * NANO))
            calls = trace.of_calls(own, answer)
            if self._settings.langfuse:
                _tell_langfuse([*spans, *calls], calls, facts)
            content = _tell_content(calls, job, answer, self._settings) if self._settings.content and job else 0
            for span in spans:
                self._recorder.put(span)
            for span in calls:
                self._recorder.put(span, content)
        for attempt in facts["attempts"]:
            self.metrics.add(attempt, answer.model if attempt is answer.attempt else "")


class Answer:
    """The call that brought the job's answer, and what the answer says of itself; None and "" where there is no answer.
    `ends`: the finish reason of each choice."""

    def __init__(self, attempts: Sequence[Attempt], completion: Mapping[str, Any] | None) -> None:
        ended = attempts[-1] if attempts and completion else None
        self.attempt = ended if ended is not None and ended.outcome == "ok" else None
        self.completion = completion if completion and self.attempt is not None else {}
        self.model, self.id = self._text("model"), self._text("id")
        choices = self.completion.get("choices") or ()
        self.ends = tuple([str(each.get("finish_reason") or "error")[:50] for each in choices])

    def _text(self, name: str) -> str:
        value = self.completion.get(name)
        return value[:200] if isinstance(value, str) else ""


NO_ANSWER = Answer((), None)


class _Trace:
    """One execution's part of its job's trace. `above`: the id of the span that handed in the job."""

    def __init__(
        self, job_id: str, facts: Mapping[str, Any], trace_id: bytes, above: bytes, templates: Templates
    ) -> None:
        self._job_id, self._trace_id, self._above = job_id, trace_id, above
        self._facts, self._templates = facts, templates
        self._began = round(facts["claimed_at"] * NANO)
        self._for: For = (facts["tenant"], facts["feature"], facts["job_type"])

    def of_execution(self, ended: int) -> tuple[bytes, list[Span]]:
        """The id of its span, and the span; with those of the executions just before it that could not tell of themselves."""
        facts, number, outcome = self._facts, self._facts["execution"], self._facts["outcome"]
        own = self._numbered(number) if outcome in USES_IT_UP else derived(facts["lease"], 8)
        reason = (facts["reason"] or outcome) if outcome in FAILURES else ""
        final = (facts["route"], facts["provider"], facts["model"], facts["cache_hit"])
        span = self._execution(Process(facts["queue"], number, outcome, reason, final, self._for), own, ended)
        spans = [span]
        fill(
            span.attributes,
            (("messaging.message.id", self._job_id), ("user_id", facts["user"])),
            (
                ("failover.waited_ms", facts["waited_ms"]),
                ("latency_ms", facts["latency_ms"]),
                ("input_tokens", facts["input_tokens"]),
                ("output_tokens", facts["output_tokens"]),
            ),
            facts["cost_usd"],
        )
        for crashed in range(
            max(1, number - facts["crashed_before"]), number
        ):  # nobody knows when their workers vanished
            like = Process(facts["queue"], crashed, CRASHED, CRASHED, (), self._for)
            span = self._execution(like, self._numbered(crashed), self._began)
            fill(span.attributes, (("messaging.message.id", self._job_id), ("user_id", facts["user"])))
            spans.append(span)
        return own, spans

    def _execution(self, like: Process, own: bytes, ended: int) -> Span:
        span = copy_of(self._templates.process(like))
        place(span, self._trace_id, own, self._above, self._began, ended)
        if like.number > 1:
            link(span, self._trace_id, self._numbered(like.number - 1), "next execution")
        return span

    def _numbered(self, number: int) -> bytes:
        """The id of the span of an execution, by its number among those of the job."""
        return derived(f"{self._job_id}:{number}", 8)

    def of_calls(self, execution: bytes, answer: Answer) -> list[Span]:
        """One span for each call, in their order."""
        spans: list[Span] = []
        before: tuple[bytes, str] | None = None
        for attempt in self._facts["attempts"]:
            own = os.urandom(8)
            span = self._call(attempt, answer if attempt is answer.attempt else NO_ANSWER)
            at = attempt.at_ms * 10**6  # clocks are read to the millisecond: no call began before its execution
            place(span, self._trace_id, own, execution, max(self._began, at), at + attempt.ms * 10**6)
            if before is not None:
                link(span, self._trace_id, before[0], "retry" if before[1] == attempt.route else "failover")
            before = own, attempt.route
            spans.append(span)
        return spans

    def _call(self, attempt: Attempt, answer: Answer) -> Span:
        like = Call(attempt.route, attempt.outcome, attempt.status, answer.model, answer.ends, self._for)
        span = copy_of(self._templates.call(like))
        fill(
            span.attributes,
            (("gen_ai.response.id", answer.id), ("user_id", self._facts["user"])),
            (
                ("gen_ai.usage.input_tokens", attempt.prompt_tokens),
                ("gen_ai.usage.output_tokens", attempt.completion_tokens),
                ("input_tokens", attempt.prompt_tokens),
                ("output_tokens", attempt.completion_tokens),
                ("latency_ms", attempt.ms),
            ),
            attempt.cost_usd,
        )
        if attempt.first_token_ms is not None:
            put(span.attributes, "gen_ai.request.stream", True)
            put(span.attributes, "gen_ai.response.time_to_first_chunk", attempt.first_token_ms / 1000)
        return span


def _tell_langfuse(spans: Sequence[Span], calls: Sequence[Span], facts: Mapping[str, Any]) -> None:
    """User and costs, as Langfuse reads them."""
    for span in spans:
        put(span.attributes, "langfuse.user.id", facts["user"])
    for span, attempt in zip(calls, facts["attempts"], strict=True):
        if attempt.cost_usd is not None:
            put(span.attributes, "langfuse.observation.cost_details", f'{{"total": {attempt.cost_usd}}}')


def _tell_content(calls: Sequence[Span], job: LLMJob, answer: Answer, settings: Settings) -> int:
    """Prompt and answer, under the names of the conventions and, if so, of Langfuse. Returns their characters in each call."""
    asked, told = input_messages(job.body["messages"]), output_messages(answer.completion) if answer.attempt else ""
    for span in calls:
        texts = (("input", asked), ("output", told if span is calls[-1] else ""))
        fill(span.attributes, [(f"gen_ai.{name}.messages", text) for name, text in texts])
        if settings.langfuse:
            fill(span.attributes, [(f"langfuse.observation.{name}", text) for name, text in texts])
    return len(asked) + len(told)


def _read(facts: Mapping[str, Any]) -> LLMJob | None:
    """The job, where the outcome does not say whose it is, or where its messages are wanted; None if it cannot be read."""
    try:
        return decode_job(facts["data"])
    except (ForeignJob, InvalidJob, NewerSchema):
        return None
