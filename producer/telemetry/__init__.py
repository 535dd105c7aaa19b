"""Telemetry: traces and metrics of jobs, for OpenTelemetry, Langfuse and Helicone. It is off until an environment variable
turns it on (settings.py), and then loads what it needs; until then it loads nothing.

One recorder serves a process, as OpenTelemetry has it: whoever hands in a job need not know of it.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from producer.telemetry.context import TRACEPARENT, active_span
from producer.telemetry.settings import Settings

if TYPE_CHECKING:
    from producer.environment import Environment
    from producer.job import LLMJob
    from producer.telemetry.enqueued import Sending
    from producer.telemetry.recorder import Recorder

log = logging.getLogger("failover.telemetry")

_recorder: Recorder | None = None
CLOSE_SECONDS = 2.0


def _warn(problem: str) -> None:
    log.warning("telemetry: something cannot be used", extra={"problem": problem})


def start(
    environment: Environment,
    service: str,
    options: Callable[[str], dict[str, Any]] = lambda _url: {},
    tell: Callable[[str], None] = _warn,
) -> None:
    """Record from now on, if the environment says so; again, it changes nothing. `service`: the program's name. `options`: what
    a client of httpx needs for calls to a URL; by default what the process environment says of proxies and certificates.
    `tell` hears what is wrong: telemetry never keeps a program from working."""
    global _recorder
    if _recorder is not None or (settings := Settings.of(environment)) is None:
        return
    for problem in settings.problems:
        tell(problem)
    if not settings.destinations:
        return
    try:
        from producer.telemetry.recorder import Recorder

        _recorder = Recorder(settings, service, options)
    except ImportError as error:
        tell(f"telemetry is off, {error.name} is not installed: pip install 'failover-worker[otel]'")
        return
    except Exception:  # protobuf raises errors of its own where two versions of it meet
        log.exception("telemetry is off: it cannot be loaded")
        return
    atexit.register(stop)
    log.info("telemetry", extra={"to": [each.name for each in settings.destinations], "content": settings.content})


def _forked() -> None:
    if _recorder is not None:
        _recorder.begin()


os.register_at_fork(after_in_child=_forked)


def current() -> Recorder | None:
    """What this process records to; None while telemetry is off."""
    return _recorder


def stop(seconds: float = CLOSE_SECONDS) -> None:
    """Send what waits, for at most so many seconds, and record no more."""
    global _recorder
    ending, _recorder = _recorder, None
    atexit.unregister(stop)
    if ending is not None:
        ending.close(seconds)


def sending(jobs: Sequence[tuple[LLMJob, str | None]], queue: str) -> Sending | None:
    """The spans of a submission, which begins now; None while telemetry is off."""
    if _recorder is None:
        return None
    from producer.telemetry.enqueued import Sending

    return Sending(_recorder, jobs, queue)


def in_active_trace(jobs: Sequence[tuple[LLMJob, str | None]]) -> Sequence[tuple[LLMJob, str | None]]:
    """The jobs as part of the trace that the calling program has open, if it uses OpenTelemetry itself. A job that names a
    trace keeps it."""
    if (context := active_span()) is None:
        return jobs
    mine = {TRACEPARENT: context.header}
    return [(job.model_copy(update={"metadata": mine | job.metadata}), job_id) for job, job_id in jobs]
