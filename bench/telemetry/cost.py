"""`make bench-telemetry`: CPU that traces and metrics cost a job, in the worker process, the sending included.

    python -m bench.telemetry.cost [--jobs 20000]

Per job: the event of an execution with one call to a provider, its two spans, its metrics, and their way to a collector in a
process of its own. Off: what is left of it.
"""

from __future__ import annotations

import argparse
import http.server
import logging
import multiprocessing
import sys
import time
from collections.abc import Sequence
from typing import Any

from producer import telemetry
from producer.job import JobResult, JobStatus
from producer.telemetry.recorder import Recorder
from producer.trail import Attempt
from worker.events import EventKind, Hooks
from worker.memory import collect_rarely
from worker.queue.claim import Claim
from worker.queue.outcome_events import event_of, executed_event
from worker.queue.outcomes import Done, Executed
from worker.queue.transitions import Settled
from worker.routes.prices import Price
from worker.routes.route import Route
from worker.routes.schema import RouteEntry

LIMIT_MS = 0.05
WINDOW = 32  # jobs; the best window counts, because what else runs on the machine makes others slower
PAUSES_AT = 1024  # spans that wait: a real worker is slower than this loop
ENTRY = RouteEntry(
    provider="openai", model="gpt-4o-mini", base_url="https://x.example/v1", price=Price(input=1, output=2)
)
ROUTES: Sequence[Route] = (Route("openai/gpt-4o-mini", "hot", ENTRY, "https://x.example/v1"),)
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
    "usage": {"prompt_tokens": 1150, "completion_tokens": 300, "total_tokens": 1450},
}


def one(hooks: Hooks, number: int) -> None:
    """What a worker does when an execution has ended, as far as it is for telemetry."""
    now = time.time()
    ms = round(now * 1000)
    claim = Claim(f"job-{number}", "e-1", "ai-tasks", ms, b"", ms - 100, ms + 10**6, 0, 0, 0, 0, 0, 0, b"[]", now - 0.8)
    attempt = Attempt(
        execution=1, route=ROUTES[0].name, tier="hot", outcome="ok", ms=780, at_ms=ms - 790, prompt_tokens=1150,
        completion_tokens=300, cost_usd=0.0018,
    )  # fmt: skip
    result = JobResult.model_construct(
        job_id=claim.job_id, status=JobStatus.DONE, completion=COMPLETION, route=ROUTES[0].name, provider="openai",
        model="gpt-4o-mini", tier="hot", attempts=1, run_ms=780, cost_usd=0.0018, trail=[attempt],
    )  # fmt: skip
    traceparent = f"00-{number + 1:032x}-{number + 1:016x}-01"
    executed = Executed(Done(result, 3600), 1, 780, "acme", "faq", 30_000, "user-7", "draft_email", traceparent)
    ended = event_of(claim, executed, Settled.COMMITTED)
    hooks.emit(ended)
    if hooks.wants(EventKind.EXECUTED):
        hooks.emit(executed_event(claim, executed, ended))


def measure(jobs: int, hooks: Hooks, recorder: Recorder | None = None) -> tuple[float, float]:
    """Milliseconds of CPU a job: of the event loop's thread, in its best window; and of the thread that sends, on average."""
    process, own, windows = time.process_time(), time.thread_time(), []
    for first in range(0, jobs, WINDOW):
        began = time.thread_time()
        for number in range(first, first + WINDOW):
            one(hooks, number)
        windows.append(time.thread_time() - began)
        while recorder is not None and recorder.waiting > PAUSES_AT:
            time.sleep(0.001)
    own = time.thread_time() - own
    if recorder is not None:
        recorder.flush()
    while recorder is not None and recorder.waiting:
        time.sleep(0.01)
    return min(windows) * 1000 / WINDOW, (time.process_time() - process - own) * 1000 / jobs


def collect(port: Any) -> None:
    """A collector that takes everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        port.put(server.server_address[1])
        server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=20_000)
    jobs = parser.parse_args().jobs
    logging.basicConfig(level=logging.WARNING)  # what is dropped would be said
    context = multiprocessing.get_context("spawn")
    port = context.Queue()
    collector = context.Process(target=collect, args=(port,), daemon=True)
    collector.start()
    url = f"http://127.0.0.1:{port.get()}"
    telemetry.start({"OTEL_EXPORTER_OTLP_ENDPOINT": url}, "bench")
    recorder, hooks = telemetry.current(), Hooks()
    if recorder is None:
        sys.exit("pip install 'failover-worker[otel]'")
    from worker.telemetry.subscriber import subscribe

    subscribe(hooks, recorder, lambda: ROUTES)
    collect_rarely()  # as a worker does
    (off, _), (making, sending) = measure(jobs, Hooks()), measure(jobs, hooks, recorder)
    telemetry.stop()
    collector.kill()
    on = making - off + sending
    print(f"telemetry  {on:.4f} ms of CPU a job: {making - off:.4f} to make its spans, {sending:.4f} to send them")
    print("passed" if on <= LIMIT_MS else f"failed: more than {LIMIT_MS} ms")
    sys.exit(0 if on <= LIMIT_MS else 1)


if __name__ == "__main__":
    main()
