"""`make bench-months`: months of jobs through the ledger and the history, without a provider: Redis stays level, sums stay exact.

    python -m bench.months [--rows 1000000] [--tenants 3000]

Each row goes through the ledger's own script, each outcome through the history's stream, with a feature that is free text. Every
tenth of the rows one line: Redis's memory, rows, keys, the longest script. At the end: the sums against what was booked, the
rows that left Redis, and how long the reading commands take.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import redis
from pydantic_core import to_json

from bench.throughput import BIN
from ops.local import embedded
from producer import keyspace
from producer.connection import connect, connect_async
from producer.scripts import ask
from worker.history.archive import Folder
from worker.history.collector import COLLECT
from worker.history.leader import HistoryLeader
from worker.history.policy import HistoryPolicy
from worker.history.rows_file import read_rows
from worker.money.caps import Owner
from worker.money.ledger import DROP_NAMES, FOLD_ROWS, LEDGER, SUMS, Reservation, ledger_keys
from worker.reports import statement

BATCH = 200  # rows in one script call, as a busy worker has
LEVEL = 1.1  # of Redis's memory: at the end against the middle
SCRIPT_MS, READ_SECONDS = 50.0, 1.0  # the start of a command is about half of it
PROVIDERS = ("openai", "anthropic", "google")


class Book:
    """Books rows with the ledger's own script, and knows what their sums must be."""

    def __init__(self, client: redis.Redis, tenants: int) -> None:
        self._client, self._tenants, self._random = client, tenants, random.Random(1)
        self._number = 0
        self.micros = 0
        self.of_tenant: dict[str, int] = {}

    def batch(self) -> None:
        keys, words = ledger_keys((60.0, 85.0, 95.0))
        steps: list[Any] = []
        pipeline = self._client.pipeline(transaction=False)
        for _ in range(BATCH):
            self._number += 1
            micros, tenant = self._random.randrange(5000), f"tenant{self._random.randrange(self._tenants)}"
            feature = f"free text {self._random.randrange(self._number)}"
            provider = self._random.choice(PROVIDERS)
            owner = Owner(f"job{self._number}", tenant, "", feature, "ai-tasks", "")
            row = Reservation(f"job{self._number}:e:1", owner, provider, f"{provider}/m", "m", "p 1/2", micros, 10)
            steps.append(["book", row.row, "settled", micros, 100, 20])
            self.micros += micros
            self.of_tenant[tenant] = self.of_tenant.get(tenant, 0) + micros
            outcome = {"kind": "done", "tenant": tenant, "feature": feature, "provider": provider, "flags": []}
            outcome |= {"route": f"{provider}/m", "answer_ms": micros, "run_ms": micros, "attempts": []}
            pipeline.xadd(keyspace.HAPPENED, {"e": to_json(outcome)})
        ask(
            self._client,
            [LEDGER.call([*keys, keyspace.booked("w"), keyspace.BUDGETS], [*words, self._number, to_json(steps)])],
        )
        pipeline.execute()


async def retain(url: str, folder: Path) -> None:
    client = connect_async(url, max_connections=2)
    try:
        await HistoryLeader(client, "w", HistoryPolicy, Folder(folder)).step()
    finally:
        await client.aclose()


def longest_command(client: redis.Redis) -> tuple[float, str]:
    """Milliseconds and first words of the longest one since the last call."""
    entries = client.slowlog_get(128)
    client.slowlog_reset()
    found = ((entry["duration"] / 1000, _command(bytes(entry["command"]))) for entry in entries)
    return max(found, default=(0.0, ""))


def _command(command: bytes) -> str:
    words = command.decode(errors="replace").split()
    return _NAMES.get(words[1], words[1]) if words[0].upper() == "EVALSHA" else " ".join(words[:2])


_NAMES = {
    script.sha: name
    for name, script in (
        ("ledger", LEDGER),
        ("sums", SUMS),
        ("fold_rows", FOLD_ROWS),
        ("drop_names", DROP_NAMES),
        ("collect", COLLECT),
    )
}


def fill(url: str, client: redis.Redis, folder: Path, rows: int, tenants: int) -> tuple[Book, list[float], float]:
    """Book the rows in ten parts. Returns the book, Redis's megabytes after each part, and the longest command in ms."""
    book, megabytes, longest = Book(client, tenants), [], 0.0
    client.config_set("slowlog-log-slower-than", 5000)
    for part in range(1, 11):
        for step in range(rows // 10 // BATCH):
            book.batch()
            if step % 25 == 24:
                asyncio.run(retain(url, folder))
        asyncio.run(retain(url, folder))
        megabytes.append(int(client.info("memory")["used_memory"]) / 1e6)
        took, command = longest_command(client)
        longest = max(longest, took)
        month = time.strftime("%Y-%m", time.gmtime())
        print(
            f"{part * rows // 10:>10,} rows: {megabytes[-1]:6.1f} MB, {client.xlen(keyspace.LEDGER + month):,} rows in Redis, "
            f"{client.hlen(keyspace.SPENT + month):,} sums, {client.dbsize()} keys, longest command {took:.0f} ms ({command})"
        )
    return book, megabytes, longest


def read_seconds(url: str, folder: Path, *command: str) -> float:
    began = time.monotonic()
    environment = {"REDIS_URL": url, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [str(BIN / "failover"), *command], env=environment, cwd=folder, check=False, capture_output=True
    )
    if done.returncode:
        sys.exit(f"failover {' '.join(command)}: {done.stderr.decode()}")
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tenants", type=int, default=3000)
    chosen = parser.parse_args()
    passed: dict[str, bool] = {}
    with (
        tempfile.TemporaryDirectory() as place,
        embedded.running(Path(place) / "valkey") as url,
        connect(url) as client,
    ):
        folder = Path(place) / "history"
        book, megabytes, longest = fill(url, client, folder, chosen.rows, chosen.tenants)
        found = statement.sums(client)
        half = megabytes[4]  # the bound of rows is reached by then
        passed[f"memory is level: {half:.1f} -> {megabytes[-1]:.1f} MB"] = megabytes[-1] < LEVEL * half
        exact = found["total"].spent == book.micros
        exact = exact and all(found[f"tenant:{name}"].spent == sum_ for name, sum_ in book.of_tenant.items())
        passed[f"sums are exact: {found['total'].spent:,} micro-dollars, {len(book.of_tenant):,} tenants"] = exact
        client.delete(keyspace.SPENT + time.strftime("%Y-%m", time.gmtime()))
        began = time.monotonic()
        again = statement.sums(client)
        took = time.monotonic() - began
        passed[f"and counted again in {took:.1f} s"] = again["total"].spent == book.micros
        recount = longest_command(client)
        longest = max(longest, recount[0])
        files = Folder(folder).names("ledger/")
        ids = [json.loads(line)["id"] for line in read_rows(Folder(folder), "ledger/")]
        left = int(client.xlen(keyspace.LEDGER + time.strftime("%Y-%m", time.gmtime())))
        passed[f"each row is in Redis ({left:,}) or in one of {len(files)} files"] = (
            len(ids) == len(set(ids)) and len(ids) + left == chosen.rows // 10 // BATCH * BATCH * 10
        )
        passed[f"the longest command takes {longest:.0f} ms, of the recount {recount[0]:.0f} ms ({recount[1]})"] = (
            longest < SCRIPT_MS
        )
        for command in (("status",), ("budget", "show"), ("history", "show")):
            seconds = min(read_seconds(url, Path(place), *command) for _ in range(3))
            passed[f"failover {' '.join(command)} takes {seconds:.2f} s"] = seconds < READ_SECONDS
    for what, good in passed.items():
        print(f"{'passed' if good else 'FAILED'}  {what}")
    sys.exit(not all(passed.values()))


if __name__ == "__main__":
    main()
