"""`make bench-months`: a year of jobs in minutes: Redis stays level, sums stay exact, reports stay quick.

    python -m bench.longrun.months [--rows 300000] [--jobs 10000] [--tenants 3000] [--days 365]
    python -m bench.longrun.months --rows 9800000 --jobs 200000        # the full one: hours

The wall clock of Redis and of all processes is moved on hour by hour (simulated_clock.c), so that months begin and keys expire
as in a real year. `--rows` jobs are spread over all hours and go through the ledger's and the history's own scripts without a
provider, each with a feature that is free text. `--jobs` jobs go from producer to result through a real worker and a simulated
provider, a part of them at each deploy, once a week: then a new worker starts, works and ends. At each month's end a line:
Redis's memory, and what of it is kept for 400 days (history and sums); rows, keys, and the longest command.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

from bench.longrun import reports, simulated_clock
from bench.longrun.booking import Book
from bench.longrun.slow_log import ROOT, SlowLog
from bench.money import PRICES, micros_served
from bench.throughput import BIN, bench_place, process, wait_until
from ops.simulators.provider import Control
from producer import LLMJob, Producer, keyspace
from producer.connection import connect, connect_async
from producer.policy import load_policies
from worker.history.archive import VARIABLE, Folder
from worker.history.document import ALL
from worker.history.leader import HistoryLeader
from worker.history.policy import HistoryPolicy, LedgerKept
from worker.history.read import slices
from worker.history.rows_file import read_rows
from worker.money.budget_state import month_of
from worker.reports import statement

Q = "ai-tasks"
DAY = 86400
LED_HOURS = 4  # between two steps of the history's leader
DEPLOY_DAYS = 7
LEVEL = 1.25  # at the end against the first month after rows began to leave Redis; Redis's table of keys holds the year's hours
MOST_MB_KEPT = 60.0  # of history and sums, for 400 days
SCRIPT_MS, WORK_SECONDS = 50.0, 0.3
LIVE_TENANTS = 50
KEPT = ("failover:history:*", keyspace.SPENT + "*", keyspace.LEDGER + "folded:*")


@dataclass(frozen=True)
class Month:
    """What was seen at a month's end. Megabytes: of Redis in all, and of what is kept for 400 days."""

    redis_mb: float
    kept_mb: float
    folded: bool  # rows have left Redis

    @property
    def level_mb(self) -> float:
        return self.redis_mb - self.kept_mb


@dataclass
class Year:
    """One run."""

    url: str
    client: redis.Redis
    control: Control
    environment: dict[str, str]
    folder: Path
    policy: HistoryPolicy
    book: Book
    slow_log: SlowLog
    months: list[Month] = field(default_factory=list)
    jobs: int = 0
    dead: int = 0

    def live(self, jobs: int) -> None:
        """So many jobs from producer to result, through a worker of their own."""
        producer = Producer(self.client, load_policies(self.environment))
        with process([str(BIN / "failover-worker")], self.environment, self.folder / "worker.log"):
            numbers = range(self.jobs, self.jobs + jobs)
            ids = [receipt.job_id for receipt in producer.enqueue_many(_job(number) for number in numbers)]
            wait_until(lambda: not self.client.zcard(keyspace.accepted(Q)), "the end of the jobs")
            wait_until(lambda: not self.client.hlen(keyspace.RESERVATIONS), "the close of the ledger")
            self.dead += len(ids) - sum(bool(result and result.text) for result in producer.fetch_many(ids))
        self.jobs += jobs

    async def pass_days(self, days: int, rows_an_hour: float) -> None:
        """Let days pass, with one leader of the history, as between two deploys."""
        client = connect_async(self.url, max_connections=2)
        leader = HistoryLeader(client, "w", lambda: self.policy, Folder(self.folder / "history"))
        try:
            for hour in range(24 * days):
                simulated_clock.advance(3600)
                self.book.book(int(rows_an_hour * (hour + 1)) - int(rows_an_hour * hour))
                if hour % LED_HOURS == LED_HOURS - 1:
                    await leader.step()
        finally:
            await client.aclose()

    def look(self) -> None:
        self.slow_log.look()
        kept = [key for pattern in KEPT for key in self.client.scan_iter(pattern, count=1000)]
        pipeline = self.client.pipeline(transaction=False)
        for key in kept:
            pipeline.memory_usage(key)
        kept_mb = sum(size or 0 for size in pipeline.execute()) / 1e6
        folded = any(key.startswith(b"failover:ledger:folded:") for key in kept)
        month = Month(int(self.client.info("memory")["used_memory"]) / 1e6, kept_mb, folded)
        rows = sum(int(self.client.xlen(key)) for key in self.client.scan_iter(keyspace.LEDGER + "????-??"))
        print(
            f"{datetime.now(UTC):%Y-%m-%d}: {self.book.rows:>9,} + {self.jobs:,} jobs, {month.redis_mb:6.1f} MB, of them "
            f"{kept_mb:5.1f} MB history and sums, {rows:,} rows in Redis, {self.client.dbsize():,} keys, longest {self.slow_log}",
            flush=True,
        )
        self.months.append(month)


def _job(number: int) -> LLMJob:
    text = f"question {number} " * (1 + number % 40)
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 400}
    return LLMJob(body=body, tenant_id=f"live{number % LIVE_TENANTS}", feature=f"a title that a client typed {number}")


def lived(year: Year, chosen: argparse.Namespace) -> None:
    """Let the days pass, a deploy a week."""
    hourly, deploys, month = chosen.rows / chosen.days / 24, -(-chosen.days // DEPLOY_DAYS), ""
    for deploy in range(deploys):
        year.live(chosen.jobs * (deploy + 1) // deploys - year.jobs)
        asyncio.run(year.pass_days(min(DEPLOY_DAYS, chosen.days - DEPLOY_DAYS * deploy), hourly))
        now = datetime.now(UTC)
        if month not in ("", month_of(now)) or deploy == deploys - 1:
            year.look()
        month = month_of(now)


def sums_of_months(client: redis.Redis) -> Counter[str]:
    """Micro-dollars by scope, of all months together."""
    found: Counter[str] = Counter()
    for key in client.scan_iter(keyspace.SPENT + "????-??"):
        month = key.decode().removeprefix(keyspace.SPENT)
        found.update({scope: each.spent for scope, each in statement.sums(client, month).items()})
    return found


def by_kind(found: dict[str, statement.Sums]) -> Counter[str]:
    """Micro-dollars by scope; all features together, because which of them are kept apart depends on when they are counted."""
    spent: Counter[str] = Counter()
    for scope, each in found.items():
        spent["features" if "feature" in scope.split(":") else scope] += each.spent
    return spent


def judge_sums(year: Year, chosen: argparse.Namespace) -> dict[str, bool]:
    """The ledger, the history, the files and the provider's own log agree."""
    found, book, served = sums_of_months(year.client), year.book, micros_served(year.control, "a")
    exact = found["total"] == book.micros + served and found["provider:a"] == served
    exact = exact and all(found[f"tenant:{name}"] == micros for name, micros in book.of_tenant.items())
    exact = exact and sum(found[f"tenant:live{n}"] for n in range(LIVE_TENANTS)) == served
    now = int(time.time() * 1000)
    happened: Counter[str] = Counter()
    for each in slices(year.client, now - (chosen.days + 1) * DAY * 1000, now):
        facts = each.document.facts[ALL].get("")
        happened.update({name: facts.counters.get(name, 0) for name in ("micros", "done")} if facts else {})
    ids = [json.loads(line)["id"] for line in read_rows(Folder(year.folder / "history"), "ledger/")]
    left = sum(int(year.client.xlen(key)) for key in year.client.scan_iter(keyspace.LEDGER + "????-??"))
    jobs = book.rows + year.jobs
    month = by_kind(statement.sums(year.client))
    year.client.delete(keyspace.SPENT + month_of(datetime.now(UTC)))
    began = time.monotonic()
    again = by_kind(statement.sums(year.client))
    return {
        f"the ledger's sums are exact: {found['total']:,} micro-dollars, {served:,} of them as the provider's log": exact,
        f"the history's too: {happened['micros']:,} micro-dollars, {happened['done']:,} jobs done": (
            happened["micros"] == book.micros + served and happened["done"] == jobs
        ),
        f"each row is in Redis ({left:,}) or in a file ({len(ids):,})": len(set(ids)) == len(ids) == jobs - left,
        f"{year.jobs:,} jobs from producer to result, {year.dead} without an answer": not year.dead,
        f"a month counted again in {time.monotonic() - began:.1f} s": again == month,
    }


def judge_bounds(year: Year) -> dict[str, bool]:
    """Memory is level, no command is long, every report is quick."""
    after = [month for month in year.months if month.folded]
    first, last = (after[0].level_mb, after[-1].level_mb) if after else (0.0, 1.0)
    kept = year.months[-1].kept_mb
    passed = {
        f"Redis is level: {first:.1f} MB after the first rows had left, {last:.1f} MB at the end": last
        <= LEVEL * first,
        f"history and sums, which are kept for 400 days: {kept:.1f} MB": kept <= MOST_MB_KEPT,
    }
    for name, took in reports.work(year.url, year.client, year.slow_log).items():
        passed[f"the work of {name}: {took}"] = took.computed <= WORK_SECONDS
    for name, took in reports.commands(year.url, year.folder).items():
        passed[f"failover {name}, without the start of Python: {took}"] = took.computed <= WORK_SECONDS
    year.slow_log.look()
    passed[f"the longest command: {year.slow_log}"] = year.slow_log.computed_ms < SCRIPT_MS
    return passed


def configure(environment: dict[str, str], folder: Path, policy: HistoryPolicy) -> dict[str, str]:
    """A route with a price of its own, the history's policy and place. Returns the worker's environment."""
    route: dict[str, Any] = {"provider": "a", "model": "a-1", "apiKeyEnv": "", "price": PRICES["a"]}
    route["baseUrl"] = Control(environment["SIMULATOR"]).base_url("a")
    (folder / "routes.json").write_text(json.dumps({"hot": [route]}))
    shutil.copytree(ROOT / "policies", folder / "policies")
    (folder / "policies" / "history.yaml").write_text(policy.model_dump_json())
    return {**environment, "POLICIES_DIR": str(folder / "policies"), VARIABLE: str(folder / "history")}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rows", type=int, default=300_000, help="jobs without a provider")
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs from producer to result")
    parser.add_argument("--tenants", type=int, default=3000)
    parser.add_argument("--days", type=int, default=365)
    chosen = parser.parse_args()
    simulated_clock.begin(-DAY * chosen.days)
    kept = max(100, min(100_000, chosen.rows // 20))  # so that rows leave Redis also in a small run
    policy = HistoryPolicy(ledger=LedgerKept(rows=kept))
    with bench_place((0.05, 0.2)) as (url, environment, folder), connect(url) as client:
        control, book = Control(environment["SIMULATOR"]), Book(client, chosen.tenants)
        environment = configure(environment, folder, policy)
        control.behave("a", latency=(0.05, 0.2), text="word " * 30)
        year = Year(url, client, control, environment, folder, policy, book, SlowLog(client))
        lived(year, chosen)
        passed = judge_sums(year, chosen) | judge_bounds(year)
    for what, good in passed.items():
        print(f"{'passed' if good else 'FAILED'}  {what}")
    sys.exit(not all(passed.values()))


if __name__ == "__main__":
    main()
