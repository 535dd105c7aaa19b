"""One rule at every door: what is refused is refused before anything is written, and what is accepted can be executed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
import redis

from producer import InvalidJob, LLMJob, Producer, UnknownJob, keyspace
from producer.batch import BadLine, Line, read
from producer.job import LONGEST_ID, MOST_JOB_BYTES, JobStatus
from tests.support.jobs import asking, chat
from tests.support.transitions import claim

INFINITE = "1e400"  # of JSON, and too large for a double


def body(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hello"}], **fields}


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


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
    "a set": lambda: asking(body(stop={"a"})),
    "names of several types": lambda: asking(body(logit_bias={1: 1, "b": 2})),
}
LONE = "\ud800"


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_what_is_refused_leaves_nothing_behind_not_even_the_jobs_before_it(
    producer: Producer, client: redis.Redis, bad: Callable[[], LLMJob]
) -> None:
    with pytest.raises(InvalidJob):
        producer.enqueue(bad())
    with pytest.raises(InvalidJob):
        producer.enqueue_many([*(chat(str(n)) for n in range(250)), bad()])
    assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("wrong", "field", "what"),
    [
        ({"stop": {"a"}}, "body.stop", "is a Python set"),
        ({"user": b"a"}, "body.user", "is a Python bytes"),
        ({"metadata": {"when": [datetime(2026, 11, 28, tzinfo=UTC)]}}, "body.metadata.when.0", "is a Python datetime"),
        ({"temperature": Decimal("0.5")}, "body.temperature", "is a Python Decimal"),
        ({"temperature": math.inf}, "body.temperature", "is inf"),
        ({"messages": [{"role": "user", "content": [{"x": math.nan}]}]}, "body.messages.0.content.0.x", "is nan"),
        ({"messages": [{"role": "user", "content": LONE}]}, "body.messages.0.content", "lone surrogate"),
        ({"messages": [{"role": "user", "content": "a\0"}]}, "body.messages.0.content", "NUL"),
        ({"metadata": {"a\0": 1}}, "body.metadata", "NUL"),
        ({"logit_bias": {1: 1, "b": 2}}, "body.logit_bias", "has the name 1, which is no text"),
        ({"logit_bias": {(1, 2): 1}}, "body.logit_bias", "has the name (1, 2), which is no text"),
        ({"metadata": nested(250)}, "body.metadata" + ".0" * 189, "levels deep"),
        ({"metadata": nested(5000)}, "body.metadata" + ".0" * 189, "levels deep"),
    ],
)
def test_what_json_does_not_have_is_named_by_its_field(
    producer: Producer, wrong: dict[str, Any], field: str, what: str
) -> None:
    with pytest.raises(InvalidJob) as refused:
        producer.enqueue(asking(body(**wrong)))
    assert (refused.value.field, what in refused.value.what) == (field, True)


def test_a_text_that_is_no_unicode_is_named_outside_of_the_body_too(producer: Producer) -> None:
    with pytest.raises(InvalidJob, match=r"^metadata\.note: .* holds a lone surrogate"):
        producer.enqueue(chat(metadata={"note": LONE}))


@pytest.mark.parametrize("number", ["NaN", "-Infinity", INFINITE])
def test_a_number_of_a_request_that_is_not_finite_is_named_by_its_field(web: httpx.Client, number: str) -> None:
    text = json.dumps({"body": body(messages=[{"role": "user", "content": "hi", "weight": 7}])}).replace("7", number)
    answer = web.post("/jobs", content=text.encode())
    assert answer.status_code in (400, 422)
    assert re.search(
        r"body\.messages\.0\.weight: .*is -?(inf|nan), which JSON does not have", answer.json()["error"]["message"]
    )


def test_an_id_that_is_no_unicode_is_an_unknown_job(producer: Producer, client: redis.Redis) -> None:
    for call in (
        producer.fetch,
        lambda job_id: producer.wait(job_id, 1),
        lambda job_id: producer.cancel(job_id, who="me"),
    ):
        with pytest.raises(UnknownJob, match=r"ud800"):
            call(LONE)
    job_id = producer.enqueue(chat())
    assert [found and found.job_id for found in producer.fetch_many([LONE, job_id])] == [None, job_id]
    assert producer.ended([LONE, job_id]) == [True, False]
    with pytest.raises(UnknownJob):
        producer.fetch(job_id, tenant=LONE)
    with pytest.raises(InvalidJob, match="letters, digits, _ and -"):
        producer.enqueue(chat(), job_id=LONE)


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
        line(6, good[:-1] + ', "temperature": NaN}'),
    ]
    found = list(read(lines, job_type="default", tenant_id="default"))
    assert [type(each) for each in found] == [Line, BadLine, BadLine, BadLine, Line, BadLine]
    assert [str(each).partition(":")[0] for each in found if isinstance(each, BadLine)] == [
        "line 2",
        "line 3",
        "line 4",
        "line 6",
    ]
    assert str(found[1]).startswith("line 2: body.temperature: cannot be sent as JSON: it is inf")
    assert str(found[5]).startswith("line 6: is not JSON: body.temperature: is nan")


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
