"""rpm, tpm and calls at once: never over, shared by all workers, and what providers say of themselves."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
import redis
import redis.asyncio

from producer import Producer, keyspace
from producer.job import JobStatus
from producer.trail import RejectedFor, Rejection
from tests.support.jobs import asking, chat
from tests.support.ledger import booked, reservation
from tests.support.money import budgets
from tests.support.polling import until
from tests.support.routes import done
from tests.support.workshop import Workshop
from worker.money.caps import Budgets
from worker.money.ledger import Ledger, Limit, Refusal
from worker.money.rate_limits import ProviderLimits, RateLimits, limits_in_headers
from worker.queue import batcher as batcher_module
from worker.queue.batcher import BATCH
from worker.routes.route import load_routes

NOW = 1_795_000_000.0


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, ProviderLimits()),
        (
            {
                "x-ratelimit-limit-requests": "500",
                "x-ratelimit-remaining-requests": "3",
                "x-ratelimit-reset-requests": "1s",
            },
            ProviderLimits(500),
        ),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, ProviderLimits(rest=360.0)),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "250ms"}, ProviderLimits(rest=0.25)),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m2.5s"}, ProviderLimits(rest=62.5)),
        (
            {
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2026-11-18T11:06:50Z",
                "anthropic-ratelimit-tokens-limit": "40000",
            },
            ProviderLimits(50, 40_000, rest=10.0),
        ),
        ({"x-ratelimit-limit-requests": "nan", "x-ratelimit-remaining-requests": "0"}, ProviderLimits()),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9" * 400}, ProviderLimits()),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "soon"}, ProviderLimits()),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "-5"}, ProviderLimits()),
    ],
)
def test_what_headers_say(headers: dict[str, str], found: ProviderLimits) -> None:
    assert limits_in_headers(headers, NOW) == found


def ask_for(url: str, limit: Limit, count: int, *, tokens: int = 10, workers: int = 1) -> list[Refusal | None]:
    """What becomes of so many calls at once, from so many workers."""
    answers: list[Refusal | None] = []

    async def work(ledgers: list[Ledger]) -> None:
        asked = [reservation(number, 0, limits=(limit,)) for number in range(count)]
        for each in asked:
            each.tokens = tokens
        reserved = (ledgers[number % workers].reserve(each) for number, each in enumerate(asked))
        answers.extend(await asyncio.gather(*reserved))

    booked(url, work, workers)
    return answers


def test_no_more_calls_a_minute_than_a_route_takes_from_four_workers(url: str) -> None:
    answers = ask_for(url, Limit("route a", requests=30), 100, workers=4)
    refused = [answer for answer in answers if answer is not None]
    assert len(refused) == 70
    assert all(answer.why == "limit" and answer.of == "route a" and 58 < answer.seconds <= 61 for answer in refused)


def test_no_more_tokens_a_minute_and_what_was_not_used_comes_back(url: str, client: redis.Redis) -> None:
    answers = ask_for(url, Limit("route a", tokens=1000), 5, tokens=300)
    assert [answer and answer.why for answer in answers] == [None] * 3 + ["tokens"] * 2

    async def work(ledgers: list[Ledger]) -> None:
        for number in range(3):
            ledgers[0].close(reservation(number, 0), "settled", 0, 10, 10)
        late = reservation(9, 0, limits=(Limit("route a", tokens=1000),))
        late.tokens = 940
        assert await ledgers[0].reserve(late) is None

    booked(url, work)


def test_a_call_that_is_larger_than_the_limit_goes_alone(url: str) -> None:
    assert [a is None for a in ask_for(url, Limit("route a", tokens=100), 2, tokens=5000)] == [True, False]


def test_calls_at_once_are_counted_until_they_end(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "a", "maxConcurrency": 3}])
    workshop.providers.behave("a", latency=(0.05, 0.15))
    for _ in range(2):
        workshop.worker("--concurrency", "20")
    receipts = producer.enqueue_many([chat(f"{n}") for n in range(60)])
    results = [producer.wait(receipt.job_id, 60) for receipt in receipts]
    assert {result.status for result in results} == {JobStatus.DONE}
    assert workshop.providers.account("a")["most_in_flight"] == 3
    assert {result.attempts for result in results} == {1}


def test_a_route_at_its_limit_is_passed_over_for_the_next(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "a", "rpm": 5}], warm=[{"upstream": "b"}])
    workshop.worker()
    receipts = producer.enqueue_many([chat(f"{n}") for n in range(20)])
    results = [producer.wait(receipt.job_id, 30) for receipt in receipts]
    assert {result.status for result in results} == {JobStatus.DONE}
    assert workshop.providers.account("a")["asked"] == 5
    codes = {e.code for result in results for e in result.trail if isinstance(e, Rejection)}
    assert codes <= {RejectedFor.LIMITED, RejectedFor.RESTS} and codes


def test_jobs_that_only_a_limited_route_can_take_wait_and_burn_nothing(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    workshop.routes(hot=[{"upstream": "a", "rpm": 5}])
    worker = workshop.worker()
    receipts = producer.enqueue_many([chat(f"{n}") for n in range(8)])
    until(lambda: client.zcard(keyspace.finished("ai-tasks")) == 5, "five are done")
    until(lambda: "cooldown: our own limit" in workshop.run("failover", "status").stdout, "the route rests")
    assert workshop.providers.account("a")["asked"] == 5
    statuses = [result.status for result in producer.fetch_many([r.job_id for r in receipts]) if result]
    assert statuses.count(JobStatus.QUEUED) == 3
    assert not workshop.events(worker, "retrying")


def test_a_providers_tokens_a_minute_are_of_all_its_routes(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a", "rpm": 7}])
    budgets(workshop, providers={"a": {"tokens_per_minute": 500}})
    (route,) = load_routes(workshop.environment).routes
    limits = RateLimits(cast(Ledger, None))  # it asks for no place here
    caps = Budgets.model_validate({"providers": {"a": {"tokens_per_minute": 500}}})
    assert limits.of(route, caps) == (Limit("route a/a-1", requests=7), Limit("provider a", tokens=500))
    limits.hear(route, {"x-ratelimit-limit-requests": "4", "x-ratelimit-limit-tokens": "9000"}, NOW)
    assert limits.of(route, Budgets()) == (Limit("route a/a-1", requests=4),)


def test_a_route_whose_provider_says_that_nothing_is_left_rests(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "a"}], warm=[{"upstream": "b"}])
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s"}
    workshop.providers.behave("a", headers=headers)
    workshop.worker()
    assert done(producer).route == "a/a-1"
    until(lambda: done(producer).route == "b/b-1", "it is heard")
    assert workshop.providers.account("a")["asked"] <= 2


def test_a_job_of_many_tokens_waits_and_keeps_no_smaller_one_from_the_route(
    workshop: Workshop, producer: Producer
) -> None:
    workshop.routes(hot=[{"upstream": "a", "tpm": 2000}])
    workshop.worker()
    large = asking({**chat("x").body, "max_tokens": 1500})
    assert done(producer, large).status is JobStatus.DONE
    workshop.providers.behave("a", text="word " * 1200)
    assert done(producer, large).status is JobStatus.DONE
    waiting = producer.enqueue(large)
    until(lambda: "its tokens of this minute are used up" in (producer.fetch(waiting).waiting_for or ""), "it waits")
    small = asking({**chat("y").body, "max_tokens": 10})
    assert producer.wait(producer.enqueue(small), 10).status is JobStatus.DONE


def test_a_limit_that_is_far_away_costs_nobody_a_round_trip(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """600 calls at once go with as few round trips as without a limit: none waits for the answer to another one."""
    trips: list[int] = []
    run_async = batcher_module.run_async  # type: ignore[attr-defined]  # its own import

    async def counted(client: redis.asyncio.Redis, commands: list[Any]) -> Any:
        trips.append(len(commands))
        return await run_async(client, commands)

    monkeypatch.setattr(batcher_module, "run_async", counted)
    assert ask_through_limits(url, Limit("route a", requests=10**6), 600) == [None] * 600
    limited, trips[:] = list(trips), []
    assert ask_through_limits(url, Limit("route b"), 600) == [None] * 600
    assert limited == trips and len(trips) <= 600 // BATCH


def ask_through_limits(url: str, limit: Limit, count: int) -> list[Refusal | None]:
    answers: list[Refusal | None] = []

    async def work(ledgers: list[Ledger]) -> None:
        limits = RateLimits(ledgers[0])
        asked = (limits.reserve(reservation(number, 0, limits=(limit,)), 5.0) for number in range(count))
        answers.extend(await asyncio.gather(*asked))

    booked(url, work)
    return answers
