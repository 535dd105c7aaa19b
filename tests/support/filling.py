"""Fills keys of Redis beyond their bounds, with our own functions and scripts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis

from producer import keyspace
from producer.connection import connect_async
from producer.errors import UsageError
from producer.scripts import Script, ask
from tests.support.ledger import MONTH, retained, spend
from tests.support.replies import fields
from tests.support.transitions import Q
from worker.breakers.registry import CALLS_KEPT, RECORD
from worker.control import tokens
from worker.history.collector import Collector
from worker.history.document import DIMENSIONS
from worker.history.policy import LedgerKept
from worker.money.billing_alerts import BillingReport, Guardrail, observe
from worker.notify.condition import Condition
from worker.notify.incidents import Incidents
from worker.notify.kinds import Kind

PAGE = 1000  # runs in one script


def shared(
    client: redis.Redis, folder: Path, preludes: str, body: str, times: int = 1, keys: Sequence[str] = ()
) -> None:
    """Run our own shared functions so many times (`i`: 1, 2, ...), in scripts of a few milliseconds."""
    (folder / "fill.lua").write_text(
        f"-- prelude: {preludes}\nfor i = tonumber(ARGV[1]), tonumber(ARGV[2]) do {body} end"
    )
    script = Script.load(folder, "fill")
    for start in range(1, times + 1, PAGE):
        ask(client, [script.call(keys, [start, min(times, start + PAGE - 1)])])


def happened(client: redis.Redis, url: str, folder: Path) -> None:
    shared(client, folder, "happened", "happened('{}')", 201_000)


def audited(client: redis.Redis, url: str, folder: Path) -> None:
    shared(client, folder, "audit_trail", f"audited('{keyspace.AUDIT}', 'a', 'w')", 101_000)


def outbox(client: redis.Redis, url: str, folder: Path) -> None:
    client.hset(keyspace.SUBSCRIBERS, "*", "1")
    shared(client, folder, "clock event", "event('job.done', 'id', 'rq:job:id')", 101_000)


def lost(client: redis.Redis, url: str, folder: Path) -> None:
    shared(client, folder, "clock leaves lost", "lose('id' .. i, 'q', string.rep('w', 900))", 10_500)
    assert max(len(value) for value in client.hvals(keyspace.LOST)) < 300


def news(client: redis.Redis, url: str, folder: Path, first: str = "t") -> None:
    tell = f"redis.call('HSET', 'rq:job:j', 'tenant', '{first}' .. i, 'dead_reason', 'r') tell_of(KEYS[1], 'j', 'rq:job:j')"
    body = f"{tell} redis.call('HDEL', 'rq:job:j', 'died_ms')"
    shared(client, folder, "clock leaves event count dead_letters", body, 3000, [keyspace.dead(Q)])
    assert client.hget(keyspace.news(Q), "dead:tenant:(others)")


def incident(client: redis.Redis, url: str, folder: Path) -> None:
    for first in ("t", "u"):
        news(client, url, folder, first)
        Incidents(client).fold([Q], None, keep_saved=False)
    assert client.hget(keyspace.incident("1"), "dead") == b"6000"
    counts = fields(client.hgetall(keyspace.incident("1")))
    assert sum(int(count) for name, count in counts.items() if name.startswith("dead:tenant:")) == 6000


def story(client: redis.Redis, url: str, folder: Path) -> None:
    incidents = Incidents(client)
    opened = incidents.open(Condition(Kind.PAUSED, queue=Q), 1, "first")
    for number in range(21):
        assert incidents.change(incidents.named([opened])[0], "x", str(number), story=["x"] * 100)


def wakes(client: redis.Redis, url: str, folder: Path) -> None:
    client.sadd(keyspace.QUEUES, keyspace.queue(Q))
    client.zadd(keyspace.scheduled(Q), {f"j{n}": 9e9 for n in range(300)})
    body = "wake_parked(KEYS[1], {'route'}, 'route:r' .. i)"
    shared(client, folder, "clock accepted_order wake_parked", body, 150, [keyspace.QUEUES])


def create_tokens(client: redis.Redis, url: str, folder: Path) -> None:
    full: dict[Any, Any] = {f"n{n}": "{}" for n in range(tokens.MOST_TOKENS - 1)}
    client.hset(keyspace.TOKENS, mapping=full | {tokens.VERSION: "1"})
    for name in ("fits", "too-many"):
        try:
            tokens.create(client, tokens.Token(name=name, role=tokens.Role.VIEWER, sha256=tokens.hash_of(name)))
        except UsageError:
            assert name == "too-many"


def budget_reports(client: redis.Redis, url: str, folder: Path) -> None:
    for number in range(1050):
        report = BillingReport("google", 10.0, at_ms=number, budget_id=f"b{number}", message_id=f"m{number}")
        observe(client, report, Guardrail())
    assert not client.hexists(keyspace.SPEND, "google:b0") and client.hexists(keyspace.SPEND, "google:b1049")


def calls(client: redis.Redis, url: str, folder: Path) -> None:
    seen = {"kind": "ok", "epoch": 0, "probe": "", "job": "j", "ms": 1, "rest": 0, "why": ""}
    keys = [keyspace.recorded("w"), keyspace.breaker("r"), keyspace.calls("r")]
    rules = (keyspace.BREAKERS, 3, 2, 1000, 9000, 1000, CALLS_KEPT, 1000)
    for number in range(3):
        ask(client, [RECORD.call(keys, [number, *rules, json.dumps([["r", "", [seen] * 100]])])])


def ledger(client: redis.Redis, url: str, folder: Path) -> None:
    spend(url, range(1, 1300))
    assert retained(url, None, LedgerKept(rows=1000, days=400)) == ""


def ambiguous(client: redis.Redis, url: str, folder: Path) -> None:
    spend(url, range(1, 151), "ambiguous")
    key = keyspace.AMBIGUOUS + MONTH
    for row_id, raw in client.hgetall(key).items():  # two hours old, so that nobody settles them
        row = json.loads(raw)
        client.hset(key, row_id, json.dumps(row | {"at": row["at"] - 7_200_000}))
    assert retained(url, None, LedgerKept(ambiguous_rows=100, days=400)) == ""


def sums(client: redis.Redis, url: str, folder: Path) -> None:
    client.hset(keyspace.SPENT + MONTH, mapping={"since": 1, **{f"spent:user:u{n}": 1 for n in range(19_990)}})
    spend(url, range(1, 301), feature="new{}")


def history(client: redis.Redis, url: str, folder: Path) -> None:
    for number in range(300):
        record = {"kind": "done", "answer_ms": number, "run_ms": number, "attempts": [["r", "ok", 1]]}
        names = {name: f"{name}{number}" + "x" * 200 for name in DIMENSIONS[1:]}
        client.xadd(keyspace.HAPPENED, {"e": json.dumps(record | names)})
    with_async(url, lambda each: Collector(each).step())


def with_async(url: str, work: Callable[[Any], Any]) -> None:
    async def run() -> None:
        client = connect_async(url, max_connections=2)
        try:
            await work(client)
        finally:
            await client.aclose()

    asyncio.run(run())
