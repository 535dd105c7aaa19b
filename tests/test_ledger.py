"""The ledger on a real server: caps hold to the micro-dollar, rows end once, sums survive their loss."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
import redis

from producer import keyspace
from producer.connection import connect_async
from producer.scripts import ask, run_async
from tests.support.ledger import MONTH, STEPS, booked, reservation, rows, sums
from tests.support.replies import fields
from worker.money.caps import Owner
from worker.money.ledger import AWAY, BUSY_SECONDS, USED_UP_SECONDS, Ledger, Refusal, RefusalReason, sweep
from worker.queue.batcher import Batcher

USED_UP = Refusal(RefusalReason.BUDGET, "tenant:acme", USED_UP_SECONDS)
BUSY = Refusal(RefusalReason.BUSY, "tenant:acme", BUSY_SECONDS)


def alert_thresholds(client: redis.Redis) -> dict[str, Any]:
    told = fields(client.hgetall(keyspace.ALERT_THRESHOLDS + MONTH))
    return {scope: json.loads(raw) for scope, raw in told.items()}


def test_a_thousand_reservations_at_once_never_pass_a_cap(url: str, client: redis.Redis) -> None:
    """From four workers, of odd sizes, near a cap: what is granted fits, and what is left is too small for any that was not."""
    cap, sizes = 1_000_003, [random.Random(7).randint(1_001, 9_999) for _ in range(1000)]
    granted: list[int] = []

    async def work(ledgers: list[Ledger]) -> None:
        async def one(number: int) -> None:
            asked = reservation(number, sizes[number], cap)
            if await ledgers[number % 4].reserve(asked) is None:
                assert await ledgers[number % 4].dispatch(asked)
                granted.append(sizes[number])

        await asyncio.gather(*(one(number) for number in range(1000)))

    booked(url, work, workers=4)
    assert sum(granted) == sums(client)["held:tenant:acme"] <= cap
    assert cap - sum(granted) < min(sizes) + 9_999
    refused = sorted(sizes)
    for size in granted:
        refused.remove(size)
    assert cap - sum(granted) < refused[0]


def test_the_last_micro_dollar_is_spent_and_not_one_more(url: str, client: redis.Redis) -> None:
    async def work(ledgers: list[Ledger]) -> None:
        (ledger,) = ledgers
        assert await ledger.reserve(reservation(1, 999_999, 1_000_000)) is None
        assert await ledger.reserve(reservation(2, 2, 1_000_000)) == BUSY
        assert await ledger.reserve(reservation(3, 1, 1_000_000)) is None
        assert await ledger.reserve(reservation(4, 1, 1_000_000)) == BUSY
        assert await ledger.reserve(reservation(6, 1_000_001, 1_000_000)) == USED_UP
        assert await ledger.reserve(reservation(5, 0, 1_000_000)) is None

    booked(url, work)
    assert sums(client)["held:total"] == 1_000_000


def test_a_row_settles_on_what_came_back_and_frees_the_rest(url: str, client: redis.Redis) -> None:
    async def work(ledgers: list[Ledger]) -> None:
        (ledger,) = ledgers
        one, two, three = (reservation(number, 500, 1000) for number in (1, 2, 3))
        for each in (one, two):
            assert await ledger.reserve(each) is None
            assert await ledger.dispatch(each)
        ledger.close(one, "settled", 120, 30, 12)
        ledger.close(two, "released")
        assert await ledger.reserve(three) is None
        ledger.close(three, "ambiguous", 500)

    booked(url, work)
    found = sums(client)
    scopes = ("total", "provider:openai", "tenant:acme", "user:acme/u1", "feature:notes")
    assert {name: value for name, value in found.items() if name.startswith("spent:")} == {
        f"spent:{scope}": 120 for scope in scopes
    }
    assert found["ambiguous:tenant:acme"] == 500
    assert not [name for name in found if name.startswith("held")]
    assert [(row["state"], row["micros"], row["price"]) for row in rows(client)] == [
        ("settled", "120", "routes.json 1/2"),
        ("released", "0", "routes.json 1/2"),
    ]
    assert client.hlen(keyspace.AMBIGUOUS + MONTH) == 1 and client.hlen(keyspace.RESERVATIONS) == 0


def test_a_lost_counter_is_counted_anew_and_never_zero(url: str, client: redis.Redis) -> None:
    async def spend(ledgers: list[Ledger]) -> None:
        for number in range(30):
            each = reservation(number, 100, 10_000)
            assert await ledgers[0].reserve(each) is None
            if number < 20:
                ledgers[0].close(each, ("settled", "ambiguous")[number % 2], 90, 7, 3)

    booked(url, spend)
    before = sums(client)
    assert before["spent:tenant:acme"] == before["ambiguous:tenant:acme"] == 900
    assert before["held:tenant:acme"] == 1000
    client.delete(keyspace.SPENT + MONTH)

    async def close(ledgers: list[Ledger]) -> None:
        ledgers[0].close(reservation(29, 100, 10_000), "settled", 0, 7, 3)

    booked(url, close)
    assert sums(client)["held:tenant:acme"] == 900
    client.delete(keyspace.SPENT + MONTH)

    async def again(ledgers: list[Ledger]) -> None:
        assert await ledgers[0].reserve(reservation(99, 7_301, 10_000)) == BUSY
        assert await ledgers[0].reserve(reservation(98, 7_300, 10_000)) is None

    booked(url, again)
    after = sums(client)
    assert after.pop("held:tenant:acme") == 8_200
    assert {name: value for name, value in after.items() if name.startswith("spent")} == {
        name: value for name, value in before.items() if name.startswith("spent")
    }


def test_a_call_whose_row_was_lost_is_written_when_it_ends(url: str, client: redis.Redis) -> None:
    """Redis forgot the reservation, or it was made while Redis was away and then refused by a limit."""

    async def work(ledgers: list[Ledger]) -> None:
        (ledger,) = ledgers
        lost, unsaid = reservation(1, 100), reservation(2, 100)
        assert await ledger.reserve(lost) is None
        client.delete(keyspace.RESERVATIONS)
        ledger.close(lost, "settled", 60, 4, 4)
        ledger.close(unsaid, "ambiguous", 100)
        ledger.close(reservation(3, 100), "released")

    booked(url, work)
    assert (sums(client)["spent:total"], sums(client)["ambiguous:total"], len(rows(client))) == (60, 100, 1)


def test_a_tenants_own_account_is_no_matter_of_ours_and_names_do_not_collide(url: str, client: redis.Redis) -> None:
    async def work(ledgers: list[Ledger]) -> None:
        (ledger,) = ledgers
        own = reservation(1, 100, own=True)
        odd = reservation(2, 100)
        odd.owner = Owner("job2", "acme/u1", "x", "", "ai-tasks", "job2:e")
        other = reservation(3, 100)
        other.owner = Owner("job3", "acme", "u1/x", "", "ai-tasks", "job3:e")
        for each in (own, odd, other):
            assert await ledger.reserve(each) is None
            ledger.close(each, "settled", 100, 1, 1)

    booked(url, work)
    found = sums(client)
    assert (found["spent:total"], found["spent:tenant:acme"]) == (200, 200)
    assert (found["spent:user:acme%2Fu1/x"], found["spent:user:acme/u1/x"]) == (100, 100)


def test_one_row_that_redis_refuses_takes_no_other_along(url: str, client: redis.Redis) -> None:
    async def work(ledgers: list[Ledger]) -> None:
        (ledger,) = ledgers
        wrong = reservation(1, 100)
        wrong.micros = "much"  # type: ignore[assignment]  # what no type checker sees
        asked = [reservation(number, 100) for number in (2, 3)]
        assert await asyncio.gather(*(ledger.reserve(each) for each in (wrong, *asked))) == [None] * 3
        for each in asked:
            ledger.close(each, "settled", 60, 1, 1)

    booked(url, work)
    assert sums(client)["spent:total"] == 120


def test_a_batch_that_is_sent_twice_counts_once(url: str, client: redis.Redis) -> None:
    async def work() -> None:
        redis_client = connect_async(url, max_connections=1)
        batcher = Batcher(redis_client, random.random)
        ledger = Ledger("worker", batcher, lambda: STEPS)
        one = reservation(1, 100, 1000)
        asked = asyncio.create_task(ledger.reserve(one))
        await asyncio.sleep(0)
        ledger.close(one, "settled", 60, 4, 4)
        (request,) = batcher._waiting
        first = await run_async(redis_client, [request.built()])  # its reply is lost
        await batcher.flush()
        assert await asked is None
        assert await run_async(redis_client, [request.built()]) == first
        await redis_client.aclose()

    asyncio.run(work())
    assert (sums(client)["spent:tenant:acme"], len(rows(client))) == (60, 1)


def test_what_a_vanished_worker_left_comes_back_once(url: str, client: redis.Redis) -> None:
    """A reservation that had not gone out is free again, a call that had may have been billed; one that runs stays; a late
    truth still counts."""
    late = reservation(2, 300, 10_000)

    async def work(ledgers: list[Ledger]) -> None:
        for number in (1, 2, 3):
            each = late if number == 2 else reservation(number, 300, 10_000)
            assert await ledgers[0].reserve(each) is None
            if number > 1:
                assert await ledgers[0].dispatch(each)

    booked(url, work)
    client.zadd(keyspace.leases("ai-tasks"), {"job3:e": 1})
    client.zadd(keyspace.RESERVATION_AGES, {f"job{number}:e:1": 0 for number in (1, 2, 3)})
    assert ask(client, [sweep(STEPS)]) == [[1, 1, 0]]
    assert ask(client, [sweep(STEPS)]) == [[0, 0, 0]]
    found = sums(client)
    assert (found["held:total"], found["ambiguous:total"], found.get("spent:total", 0)) == (300, 300, 0)

    async def truth(ledgers: list[Ledger]) -> None:
        ledgers[0].close(late, "settled", 40, 4, 4)

    booked(url, truth, workers=1)
    found = sums(client)
    assert (found["spent:total"], found.get("ambiguous:total", 0)) == (40, 0)


def test_each_alert_threshold_is_noted_and_when_a_cap_is_full(url: str, client: redis.Redis) -> None:
    seen = []

    async def work(ledgers: list[Ledger]) -> None:
        (ledger,) = ledgers
        for number in range(10):
            each = reservation(number, 100, 1000)
            assert await ledger.reserve(each) is None
            ledger.close(each, "settled", 100, 1, 1)
            probe = reservation(100 + number, 0, 1000)
            await ledger.reserve(probe)
            ledger.close(probe, "released")
            seen.append(alert_thresholds(client).get("tenant:acme", {}).get("step"))
        assert await ledger.reserve(reservation(50, 1, 1000)) == USED_UP
        assert alert_thresholds(client)["tenant:acme"]["full"]
        raised = reservation(51, 1, 5000)
        assert await ledger.reserve(raised) is None
        assert alert_thresholds(client) == {}

    booked(url, work)
    assert seen == [None] * 5 + [60, 60, 80, 85, 95]


def test_a_cap_on_tokens_holds_like_one_on_money(url: str, client: redis.Redis) -> None:
    async def work(ledgers: list[Ledger]) -> None:
        (ledger,) = ledgers
        assert await ledger.reserve(reservation(1, 0, tokens=15)) is None
        assert await ledger.reserve(reservation(2, 0, tokens=15)) == BUSY

    booked(url, work)


def test_without_redis_a_hard_cap_lets_nothing_through_and_the_rest_is_written_later(
    url: str, client: redis.Redis
) -> None:
    async def work() -> None:
        redis_client = connect_async(url, max_connections=1)
        batcher = Batcher(redis_client, random.random)
        ledger = Ledger("worker", batcher, lambda: STEPS)
        held = asyncio.create_task(ledger.reserve(reservation(1, 100, 1000)))
        free = asyncio.create_task(ledger.reserve(reservation(2, 100)))
        await asyncio.sleep(0)
        (request,) = batcher._waiting
        await run_async(redis_client, [request.built()])  # it came through, its reply did not
        assert request.on_away is not None
        request.on_away()
        assert await held == AWAY and await free is None
        assert await ledger.reserve(reservation(3, 100, 1000)) == AWAY
        later = reservation(4, 100)
        assert await ledger.reserve(later) is None
        ledger.close(later, "settled", 60, 1, 1)
        await batcher.flush()
        assert batcher._waiting == []
        await redis_client.aclose()

    asyncio.run(work())
    found = sums(client)
    assert (found["held:total"], found["spent:total"]) == (100, 60)


@pytest.mark.parametrize("key", [keyspace.ALERT_THRESHOLDS + MONTH, keyspace.BUDGETS])
def test_what_somebody_wrote_over_is_read_as_nothing(url: str, client: redis.Redis, key: str) -> None:
    client.hset(key, "tenant:acme", "garbage")
    client.hset(keyspace.RESERVATIONS, mapping={"x": "garbage", "y": '{"month": "' + MONTH + '"}'})

    async def work(ledgers: list[Ledger]) -> None:
        assert await ledgers[0].reserve(reservation(1, 900, 1000)) is None
        ledgers[0].close(reservation(1, 900, 1000), "settled", 900, 1, 1)
        assert await ledgers[0].reserve(reservation(2, 900, 1000)) == USED_UP

    booked(url, work)


def test_a_sum_that_is_no_number_is_not_zero_and_harms_no_other(url: str, client: redis.Redis) -> None:
    async def work(ledgers: list[Ledger]) -> None:
        assert await ledgers[0].reserve(reservation(1, 100, 1000)) is None
        client.hset(keyspace.SPENT + MONTH, "spent:tenant:acme", "garbage")
        other = reservation(3, 100)
        other.caps, other.owner = {"tenant:globex": (1000, 1000, -1)}, Owner("j", "globex", "", "", "ai-tasks", "j:e")
        asked = (ledgers[0].reserve(each) for each in (reservation(2, 100, 1000), other))
        refused, granted = await asyncio.gather(*asked)
        assert refused is not None and refused.why == "broken" and granted is None

    booked(url, work)
