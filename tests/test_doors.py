"""One rule at every door: what is refused is refused before anything is written, and what is accepted can be executed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import redis

from producer import InvalidJob, LLMJob, Producer, keyspace
from producer.batch import BadLine, Line, read
from producer.job import LONGEST_ID, MOST_JOB_BYTES, JobStatus
from tests.support.jobs import asking, chat
from tests.support.transitions import claim

INFINITE = "1e400"  # of JSON, and too large for a double


def body(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hello"}], **fields}


@pytest.mark.parametrize("job_id", ["order:4711", "a/b", "a@b", "a.b", "a b", "ü", "", "a\n", "x" * (LONGEST_ID + 1)])
def test_an_id_that_claims_do_not_read_is_refused_at_the_door(
    producer: Producer, client: redis.Redis, job_id: str
) -> None:
    with pytest.raises(InvalidJob, match="letters, digits, _ and -"):
        producer.enqueue(chat(), job_id=job_id)
    assert client.dbsize() == 0


@pytest.mark.parametrize("job_id", ["a", "A-b_9", "x" * LONGEST_ID])
def test_an_id_that_is_accepted_is_claimed(producer: Producer, client: redis.Redis, job_id: str) -> None:
    assert producer.enqueue(chat(), job_id=job_id) == job_id
    assert [held.job_id for held in claim(client)] == [job_id]


BAD = {
    "a number that is not finite": lambda: asking(body(temperature=float("inf"))),
    "a NUL": lambda: chat("a\0b"),
    "a lone surrogate": lambda: chat("\ud800"),
    "too large": lambda: chat("x" * MOST_JOB_BYTES),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_what_is_refused_leaves_nothing_behind_not_even_the_jobs_before_it(
    producer: Producer, client: redis.Redis, bad: Callable[[], LLMJob]
) -> None:
    with pytest.raises(InvalidJob):
        producer.enqueue(bad())
    with pytest.raises(InvalidJob):
        producer.enqueue_many([*(chat(str(n)) for n in range(250)), bad()])
    assert client.dbsize() == 0


def test_the_limit_is_in_the_sentence(producer: Producer) -> None:
    with pytest.raises(InvalidJob, match="larger than the limit of 32 MB"):
        producer.enqueue(BAD["too large"]())


def test_a_bad_line_of_a_batch_is_named_and_the_others_run() -> None:
    def line(number: int, text: str) -> bytes:
        start = json.dumps({"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions"})
        return f'{start[:-1]}, "body": {text}}}'.encode()

    good = json.dumps(body())
    lines = [
        line(1, good),
        line(2, good[:-1] + f', "temperature": {INFINITE}}}'),
        line(3, json.dumps({"messages": [{"role": "user", "content": "a\0b"}]})),
        line(4, json.dumps({"messages": [{"role": "user", "content": "x" * MOST_JOB_BYTES}]})),
        line(5, good),
    ]
    found = list(read(lines, job_type="default", tenant_id="default"))
    assert [type(each) for each in found] == [Line, BadLine, BadLine, BadLine, Line]
    assert [str(each).partition(":")[0] for each in found if isinstance(each, BadLine)] == [
        "line 2",
        "line 3",
        "line 4",
    ]


def test_a_key_is_free_again_once_its_job_was_cancelled(producer: Producer, client: redis.Redis) -> None:
    first = producer.enqueue(chat(idempotency_key="k"))
    producer.cancel(first, who="me")
    again = producer.enqueue(chat(idempotency_key="k"))
    assert again != first
    assert producer.enqueue(chat(idempotency_key="k")) == again
    assert producer.fetch(again).status is JobStatus.QUEUED
    assert [held.job_id for held in claim(client, 9)] == [again]


def test_a_key_is_free_again_once_its_job_is_lost(producer: Producer, client: redis.Redis) -> None:
    first = producer.enqueue(chat(idempotency_key="k"))
    client.set(keyspace.job(first), "of another tool")
    again = producer.enqueue(chat(idempotency_key="k"))
    assert again != first
    assert [held.job_id for held in claim(client, 9)] == [again]
