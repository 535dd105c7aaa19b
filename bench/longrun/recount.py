"""`make bench-recount`: the sums of a ledger of five million rows are lost while 500 jobs run under caps.

    python -m bench.longrun.recount [--rows 5000000] [--jobs 500]

The rows are written by the ledger's own script, and their sums are known by arithmetic. Half of the jobs belong to a tenant
whose cap lets only a part of them run; once the sums are whole again, the cap is raised, and all end. Passes when no job was
taken from its worker, no outcome was fenced, no cap was exceeded at any look, no script took 50 ms of Redis, and the sums are
equal to what was written and served, to the micro-dollar. It takes 10 to 20 minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from bench.longrun.slow_log import SlowLog
from bench.money import MONTH, Place, job, micros_served, place
from bench.throughput import wait_until
from producer import keyspace
from producer.job import JobStatus
from producer.scripts import PRELUDES
from worker.money import ledger
from worker.money.caps import Cap
from worker.money.ledger import ledger_keys
from worker.reports import statement

PART = 10_000  # rows that one script writes
LONGEST_MS = 50.0
CONCURRENCY = 60
CAPPED, ROOMY = "tenant1", "tenant2"
KEY = keyspace.SPENT + MONTH
# Each row is written as the ledger does when a call is settled. The sums are left out: they are what is lost.
FILL = """
there[this_month] = false
for n = tonumber(ARGV[7]), tonumber(ARGV[8]) do
  local provider = n % 3 == 0 and 'a' or 'other'
  file({id = 'old' .. n .. ':e:1', job = 'old' .. n, month = this_month, at = now_ms, limits = {}, caps = {}, own = '',
    tenant = 'tenant' .. n % 3000, user = 'user' .. n % 7, feature = 'free text ' .. n % 200, provider = provider,
    route = provider .. '/m', model = 'm', price = 'p 1/2', tokens = 120}, 'settled', n * 7919 % 5000, 100, 20)
end
return redis.call('XINFO', 'STREAM', LEDGER .. this_month)[8]
"""


def expected(rows: int) -> Counter[str]:
    """The micro-dollars by scope that FILL writes; all users together, because only the first names are kept apart."""
    found: Counter[str] = Counter()
    for n in range(1, rows + 1):
        micros = n * 7919 % 5000
        for scope in ("total", f"provider:{'other' if n % 3 else 'a'}", f"tenant:tenant{n % 3000}"):
            found[scope] += micros
        found[f"feature:free text {n % 200}"] += micros
    found["users"] = found["total"]
    return found


def fill(client: redis.Redis, rows: int, wanted: Mapping[str, int]) -> None:
    """Write the rows and the sums of what is capped. The history has counted the rows already, as in a ledger that grew."""
    folder = Path(ledger.__file__).parent / "lua"
    preludes = (PRELUDES / "clock.lua", folder / "ledger_sums.lua", folder / "ledger_rows.lua")
    script = "".join(path.read_text() for path in preludes) + FILL
    keys, words = ledger_keys(())
    client.config_set("appendonly", "no")  # one rewrite at the end in place of many
    last = b""
    for begin in range(1, rows + 1, PART):
        last = client.eval(script, len(keys), *keys, *words, begin, min(rows, begin + PART - 1))
    client.set(keyspace.HISTORY_CURSOR, json.dumps({MONTH: last.decode()}))
    kept = {f"spent:{scope}": micros for scope, micros in wanted.items() if scope != "users"}
    client.hset(KEY, mapping={**kept, "since": int(time.time() * 1000)})
    client.config_set("appendonly", "yes")
    wait_until(lambda: _is_written(client), "the rewrite of the append-only file")


def _is_written(client: redis.Redis) -> bool:
    found = client.info("persistence")
    return not found["aof_rewrite_in_progress"] and not found["aof_rewrite_scheduled"]


@dataclass
class Watch:
    """What is seen of the sums while jobs run. `most`: by scope, the highest sum of spent, ambiguous and held."""

    here: Place
    hard: dict[str, int]
    most: Counter[str] = field(default_factory=Counter)

    def look(self) -> bool:
        """Look at the sums; returns whether they are there."""
        kinds = ("spent", "ambiguous", "held")
        fields = [f"{kind}:{scope}" for scope in self.hard for kind in kinds]
        since, *sums = self.here.client.hmget(KEY, "since", *fields)
        for n, scope in enumerate(self.hard if since else ()):
            used = sum(int(each or 0) for each in sums[len(kinds) * n :][: len(kinds)])
            self.most[scope] = max(self.most[scope], used)
        return since is not None

    @property
    def within(self) -> bool:
        return all(self.most[scope] <= hard for scope, hard in self.hard.items())


def taken_away(client: redis.Redis, ids: list[str]) -> int:
    """How many jobs lost a lease: the reaper writes it into the job."""
    pipeline = client.pipeline(transaction=False)
    for job_id in ids:
        pipeline.hmget(keyspace.job(job_id), "crashes", "suspect", "reaped")
    return sum(any(each) for each in pipeline.execute())


def fenced(here: Place) -> int:
    """Outcomes that came too late, by the workers' log."""
    return (here.folder / "worker.log").read_text(errors="replace").count("fenced")


def equal(found: dict[str, statement.Sums], wanted: Counter[str]) -> bool:
    spent = Counter({scope: each.spent for scope, each in found.items()})
    users = sum(amount for scope, amount in spent.items() if scope.startswith("user:") or scope == "rest:user")
    spent = Counter({**{scope: amount for scope, amount in spent.items() if "user:" not in scope and amount}})
    spent["users"] = users
    return {**spent, "rest:user": 0} == {**wanted, "rest:user": 0} and not any(
        each.held or each.ambiguous for each in found.values()
    )


def lose_and_count(here: Place, ids: list[str], watch: Watch, slow_log: SlowLog) -> float:
    """Delete the sums while calls run. Returns the seconds until they are whole."""
    finished = keyspace.finished("ai-tasks")

    def busy() -> bool:
        watch.look()
        return int(here.client.zcard(finished)) >= len(ids) // 10

    wait_until(busy, "a tenth of the jobs is done")
    slow_log.forget()
    here.client.delete(KEY)
    began = time.monotonic()
    shown = began

    def whole() -> bool:
        nonlocal shown
        if time.monotonic() - shown > 60:
            shown = time.monotonic()
            at = here.client.hget(f"{KEY}:recount", "from") or b"-"
            print(f"{shown - began:5.0f} s: counted up to {at.decode()}", flush=True)
        time.sleep(0.1)
        slow_log.look()
        return watch.look()

    wait_until(whole, "the sums are whole", 3600)
    return time.monotonic() - began


def measure(rows: int, jobs: int) -> dict[str, Any]:
    with place() as here:
        here.routes(hot=[{"upstream": "a"}])
        wanted = expected(rows)
        began = time.monotonic()
        fill(here.client, rows, wanted)
        print(f"{rows:,} rows in {time.monotonic() - began:.0f} s, {_megabytes(here.client):,.0f} MB", flush=True)
        # half of the total is used, so that nothing pauses
        hard = {f"tenant:{CAPPED}": wanted[f"tenant:{CAPPED}"] + jobs * 1500, "total": 2 * wanted["total"]}
        watch = Watch(here, hard)
        here.policies(
            budgets={
                "total": {"hard_usd": hard["total"] / 1e6},
                "tenants": {CAPPED: {"hard_usd": hard[f"tenant:{CAPPED}"] / 1e6}},
            },
            history={"ledger": {"rows": 50_000_000, "megabytes": 1_000_000}},
        )
        here.providers.behave("a", latency=(1.0, 3.0), text="word " * 150)
        slow_log = SlowLog(here.client)
        here.workers(1, CONCURRENCY)
        tenants = [CAPPED if number % 2 else ROOMY for number in range(jobs)]
        new = [job(number, tenant_id=tenant) for number, tenant in enumerate(tenants)]
        ids = [receipt.job_id for receipt in here.producer.enqueue_many(new)]
        seconds = lose_and_count(here, ids, watch, slow_log)
        longest_ms, longest = slow_log.computed_ms, str(slow_log)
        first = [result for result in here.producer.fetch_many(ids) if result is not None]
        statuses = _ended_under_caps(here, ids, watch)
        served = micros_served(here.providers, "a")
        for result in here.producer.fetch_many(ids):
            if result is not None and result.status is JobStatus.DONE:
                micros = round((result.cost_usd or 0) * 1e6)
                wanted[f"tenant:{tenants[ids.index(result.job_id)]}"] += micros
        wanted += Counter({"total": served, "provider:a": served})
        return {
            "rows": rows,
            "seconds until the sums are whole": round(seconds, 1),
            "longest script of the recount": longest,
            "jobs done at its end": sum(result.status is JobStatus.DONE for result in first),
            "jobs by their end": dict(statuses),
            "most used of each cap": {scope: f"{watch.most[scope]:,} of {cap:,}" for scope, cap in watch.hard.items()},
            "leases lost": taken_away(here.client, ids),
            "outcomes fenced": fenced(here),
            "calls": here.providers.account("a")["asked"],
            "micro-dollars served": served,
            "sums are equal to what was written and served": (same := equal(statement.sums(here.client), wanted)),
            "passed": same
            and longest_ms < LONGEST_MS
            and watch.within
            and not taken_away(here.client, ids)
            and not fenced(here)
            and statuses == {"done": jobs},
        }


def _megabytes(client: redis.Redis) -> float:
    return int(client.info("memory")["used_memory"]) / 1e6


def _ended_under_caps(here: Place, ids: list[str], watch: Watch) -> Counter[str]:
    """Wait until the cap is used up, raise it, and wait until all jobs have ended. Returns how many ended how."""
    scope = f"tenant:{CAPPED}"

    def full() -> bool:
        watch.look()
        status = json.loads(here.client.hget(keyspace.ALERT_THRESHOLDS + MONTH, scope) or b"{}")
        return bool(status.get("full"))

    wait_until(full, "the cap is used up")
    if not watch.within:
        return Counter()
    watch.hard[scope] *= 2
    statement.set_cap(here.client, scope, Cap(hard_usd=watch.hard[scope] / 1e6), MONTH, "bench")

    def ended() -> bool:
        watch.look()
        return all(here.producer.ended(ids)) and not here.client.hlen(keyspace.RESERVATIONS)

    wait_until(ended, "the end of the jobs")
    return Counter(str(result.status) if result else "lost" for result in here.producer.fetch_many(ids))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--jobs", type=int, default=500)
    chosen = parser.parse_args()
    found = measure(chosen.rows, chosen.jobs)
    for what, figure in found.items():
        print(f"  {what:46} {figure}")
    sys.exit(not found["passed"])


if __name__ == "__main__":
    main()
