"""The line is fair between tenants, whole, and RQ's list while one tenant is alone."""

from __future__ import annotations

import random
from collections import Counter
from uuid import uuid4

import pytest
import redis

from producer import Producer, keyspace
from producer.job import JobStatus
from producer.scripts import ask
from producer.waiting import WaitReason
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.replies import texts
from tests.support.transitions import Q, settle
from tests.support.transitions import claim as claim_by
from tests.support.workshop import Workshop
from worker.queue import transitions
from worker.queue.claim import Claim
from worker.queue.fair_queue import length_call
from worker.queue.outcomes import Park, Released
from worker.queue.waiting import Waiting


def fill(producer: Producer, tenant: str, count: int, **fields: object) -> list[str]:
    receipts = producer.enqueue_many([chat(f"{tenant} {n}", tenant_id=tenant, **fields) for n in range(count)])
    return [receipt.job_id for receipt in receipts]


def claim(client: redis.Redis, at_most: int = 1) -> tuple[Claim, ...]:
    return claim_by(client, at_most, token=uuid4().hex)


def length(client: redis.Redis) -> int:
    ((count, _),) = ask(client, [length_call(Q)])
    return int(count)


def due(client: redis.Redis) -> int:
    """Parked jobs whose time has come, by the server's clock."""
    seconds, micros = client.time()
    return int(client.zcount(keyspace.scheduled(Q), "-inf", seconds + micros / 1e6 - 0.001))


def claimed(client: redis.Redis, count: int, one_at_a_time: bool = False) -> list[str]:
    if one_at_a_time:
        return [each.job_id for _ in range(count) for each in claim(client)]
    return [each.job_id for each in claim(client, count)]


def test_one_tenant_alone_fills_rqs_list_in_order(client: redis.Redis, producer: Producer) -> None:
    ids = fill(producer, "acme", 500)
    assert texts(client.lrange(keyspace.queue(Q), 0, -1)) == ids
    assert not client.exists(keyspace.round_robin(Q))
    assert claimed(client, 500) == ids


@pytest.mark.parametrize("one_at_a_time", [True, False])
def test_tenants_take_turns_however_many_jobs_each_has(
    client: redis.Redis, producer: Producer, one_at_a_time: bool
) -> None:
    acme, globex, third = (fill(producer, name, n) for name, n in (("acme", 1000), ("globex", 10), ("initech", 300)))
    assert length(client) == 1310
    assert claimed(client, 20, one_at_a_time) == acme[:20]  # a short line is left as it is
    first = claimed(client, 30, one_at_a_time)
    assert Counter("acme" if j in acme else "globex" if j in globex else "third" for j in first) == {
        "acme": 10,
        "globex": 10,
        "third": 10,
    }
    rest = claimed(client, 600, one_at_a_time)
    assert sum(job in third for job in rest) == 290 and sum(job in acme for job in rest) == 310
    assert [job for job in first + rest if job in third] == third  # each tenant's own in order
    assert claimed(client, 2000) == acme[340:]
    assert length(client) == 0 and not client.exists(keyspace.round_robin(Q))


def test_each_tenants_own_jobs_keep_their_order_however_they_come(client: redis.Redis, producer: Producer) -> None:
    draw = random.Random(2)
    ids: dict[str, list[str]] = {name: [] for name in ("acme", "globex", "initech")}
    got: list[str] = []
    for _ in range(60):
        name = draw.choice(list(ids))
        ids[name] += fill(producer, name, draw.choice([1, 5, 30]))
        got += claimed(client, draw.choice([1, 4, 20]))
    got += claimed(client, 5000)
    for own in ids.values():
        assert [job for job in got if job in set(own)] == own


def test_what_enters_at_the_head_goes_first(client: redis.Redis, producer: Producer) -> None:
    acme, globex = fill(producer, "acme", 50), fill(producer, "globex", 50)
    (urgent,) = fill(producer, "late", 1, priority=1)
    assert claimed(client, 1) == [urgent]
    (held,) = claim(client)
    settle(client, held, Released(()))
    assert claimed(client, 1) == [held.job_id]
    assert claimed(client, 19) == acme[1:20]
    assert claimed(client, 2) == [acme[20], globex[0]]


def test_parked_jobs_return_to_their_own_lane_in_the_order_in_which_they_were_accepted(
    client: redis.Redis, producer: Producer
) -> None:
    fill(producer, "acme", 50)
    globex = fill(producer, "globex", 30)
    held = [each for each in claim(client, 40) if each.job_id in globex]
    for number, each in enumerate(held):
        settle(client, each, Park(number / 1000, Waiting(WaitReason.ROUTE), ()))
    until(lambda: due(client) == len(held), "all are due")
    ask(client, [transitions.promote(Q)])
    tenant_queue = texts(client.lrange(keyspace.tenant_queue(Q, "globex"), 0, -1))
    assert tenant_queue[-len(held) :] == [each.job_id for each in held]


def test_a_cancelled_job_leaves_its_lane_and_an_empty_lane_leaves_the_ring(
    client: redis.Redis, producer: Producer
) -> None:
    acme, globex = fill(producer, "acme", 30), fill(producer, "globex", 3)
    for job_id in globex:
        producer.cancel(job_id, who="sam")
    assert length(client) == 30
    again = fill(producer, "globex", 2)
    assert length(client) == 32
    got = claimed(client, 32)
    assert [job for job in got if job in acme] == acme and [job for job in got if job in again] == again
    assert len(got) == 32 and got.index(again[1]) < 26


def test_a_lane_that_nobody_looks_into_is_found_by_the_audit(client: redis.Redis, producer: Producer) -> None:
    fill(producer, "acme", 30)
    globex = fill(producer, "globex", 3)
    client.delete(keyspace.round_robin(Q))
    ask(client, [transitions.audit(Q, globex)])
    assert [job for job in claimed(client, 100) if job in globex] == globex


def test_any_order_of_steps_loses_and_doubles_nothing(client: redis.Redis, producer: Producer) -> None:
    draw = random.Random(11)
    waiting: set[str] = set()
    taken: list[str] = []
    for _ in range(120):
        tenant = draw.choice(["acme", "globex", "initech", "umbrella"])
        waiting.update(fill(producer, tenant, draw.choice([1, 3, 40]), priority=int(draw.random() < 0.1)))
        for each in claim(client, draw.choice([1, 7, 60])):
            assert each.job_id in waiting
            waiting.discard(each.job_id)
            if draw.random() < 0.2:
                settle(client, each, Released(()))
                waiting.add(each.job_id)
            else:
                taken.append(each.job_id)
        assert length(client) == len(waiting)
    while got := claimed(client, 200):
        taken += got
        waiting.difference_update(got)
    assert not waiting and len(taken) == len(set(taken))


def test_ten_jobs_beside_three_thousand_are_soon_done(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.providers.behave("a", latency=(0.1, 0.2))
    fill(producer, "acme", 3000)
    workshop.worker("--concurrency", "20")
    until(lambda: workshop.providers.account("a")["answered"] > 20, "it is at work")
    before = workshop.providers.account("a")["asked"]
    ids = fill(producer, "globex", 10)
    assert {producer.wait(job_id, 30).status for job_id in ids} == {JobStatus.DONE}
    assert workshop.providers.account("a")["asked"] - before < 150
    told = workshop.run("failover", "status").stdout
    assert "ai-tasks" in told


def test_a_ring_that_somebody_wrote_over_stops_nothing(client: redis.Redis, producer: Producer) -> None:
    acme, globex = fill(producer, "acme", 30), fill(producer, "globex", 3)
    client.delete(keyspace.round_robin(Q))
    client.rpush(keyspace.round_robin(Q), "", "", "nobody")
    again = fill(producer, "globex", 1)
    assert [job for job in claimed(client, 100) if job in acme] == acme
    client.delete(keyspace.round_robin(Q))
    more = fill(producer, "globex", 1)
    assert claimed(client, 100) == [*globex, *again, *more]
