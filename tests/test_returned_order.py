"""Jobs that return to their queue stand there in the order in which they were accepted."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import count
from uuid import uuid4

import pytest
import redis

from producer import Producer, keyspace
from producer.scripts import ask
from producer.waiting import WaitReason
from tests.support.jobs import chat
from tests.support.replies import texts
from tests.support.transitions import Q, expire_leases, send, settle
from tests.support.transitions import claim as claim_by
from worker.control import pause
from worker.money.budget_state import WAKE_CAPPED
from worker.queue import transitions
from worker.queue.claim import Claim
from worker.queue.outcomes import Outcome, Park, Retry
from worker.queue.waiting import Waiting

ROUTE = Waiting(WaitReason.ROUTE, ("provider:openai",))
PARKED, IN_TURN, RETRIED = Park(600, ROUTE, ()), Park(600, ROUTE, (), in_turn=True), Retry(600, "why", ())
FIRST = (IN_TURN, RETRIED)  # they return to the head of the queue
TIMES = count(1_700_000_000_000)  # Unix milliseconds


def fill(client: redis.Redis, producer: Producer, tenant: str, jobs: int) -> list[str]:
    """Accept jobs, one millisecond after the other: the machine's clock may step back in between."""
    receipts = producer.enqueue_many([chat(f"{tenant} {n}", tenant_id=tenant) for n in range(jobs)])
    for receipt in receipts:
        client.hset(keyspace.job(receipt.job_id), keyspace.JobField.ACCEPTED, next(TIMES))
    return [receipt.job_id for receipt in receipts]


def put_off(client: redis.Redis, count: int, outcome: Outcome) -> list[str]:
    """Claim jobs, and settle them in any order. Returns their ids as they were claimed."""
    held: list[Claim] = []
    while len(held) < count:
        held += claim_by(client, count - len(held), token=uuid4().hex)
    for each in random.Random(5).sample(held, count):
        settle(client, each, outcome)
    return [each.job_id for each in held]


def queued(client: redis.Redis, tenant: str | None = None) -> list[str]:
    key = keyspace.tenant_queue(Q, tenant) if tenant else keyspace.queue(Q)
    return texts(client.lrange(key, 0, -1))


def promoted(client: redis.Redis) -> None:
    while send(client, transitions.promote(Q)):
        pass


def at_once(client: redis.Redis, ids: Sequence[str]) -> None:
    """All become due together."""
    client.zadd(keyspace.scheduled(Q), dict.fromkeys(ids, 1))
    promoted(client)


def one_by_one(client: redis.Redis, ids: Sequence[str]) -> None:
    for job_id in ids:
        at_once(client, [job_id])


def last_first(client: redis.Redis, ids: Sequence[str]) -> None:
    one_by_one(client, ids[::-1])


def in_handfuls(client: redis.Redis, ids: Sequence[str]) -> None:
    mixed = random.Random(7).sample(ids, len(ids))
    for start in range(0, len(mixed), 4):
        at_once(client, mixed[start : start + 4])


Due = Callable[[redis.Redis, Sequence[str]], None]
DUE = [at_once, one_by_one, last_first, in_handfuls]


@pytest.mark.parametrize("due", DUE)
@pytest.mark.parametrize("outcome", [PARKED, *FIRST])
def test_jobs_return_in_the_order_in_which_they_were_accepted(
    client: redis.Redis, producer: Producer, outcome: Outcome, due: Due
) -> None:
    fill(client, producer, "acme", 18)
    ids = put_off(client, 15, outcome)
    new = queued(client) + fill(client, producer, "acme", 3)
    due(client, ids)
    assert queued(client) == (ids + new if outcome in FIRST else new + ids)


@pytest.mark.parametrize("due", DUE)
@pytest.mark.parametrize("outcome", [PARKED, *FIRST])
def test_jobs_return_to_their_tenant_queues_in_that_order(
    client: redis.Redis, producer: Producer, outcome: Outcome, due: Due
) -> None:
    for tenant in ("acme", "globex", "initech"):
        fill(client, producer, tenant, 60)
    ids = put_off(client, 60, outcome)
    own = {tenant: _of(client, ids, tenant) for tenant in ("acme", "globex", "initech")}
    new = {tenant: _of(client, [*queued(client), *queued(client, tenant)], tenant) for tenant in own}
    due(client, ids)
    for tenant, theirs in own.items():
        found = _of(client, [*queued(client), *queued(client, tenant)], tenant)
        assert found == (theirs + new[tenant] if outcome in FIRST else new[tenant] + theirs)


def _of(client: redis.Redis, ids: Sequence[str], tenant: str) -> list[str]:
    return [each for each in ids if client.hget(keyspace.job(each), "tenant") == tenant.encode()]


def _budgets_changed(client: redis.Redis) -> None:
    ask(client, [WAKE_CAPPED.call([keyspace.QUEUES], [])])


def _provider_resumed(client: redis.Redis) -> None:
    pause.pause(client, pause.Scope(provider="openai"), who="sam", why="a test")
    pause.resume(client, pause.Scope(provider="openai"), who="sam")


@pytest.mark.parametrize("in_turn", [True, False])
@pytest.mark.parametrize(
    ("waiting", "wake"), [(Waiting(WaitReason.BUDGET, ("tenant:acme",)), _budgets_changed), (ROUTE, _provider_resumed)]
)
def test_jobs_that_are_woken_return_in_that_order(
    client: redis.Redis, producer: Producer, waiting: Waiting, wake: Callable[[redis.Redis], None], in_turn: bool
) -> None:
    fill(client, producer, "acme", 30)
    ids = put_off(client, 15, Park(600, waiting, (), in_turn=in_turn))
    others = put_off(client, 10, Park(600, Waiting(WaitReason.TOKENS), ()))
    new = queued(client)
    wake(client)
    promoted(client)
    assert queued(client) == (ids + new if in_turn else new + ids)
    assert set(texts(client.zrange(keyspace.scheduled(Q), 0, -1))) == set(others)


def woken(client: redis.Redis, _: Sequence[str]) -> None:
    _provider_resumed(client)
    promoted(client)


@pytest.mark.parametrize("due", [at_once, woken])
@pytest.mark.parametrize("outcome", [PARKED, IN_TURN])
def test_more_jobs_than_one_script_moves_return_in_that_order(
    client: redis.Redis, producer: Producer, outcome: Outcome, due: Due
) -> None:
    fill(client, producer, "acme", 1000)
    ids = put_off(client, 700, outcome)
    others = put_off(client, 150, Park(600, Waiting(WaitReason.TOKENS), ()))
    new = queued(client)
    due(client, ids)
    assert queued(client) == (ids + new if outcome is IN_TURN else new + ids)
    assert set(texts(client.zrange(keyspace.scheduled(Q), 0, -1))) == set(others)
    assert not client.keys("failover:wakes:*")


def test_jobs_of_workers_that_vanished_return_in_that_order(client: redis.Redis, producer: Producer) -> None:
    ids = fill(client, producer, "acme", 15)
    for number in range(5):
        claim_by(client, 3, token=f"t{number}")
    expire_leases(client)
    send(client, transitions.reap(Q, 10**15))
    assert queued(client) == ids


def test_jobs_that_were_in_no_list_return_in_that_order(client: redis.Redis, producer: Producer) -> None:
    ids = fill(client, producer, "acme", 15)
    client.delete(keyspace.queue(Q))
    send(client, transitions.audit(Q, sorted(ids)))
    assert queued(client) == ids


def test_dead_letters_that_were_requeued_together_and_parked_return_in_that_order(
    client: redis.Redis, producer: Producer
) -> None:
    """One script accepts them, so all have the same time."""
    ids = fill(client, producer, "acme", 15)
    at = int(client.hget(keyspace.job(ids[0]), "accepted_ms") or 0)
    for number, job_id in enumerate(ids):
        created = f"2026-11-29T12:00:00.{number:06}Z"
        client.hset(keyspace.job(job_id), mapping={"accepted_ms": at, "created_at": created})
    at_once(client, put_off(client, 15, PARKED))
    assert queued(client) == ids
