"""`failover demo`: a batch on this machine alone, through an outage, with a summary at the end.

The map has the SOP's four routes; the simulator plays their providers over real HTTP. Events depend on the number of done
jobs: the hot provider goes down, then the first warm one reaches its rate limit, then the hot provider is back.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from ops.commands.batch.run import Submitted, submit
from ops.commands.batch.source import Source
from ops.local import embedded, session
from ops.simulators import provider
from producer import JobResult, Producer, keyspace
from producer.batch import BadLine
from producer.connection import connect
from producer.environment import packaged
from producer.errors import UsageError
from producer.job import JobStatus
from producer.policy import load_policies
from producer.scripts import ask
from producer.trail import Planned, Rejection
from worker.breakers.local import Rules
from worker.configuration import Configuration
from worker.humanize import many
from worker.routes.route import read_routes

SLOTS = 4
RULES = Rules(cooldown_seconds=2.0, longest_cooldown_seconds=2.0)  # of the breakers; 30 to 120 s in a real worker
LATENCY = (0.25, 0.55)
LOOK_EVERY_SECONDS = 0.05
UPSTREAMS = ("sonnet", "haiku", "openai", "google")


@dataclass(frozen=True)
class Verdict:
    """The counts of a demo, from the batch file, from Redis and from the simulated providers."""

    jobs: int
    done: int
    dead: int
    lost: int
    double: int
    by_route: dict[str, int]
    failed_attempts: int
    answers_paid: int
    seconds: float

    @property
    def passed(self) -> bool:
        return self.done == self.jobs and self.lost == 0 and self.double == 0 and len(self.by_route) > 1


def run(*, as_json: bool = False) -> int:
    """Run the demo. Returns the exit code."""
    folder = session.FOLDER / "demo"
    say = (lambda _: None) if as_json else click.echo
    with _locked(folder), embedded.scratch(folder) as url, provider.running() as providers:
        for upstream in UPSTREAMS:
            providers.behave(upstream, latency=LATENCY)
        routes = read_routes(_routes_file(folder, providers), {})
        policies = load_policies({})
        with connect(url) as client:
            client.flushdb()  # of the demo's own server
            producer = Producer(client, policies)
            say(f"an embedded Valkey, four simulated providers, one failover-worker with {SLOTS} slots")
            began = time.monotonic()
            lines = Source(packaged("examples/batch.jsonl"))
            submitted = submit(producer, lines, job_type="batch", tenant="demo")
            say(f"{many(len(submitted.job_ids), 'job')} accepted from examples/batch.jsonl\n")
            with session.own_worker(url, Configuration(policies, routes), slots=SLOTS, rules=RULES):
                _wait_with_events(producer, submitted.job_ids, providers, say)
            results = [result for result in producer.fetch_many(submitted.job_ids) if result is not None]
            seconds = time.monotonic() - began
            verdict = _judge(producer, submitted.job_ids, results, providers, seconds)
    if as_json:
        click.echo(json.dumps({**asdict(verdict), "passed": verdict.passed}, indent=2))
    else:
        _report(submitted, results, verdict)
    return 0 if verdict.passed else 1


def _wait_with_events(
    producer: Producer, job_ids: list[str], providers: provider.Control, say: Callable[[str], object]
) -> None:
    """Wait for all jobs, and change the providers when certain numbers of jobs are done."""
    outage: dict[str, Any] = {"status": 503, "latency": (0.02, 0.05)}
    limit: dict[str, Any] = {"status": 429, "retry_after": "30", "latency": (0.02, 0.05)}
    healthy: dict[str, Any] = {"latency": LATENCY}
    total = len(job_ids)
    story = [
        (total // 4, "anthropic is down: both hot routes answer 503", {"sonnet": outage, "haiku": outage}),
        (total // 2, "openai is at its rate limit: 429, Retry-After 30 s", {"openai": limit}),
        (total * 5 // 8, "anthropic is back", {"sonnet": healthy, "haiku": healthy}),
    ]
    began = time.monotonic()
    waiting = job_ids
    while waiting:
        ended = producer.ended(waiting)
        waiting = [job_id for job_id, has_ended in zip(waiting, ended, strict=True) if not has_ended]
        while story and total - len(waiting) >= story[0][0]:
            _, event, changes = story.pop(0)
            say(f"{time.monotonic() - began:5.1f} s  {total - len(waiting):2} of {total} done: {event}")
            for upstream, behaviour in changes.items():
                providers.behave(upstream, **behaviour)
        time.sleep(LOOK_EVERY_SECONDS)
    say(f"{time.monotonic() - began:5.1f} s  {total} of {total} ended\n")


def _judge(
    producer: Producer, job_ids: list[str], results: list[JobResult], providers: provider.Control, seconds: float
) -> Verdict:
    stored = ask(producer.client, [("XLEN", keyspace.results(job_id)) for job_id in job_ids])
    accounts = [providers.account(upstream) for upstream in UPSTREAMS]
    ended = [result for result in results if result.status.ended]
    attempts = [entry for result in results for entry in result.attempted]
    return Verdict(
        jobs=len(job_ids),
        done=sum(result.status is JobStatus.DONE for result in results),
        dead=sum(result.status is JobStatus.DEAD for result in results),
        lost=len(job_ids) - len(ended),
        double=sum(count > 1 for count in stored),
        by_route=dict(Counter(result.route for result in results if result.route)),
        failed_attempts=sum(attempt.outcome != "ok" for attempt in attempts),
        answers_paid=sum(account["answered"] for account in accounts),
        seconds=round(seconds, 1),
    )


def _report(submitted: Submitted, results: list[JobResult], verdict: Verdict) -> None:
    names = {entry.job_id: entry.custom_id for entry in submitted.entries if not isinstance(entry, BadLine)}
    width = shutil.get_terminal_size((110, 24)).columns
    click.echo(f"{'job':29}{'answered by':16}{'tier':5}{'attempts':>8}{'ms':>6}  before")
    for result in results:
        route = (result.route or f"{result.status}: {result.dead_reason}").rpartition("/")[2]
        line = f"{names[result.job_id]:29}{route:16}{result.tier or '':5}{result.attempts:8}{result.run_ms or 0:6}"
        click.echo(f"{line}  {_before(result)}".rstrip()[:width])
    click.echo()
    for route, count in verdict.by_route.items():
        click.echo(f"{count:4} answered by {route}")
    click.echo(
        f"\n{verdict.jobs} jobs in {verdict.seconds} s: {verdict.done} done, {verdict.dead} dead, "
        f"{verdict.lost} lost, {verdict.double} double\n{verdict.failed_attempts} failed attempts, "
        f"{verdict.answers_paid} answers paid for"
    )
    click.echo("a real run: set a provider's key, and `failover init`")


def _before(result: JobResult) -> str:
    """The routes that did not answer, in short: their error, or why they were not called."""
    story: Counter[str] = Counter()
    for entry in result.trail:
        if isinstance(entry, Planned):
            continue
        model = entry.route.partition("/")[2]
        if isinstance(entry, Rejection):
            story[f"{model} {entry.rejected.removeprefix('breaker ').partition(',')[0].partition(' for ')[0]}"] += 1
        elif entry.outcome != "ok":
            story[f"{model} {entry.status or entry.outcome}"] += 1
    return ", ".join(what if times == 1 else f"{what} x{times}" for what, times in story.items())


def _routes_file(folder: Path, providers: provider.Control) -> Path:
    """The SOP's routing map, with the base URLs of simulated providers."""

    def route(provider: str, model: str, upstream: str) -> dict[str, str]:
        return {"provider": provider, "model": model, "baseUrl": providers.base_url(upstream), "apiKeyEnv": ""}

    hot = [route("anthropic", "sonnet-4.6", "sonnet"), route("anthropic", "haiku-4.5", "haiku")]
    warm = [route("openai", "gpt-4o-mini", "openai"), route("google", "gemini-3-flash", "google")]
    path = folder / "routes.json"
    path.write_text(json.dumps({"hot": hot, "warm": warm}, indent=2))
    return path


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A lock: two demos at once would share a server, and each deletes its data."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "demo.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another demo runs in {folder.resolve()} — wait until it ends") from None
        yield
