"""The breakers that all workers share: exactly the model, in any number of processes; what holds when Redis does not."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis

from producer import Producer, keyspace
from producer.connection import connect_async
from tests.support.breaker_process import ROUTE, RULES
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.workshop import Workshop
from worker.breakers import registry as breakers_module
from worker.breakers.health import of_routes
from worker.breakers.local import Rules
from worker.breakers.registry import Breakers


@dataclass
class Model:
    """A breaker in twenty lines. Times in milliseconds."""

    state: str = "closed"
    epoch: int = 0
    failures: int = 0
    successes: int = 0
    cooldown: float = 0
    opens: float = 0
    probe: str = ""

    def admit(self, at: int, token: str) -> bool:
        granted = self.state == "open" and self.opens <= at and self.probe in ("", token)
        self.probe = token if granted else self.probe
        return granted

    def open(self, at: int, cooldown: float) -> None:
        self.state, self.epoch, self.failures, self.successes, self.probe = "open", self.epoch + 1, 0, 0, ""
        self.cooldown, self.opens = cooldown, at + cooldown

    def record(self, at: int, outcome: bool | None, epoch: int, token: str) -> None:
        if token:
            if self.state != "open" or token != self.probe:
                return
            self.probe = ""
            if outcome is None:
                self.opens = at + self.cooldown
            elif outcome:
                self.successes += 1
                if self.successes >= RULES.successes:
                    self.state, self.opens = "closed", 0
            else:
                self.open(at, min(self.cooldown * 2, RULES.longest_cooldown_seconds * 1000))
        elif self.state == "closed" and epoch == self.epoch and outcome is not None:
            self.failures = 0 if outcome else self.failures + 1
            if self.failures == RULES.failures:
                self.open(at, RULES.cooldown_seconds * 1000)


def test_eight_processes_with_random_outcomes_match_the_model_exactly(url: str, client: redis.Redis) -> None:
    command = [sys.executable, "-m", "tests.support.breaker_process", url, "300"]
    root = Path(__file__).parent.parent
    running = [
        subprocess.Popen([*command, str(seed)], cwd=root, stdout=subprocess.PIPE, text=True) for seed in range(1, 9)
    ]
    lines = [line for process in running for line in process.communicate(timeout=100)[0].splitlines()]
    assert [process.returncode for process in running] == [0] * 8
    model, met = Model(), Counter[str]()
    for seen in sorted(map(json.loads, lines), key=lambda seen: seen["order"]):
        if seen["event"] == "admit":
            assert model.admit(seen["at"], seen["token"]) == bool(seen["granted"]), seen
        else:
            model.record(seen["at"], seen["outcome"], seen["epoch"], seen["token"])
        told = seen["told"]
        expected = (model.state, model.epoch, max(0, model.opens - seen["at"]), model.probe)
        assert (told["state"], told["epoch"], told["opens_in"], told["probe"]) == expected, seen
        met[f"{seen['event']} {told['state']}"] += 1
    assert model.epoch > 10
    assert all(met[kind] > 20 for kind in ("admit open", "record open", "record closed")), met


@dataclass
class Fleet:
    """Several workers' breakers on one loop, each on a connection of its own."""

    url: str
    rules: Rules = field(default_factory=Rules)
    workers: list[Breakers] = field(default_factory=list)

    def run(self, count: int, story: Callable[[list[Breakers]], Awaitable[Any]]) -> Any:
        async def go() -> Any:
            clients = [connect_async(self.url, max_connections=1) for _ in range(count)]
            fleet = [Breakers(client, uuid4().hex, [ROUTE], self.rules) for client in clients]
            await sync(fleet)
            try:
                return await story(fleet)
            finally:
                for client in clients:
                    await client.aclose()

        return asyncio.run(go())


async def sync(fleet: list[Breakers]) -> None:
    for breakers in fleet:
        await breakers.sync()


async def fail(breakers: Breakers, times: int, job: str | None = None) -> None:
    for _ in range(times):
        admission = await breakers[ROUTE].admit()
        assert admission is not None
        breakers[ROUTE].record(admission, False, job=job or uuid4().hex)
        await breakers.sync()


async def succeed(breakers: Breakers) -> None:
    admission = await breakers[ROUTE].admit()
    assert admission is not None
    breakers[ROUTE].record(admission, True, ms=20, job=uuid4().hex)
    await breakers.sync()


async def away(*_: Any) -> Any:
    """`ask_async` while Redis is away."""
    raise redis.ConnectionError("simulated")


async def eventually(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what it waits for is a clock
            await asyncio.sleep(0.01)
    assert condition(), what


def test_five_failures_in_a_row_of_any_workers_open_it_for_all(url: str, client: redis.Redis) -> None:
    async def story(fleet: list[Breakers]) -> None:
        for breakers in fleet[:4]:
            await fail(breakers, 1)
        assert fleet[0][ROUTE].open_for_all()
        await succeed(fleet[4])
        for breakers in fleet[:5]:
            await sync(fleet)
            await fail(breakers, 1)
        await sync(fleet)
        assert [breakers[ROUTE].state for breakers in fleet] == ["open"] * len(fleet)
        assert 29 < fleet[7][ROUTE].reopens_in() <= 30
        stands = of_routes(client, [ROUTE])[ROUTE]
        assert (stands.breaker, stands.last, stands.calls) == ("open", (0, 0, 0, 0, 1, 0, 0, 0, 0, 0), 10)
        assert (stands.error_rate, stands.p50_ms) == (0.9, 20)

    Fleet(url).run(8, story)


def test_fifty_half_open_make_one_probe_and_a_killed_prober_loses_its_lease(
    url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(fleet: list[Breakers]) -> None:
        await fail(fleet[0], 5)
        await sync(fleet)
        await eventually(lambda: all(b[ROUTE].reopens_in() <= 0 for b in fleet), "the cooldown is over")
        admissions = await asyncio.gather(*(b[ROUTE].admit() for b in fleet))
        (prober,) = [b for b, admission in zip(fleet, admissions, strict=True) if admission]
        assert prober[ROUTE].probing
        others = [b for b in fleet if b is not prober]
        assert {b[ROUTE].closed_off()[1] for b in others} == {"breaker half-open, a probe is running"}
        held_until = float(client.hget(keyspace.breaker(ROUTE), "probe_until_ms") or 0)
        await eventually(lambda: time.time() * 1000 > held_until - 4900, "some of the lease has passed")
        await prober.sync()  # a probe that lives on is held by its worker's polls
        assert float(client.hget(keyspace.breaker(ROUTE), "probe_until_ms") or 0) > held_until
        assert not any(await asyncio.gather(*(b[ROUTE].admit() for b in others)))
        monkeypatch.setattr(breakers_module, "PROBE_LEASE_SECONDS", 0.1)
        await prober.sync()  # the last one: its worker is killed
        async with asyncio.timeout(20):
            while (admission := await others[0][ROUTE].admit()) is None:
                await asyncio.sleep(0.02)
                await others[0].sync()
        prober[ROUTE].record(next(a for a in admissions if a), False)  # late: it settles nothing
        await prober.sync()
        others[0][ROUTE].record(admission, True)
        await sync(others[:2])
        await succeed(others[1])
        await sync(fleet)
        assert {b[ROUTE].state for b in fleet} == {"closed"}

    Fleet(url, Rules(cooldown_seconds=0.1)).run(50, story)


def test_leave_to_probe_that_is_not_used_is_given_back(url: str, client: redis.Redis) -> None:
    async def story(fleet: list[Breakers]) -> None:
        first, second = fleet
        await fail(first, 5)
        await eventually(lambda: first[ROUTE].due(), "the cooldown is over")
        await first.reserve()
        assert first[ROUTE].may_probe()
        await second.sync()
        await second.reserve()
        assert not second[ROUTE].may_probe()
        first.forgo()
        await first.sync()
        await second.sync()
        await second.reserve()
        assert second[ROUTE].may_probe()

    Fleet(url, Rules(cooldown_seconds=0.05)).run(2, story)


def test_one_jobs_own_retries_do_not_open_a_route_that_answers_others(url: str, client: redis.Redis) -> None:
    async def story(fleet: list[Breakers]) -> None:
        (breakers,) = fleet
        await succeed(breakers)
        await fail(breakers, 9, job="poison")
        assert breakers[ROUTE].open_for_all()
        await fail(breakers, 1, job="another")
        assert breakers[ROUTE].state == "open"

    Fleet(url).run(1, story)


def test_a_rest_is_everybodys_and_no_failure(url: str, client: redis.Redis) -> None:
    async def story(fleet: list[Breakers]) -> None:
        admission = await fleet[0][ROUTE].admit()
        assert admission is not None
        fleet[0][ROUTE].record(admission, None, rest=30, why="quota")
        assert await fleet[0][ROUTE].admit() is None  # at once, before anybody was told
        await sync(fleet)
        for breakers in fleet:
            assert await breakers[ROUTE].admit() is None
            assert breakers[ROUTE].closed_off()[1] == "quota for 30 s"
        stands = of_routes(client, [ROUTE])[ROUTE]
        assert (stands.breaker, stands.rests_for, stands.calls) == ("closed", "quota", 0)

    Fleet(url).run(3, story)


def test_a_rest_that_is_renewed_for_the_same_reason_is_dated_from_the_first(url: str, client: redis.Redis) -> None:
    async def story(fleet: list[Breakers]) -> None:
        (breakers,) = fleet

        async def recorded(good: bool | None, rest: float = 0.0, why: str = "") -> int:
            admission = await breakers[ROUTE].admit()
            while admission is None:
                await asyncio.sleep(0.005)
                admission = await breakers[ROUTE].admit()
            breakers[ROUTE].record(admission, good, rest=rest, why=why)
            await breakers.sync()
            return of_routes(client, [ROUTE])[ROUTE].rests_since_ms

        first = await recorded(None, 0.01, "billing")
        assert first > 0
        assert await recorded(None, 0.01, "billing") == first
        other = await recorded(None, 0.01, "unauthorized")
        assert other > first
        await recorded(True)
        assert await recorded(None, 0.01, "unauthorized") > other

    Fleet(url).run(1, story)


def test_a_report_that_is_sent_again_counts_once(url: str, client: redis.Redis) -> None:
    async def story(fleet: list[Breakers]) -> None:
        (breakers,) = fleet
        for _ in range(3):
            admission = await breakers[ROUTE].admit()
            assert admission is not None
            breakers[ROUTE].record(admission, False)
        breakers._number += 1
        breakers._report = breakers._call()
        report = breakers._report
        await breakers.sync()
        breakers._report = report
        await breakers.sync()
        assert client.hget(keyspace.breaker(ROUTE), "failures") == b"3"

    Fleet(url).run(1, story)


def test_while_redis_is_away_each_worker_protects_the_routes_alone(
    url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(fleet: list[Breakers]) -> None:
        (breakers,) = fleet

        with monkeypatch.context() as patch:
            patch.setattr(breakers_module, "ask_async", away)
            await breakers.sync()
            assert breakers.alone
            await fail(breakers, 5)
            assert await breakers[ROUTE].admit() is None
            assert breakers[ROUTE].state == "open"
        await breakers.sync()
        assert (breakers.alone, breakers[ROUTE].open_for_all()) == (False, True)  # nobody else saw it fail

    Fleet(url).run(1, story)


def test_an_open_route_stays_open_when_redis_goes_away(
    url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(fleet: list[Breakers]) -> None:
        (breakers,) = fleet
        await fail(breakers, 5)

        monkeypatch.setattr(breakers_module, "ask_async", away)
        await breakers.sync()
        assert breakers.alone
        assert await breakers[ROUTE].admit() is None
        assert 29 < breakers[ROUTE].reopens_in() <= 30

    Fleet(url).run(1, story)


def test_workers_hear_of_an_opening_at_once(workshop: Workshop, producer: Producer, client: redis.Redis) -> None:
    workshop.routes(hot=[{"upstream": "hot"}], warm=[{"upstream": "warm"}])
    workshop.providers.behave("hot", status=502, latency=(0.05, 0.05))
    workshop.providers.behave("warm", latency=(0.05, 0.05))
    for _ in range(4):
        workshop.worker("--concurrency", "1")
    job_ids = [receipt.job_id for receipt in producer.enqueue_many(chat(str(n)) for n in range(60))]
    until(lambda: all(producer.ended(job_ids)), "all are answered by warm", 60)
    assert workshop.providers.account("hot")["asked"] <= 5 + 3  # and what the other workers had in flight
    # workers tell their calls in batches
    until(lambda: client.llen(keyspace.calls("warm/warm-1")) == 60, "all calls are told")
    status = json.loads(workshop.run("failover", "status", "--json").stdout)
    hot, warm = status["routes"]
    assert (hot["health"]["breaker"], warm["health"]["breaker"]) == ("open", "closed")
    assert (hot["health"]["error_rate"], warm["health"]["error_rate"], warm["health"]["calls"]) == (1.0, 0.0, 60)


@pytest.mark.parametrize(
    "message", [b"", b"[]", b"null", b'{"route": "r"}', b'{"route": "r", "version": "x"}', b"\xff"]
)
def test_what_others_publish_on_the_channel_stops_no_worker(url: str, client: redis.Redis, message: bytes) -> None:
    async def story(fleet: list[Breakers]) -> None:
        fleet[0].heard(message)
        assert fleet[0][ROUTE].open_for_all()

    Fleet(url).run(1, story)


def test_a_breaker_that_was_tampered_with_is_closed(url: str, client: redis.Redis) -> None:
    client.hset(keyspace.breaker(ROUTE), mapping={"state": "nonsense", "failures": "many", "opens_ms": "x"})

    async def story(fleet: list[Breakers]) -> None:
        await fail(fleet[0], 5)
        assert fleet[0][ROUTE].state == "open"

    Fleet(url).run(1, story)
