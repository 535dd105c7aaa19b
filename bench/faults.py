"""`make bench-faults`: sixteen faults of providers, each met by a whole worker over real HTTP, with the calls that it made.

    python -m bench.faults [--row NAME]

Two routes: `hot` has the fault, `warm` is well. A row passes when the job ended as expected, where expected, with exactly so
many calls of each route, and the simulator's own count of answers agrees.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench.throughput import wait_until
from ops.local import embedded, session
from ops.simulators import provider
from producer import LLMJob, Producer
from producer.connection import connect, connect_async
from producer.job import ChatBody, JobResult, JobStatus
from producer.policy import Policies, load_policies
from worker.breakers.local import Rules
from worker.breakers.registry import Breakers
from worker.configuration import Configuration
from worker.providers import Providers
from worker.routes.route import Route, read_routes
from worker.routes.schema import RouteEntry
from worker.routing.execution_context import JobContext, Spend
from worker.routing.router import Router

FIRST_TOKEN_SECONDS = 1.0
BOUND_SECONDS = FIRST_TOKEN_SECONDS + 2.0  # the promise for a silent start
TEXT = "The seven seas are one."


@dataclass(frozen=True)
class Row:
    """One fault. `calls`: of hot and of warm. `route` None: the job is dead, for `reason`. Times in seconds."""

    name: str
    hot: dict[str, Any]
    calls: tuple[int, int]
    route: str | None = "warm"
    reason: str | None = None
    streams: bool = False
    within: float | None = None
    body: dict[str, Any] = field(default_factory=dict)
    jobs: int = 1


LONG = [{"role": "user" if n % 2 == 0 else "assistant", "content": "x" * 50} for n in range(9)]
PREFILLED = {"messages": [{"role": "user", "content": "Answer in JSON"}, {"role": "assistant", "content": "{"}]}

ROWS = (
    Row("429 with Retry-After", {"status": 429, "retry_after": "1", "times": 1}, (2, 0), "hot"),
    Row("429 without Retry-After", {"status": 429}, (3, 1)),
    Row("500 once", {"status": 500, "times": 1}, (2, 0), "hot"),
    Row("503 for good", {"status": 503}, (2, 1)),
    Row("reset before headers", {"fault": "reset"}, (1, 1)),
    Row("no answer at all", {"fault": "hang"}, (1, 1), within=BOUND_SECONDS),
    Row("slow first token", {"first_token": 30}, (1, 1), streams=True, within=BOUND_SECONDS),
    Row("stream cut", {"fault": "cut"}, (1, 1), streams=True),
    Row("stream stalled", {"fault": "stall"}, (1, 1), streams=True, within=BOUND_SECONDS),
    Row("malformed event", {"fault": "bad_event"}, (1, 0), "hot", streams=True),
    Row("no [DONE]", {"fault": "no_done"}, (1, 0), "hot", streams=True),
    Row("context length", {"context": 300}, (1, 1), body={"messages": LONG}),
    Row("content filter", {"finish_reason": "content_filter"}, (1, 0), None, "refused"),
    Row("prefill rejected", {"prefill": False}, (1, 1), body=PREFILLED),
    Row("flapping provider", {"status": 502, "every": 2}, (12, 6), "hot or warm", jobs=12),
    Row("accounting", {"status": 503, "times": 1}, (21, 0), "hot", jobs=20),
)


@dataclass
class Verdict:
    """What became of one row. `wrong` is empty for a pass."""

    name: str
    hot_calls: int
    warm_calls: int
    ended: str
    seconds: float
    wrong: list[str] = field(default_factory=list)


def run(row: Row, url: str, control: provider.Control, folder: Path, policies: Policies) -> Verdict:
    """One row on a fresh server's data, by a worker of this process."""
    routes_of(row, control, folder)
    with connect(url) as client:
        client.flushdb()
        producer = Producer(client, policies)
        body = row.body or {"messages": [{"role": "user", "content": "How many seas are there?"}]}
        with session.own_worker(url, Configuration(policies, read_routes(folder / "routes.json", {})), slots=1):
            job_ids = [receipt.job_id for receipt in producer.enqueue_many(LLMJob(body=body) for _ in range(row.jobs))]
            began = time.monotonic()
            wait_until(lambda: all(producer.ended(job_ids)), "the row's jobs", 60)
            seconds = time.monotonic() - began
        results = [result for result in producer.fetch_many(job_ids) if result is not None]
    return _judged(row, results, control, seconds)


def routes_of(row: Row, control: provider.Control, folder: Path) -> None:
    """The row's fault at the simulator, and the two routes in the folder's routes.json."""
    control.forget()
    control.behave("hot", text=TEXT, **row.hot)
    control.behave("warm", text=TEXT)
    limits: dict[str, Any] = {"timeoutSeconds": FIRST_TOKEN_SECONDS if row.within and not row.streams else 20}
    if row.streams:
        limits["streamTimeoutSeconds"] = FIRST_TOKEN_SECONDS
    tiers = {tier: [{**_entry(control, tier), **limits}] for tier in ("hot", "warm")}
    (folder / "routes.json").write_text(json.dumps(tiers))


def _entry(control: provider.Control, tier: str) -> dict[str, Any]:
    return {"name": tier, "provider": tier, "model": "m", "baseUrl": control.base_url(tier), "apiKeyEnv": ""}


def _judged(row: Row, results: list[JobResult], control: provider.Control, seconds: float) -> Verdict:
    hot, warm = control.account("hot"), control.account("warm")
    first = results[0]
    ended = ", ".join(sorted({f"done by {r.route}" if r.route else f"dead: {r.dead_reason}" for r in results}))
    verdict = Verdict(row.name, hot["asked"], warm["asked"], ended, round(seconds, 2))

    def hold(true: bool, what: str) -> None:
        if not true:
            verdict.wrong.append(what)

    hold((hot["asked"], warm["asked"]) == row.calls, f"calls {hot['asked']}, {warm['asked']} instead of {row.calls}")
    hold(len(results) == row.jobs, "a job is lost")
    if row.route is None:
        hold(str(first.dead_reason) == row.reason, f"{first.dead_reason} instead of {row.reason}")
    else:
        hold(all(r.status is JobStatus.DONE and r.route in row.route.split(" or ") for r in results), ended)
        hold(all(r.text == TEXT for r in results), "not the whole text")
    if row.within is not None:
        hold(seconds <= row.within, f"{seconds:.1f} s instead of {row.within:g} s")
    made = [attempt for r in results for attempt in r.attempted]
    hold(len(made) == hot["asked"] + warm["asked"] == sum(r.attempts for r in results), "attempts and calls differ")
    used = sum((r.usage or {}).get("completion_tokens", 0) for r in results if r.route)
    billed = sum(account["completion_tokens"] for account in (hot, warm))
    hold(row.route is None or used == billed, f"{used} tokens told, {billed} billed")
    return verdict


def choosing_ms(rounds: int = 300) -> float:
    """The median time of an execution whose hot route is open, less that of one that knows only warm."""

    async def measure(url: str, control: provider.Control) -> float:
        client, providers = connect_async(url, max_connections=2), Providers(10)
        warm, hot = (
            Route(n, n, RouteEntry(provider=n, model="m", base_url="x"), control.base_url(n)) for n in ("warm", "hot")
        )
        breakers = Breakers(client, "bench", ["hot", "warm"], Rules(failures=1))
        await breakers.sync()
        if (permit := await breakers["hot"].admit()) is not None:
            breakers["hot"].record(permit, False)
        await breakers.sync()
        router, times = Router(providers, breakers, lambda: [hot, warm]), {1: list[float](), 2: list[float]()}
        for _ in range(rounds):
            for candidates in ([warm], [hot, warm]):
                body: ChatBody = {"messages": [{"role": "user", "content": "x"}]}
                context = JobContext("job", 1, body, "key", asyncio.get_running_loop().time() + 10)
                began = time.perf_counter()
                await router.execute(candidates, context, Spend(5))
                times[len(candidates)].append(time.perf_counter() - began)
        await providers.close()
        await client.aclose()
        return 1000 * (median(times[2]) - median(times[1]))

    with grounds() as (url, control, _):
        return asyncio.run(measure(url, control))


@contextmanager
def grounds() -> Iterator[tuple[str, provider.Control, Path]]:
    """A server, a simulator and a folder for all rows."""
    with TemporaryDirectory() as name, embedded.running(Path(name) / "valkey") as url, provider.running() as control:
        yield url, control, Path(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--row", choices=[row.name for row in ROWS])
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    policies = load_policies({})
    with grounds() as (url, control, folder):
        verdicts = [run(row, url, control, folder, policies) for row in ROWS if chosen.row in (None, row.name)]
    if chosen.json:
        print(json.dumps([asdict(verdict) for verdict in verdicts], indent=2))
    else:
        print(f"{'fault':24}{'hot':>5}{'warm':>6}{'seconds':>9}  ended")
        for v in verdicts:
            failed = f"  FAILED: {'; '.join(v.wrong)}" if v.wrong else ""
            print(f"{v.name:24}{v.hot_calls:5}{v.warm_calls:6}{v.seconds:9.2f}  {v.ended}{failed}")
        print(f"{sum(not v.wrong for v in verdicts)} of {len(verdicts)} pass")
        print(f"choosing warm while hot is open costs {choosing_ms():.3f} ms more than having warm alone")
    sys.exit(any(v.wrong for v in verdicts))


if __name__ == "__main__":
    main()
