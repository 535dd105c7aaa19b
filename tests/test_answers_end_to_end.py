"""Odd answers through a whole worker: what becomes of the job, of the jobs after it, of its cost, and of the cache."""

from __future__ import annotations

import json
from typing import Any

import pytest

from producer import JobStatus, LLMJob, Producer
from producer.job import DeadReason
from tests.support.jobs import chat
from tests.support.raw_provider import events, raw_provider, reply
from tests.support.workshop import Workshop

PRICE = {"input": 1, "output": 10, "cachedInput": 0.1, "cacheWrite": 1.25}
USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}


def completion(finish: str, usage: Any = USAGE) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Half of what I"}
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage,
    }


def two_routes(workshop: Workshop, url: str, **hot: Any) -> None:
    workshop.policy(deadline_seconds=20)
    workshop.routes(
        hot=[{"upstream": "a", "baseUrl": url, "price": PRICE, **hot}], warm=[{"upstream": "b", "price": PRICE}]
    )


@pytest.mark.parametrize("finish", ["content_filter: SAFETY", "model_length"])
def test_half_an_answer_is_never_given_again(workshop: Workshop, producer: Producer, finish: str) -> None:
    with raw_provider(reply(completion(finish))) as provider:
        two_routes(workshop, provider.url)
        cache = workshop.folder / "policies" / "cache.yaml"
        cache.write_text(json.dumps({"version": 1, "features": {"f": {"ttl_seconds": 600}}}))
        workshop.worker()
        jobs = [LLMJob(body=chat("the same").body, feature="f", user_id=str(number)) for number in range(2)]
        results = [producer.wait(producer.enqueue(job), 15) for job in jobs]
    assert [result.cache_hit for result in results] == [False, False]
    assert len(provider.asked) == 2
    if finish == "model_length":
        assert [(result.status, result.truncated) for result in results] == [(JobStatus.DONE, True)] * 2
    else:
        assert [(result.status, result.dead_reason) for result in results] == [(JobStatus.DEAD, DeadReason.REFUSED)] * 2


def test_an_accounts_trouble_buries_no_job(workshop: Workshop, producer: Producer) -> None:
    words = "Account acme is suspended, possibly due to reaching the monthly spending limit."
    with raw_provider(reply({"error": {"message": words, "code": "PRECONDITION_FAILED"}}, 412)) as provider:
        two_routes(workshop, provider.url)
        workshop.worker("--concurrency", "1")
        receipts = producer.enqueue_many([chat(str(number)) for number in range(5)])
        results = [producer.wait(receipt.job_id, 15) for receipt in receipts]
    assert [(result.status, result.route) for result in results] == [(JobStatus.DONE, "b/b-1")] * 5
    assert len(provider.asked) == 1  # the account cools down, and the others do not ask it
    assert words[:40] in str(results[0].attempted[0].detail)


def test_a_conversation_that_one_provider_began_goes_on_at_the_next(workshop: Workshop, producer: Producer) -> None:
    call = {"id": "call_AbCdEf0123456789", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "rain"},
    ]
    with raw_provider(reply(completion("stop"))) as provider:
        two_routes(workshop, provider.url, parameters="mistral")
        workshop.worker()
        result = producer.wait(producer.enqueue(LLMJob(body={"messages": messages})), 15)  # type: ignore[typeddict-item]
    assert (result.status, result.route) == (JobStatus.DONE, "a/a-1")
    (asked,) = provider.asked
    assert [message["role"] for message in asked["messages"]] == ["system", "user", "assistant", "tool"]
    assert set(asked["messages"][2]) == {"role", "content", "tool_calls"}
    assert asked["messages"][2]["tool_calls"][0]["id"] == asked["messages"][3]["tool_call_id"] != call["id"]
    assert "ids of tool calls" in result.attempted[0].dropped


@pytest.mark.parametrize(
    ("usage", "micros"),
    [
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135}, 1062),
        ({"prompt_tokens": "many", "completion_tokens": 9}, None),
        (None, None),
    ],
)
def test_what_cannot_be_read_may_be_billed(
    workshop: Workshop, producer: Producer, usage: Any, micros: int | None
) -> None:
    with raw_provider(reply(completion("stop", usage))) as provider:
        two_routes(workshop, provider.url)
        workshop.worker()
        result = producer.wait(producer.enqueue(chat("x", feature="f")), 15)
    attempt = result.attempted[0]
    assert attempt.cost_usd == (None if micros is None else micros / 1e6)
    assert (attempt.may_cost_usd is not None) is (micros is None)


def test_a_usage_that_comes_late_settles_the_row(workshop: Workshop, producer: Producer) -> None:
    """The finish_reason came, and the usage came in a later read of the same stream."""
    chunk = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
    late = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}}
    with raw_provider(events(chunk, b": keep-alive\n\n", late)) as provider:
        two_routes(workshop, provider.url, streamTimeoutSeconds=4)
        workshop.worker()
        result = producer.wait(producer.enqueue(chat("x")), 15)
    assert result.cost_usd == 20 / 1e6
