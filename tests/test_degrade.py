"""What a late job gives up, and that its result says so."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

from producer import Producer, keyspace
from producer.job import ChatBody, JobStatus
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.workshop import Workshop
from worker.routes.route import Route
from worker.routes.schema import RouteEntry
from worker.routing.degrade import shorter_context, smaller_first


def message(role: str, content: str = "", **fields: Any) -> Any:
    return {"role": role, "content": content, **fields}


def body(*messages: Any) -> ChatBody:
    return {"messages": list(messages)}


def route(name: str, tier: Any = "hot") -> Route:
    return Route(name, tier, RouteEntry(provider="p", model=name, base_url="http://x"), "http://x")


def test_shorter_context_drops_older_turns_and_keeps_instructions_and_the_last() -> None:
    long = body(
        message("system", "be brief"),
        *(message(role, f"{role} {turn}") for turn in range(4) for role in ("user", "assistant")),
        message("user", "now this"),
    )
    kept = [entry["content"] for entry in shorter_context(long)["messages"]]  # type: ignore[typeddict-item]
    assert kept[0] == "be brief"
    assert kept[-1] == "now this"
    assert len(kept) < 7
    assert kept[1].startswith("user")


def test_shorter_context_keeps_tool_calls_with_their_answers() -> None:
    turns = body(
        message("user", "old"),
        message("assistant", "old answer"),
        message("user", "look it up"),
        message("assistant", tool_calls=[{"id": "1"}]),
        message("tool", "found", tool_call_id="1"),
    )
    assert [entry["role"] for entry in shorter_context(turns)["messages"]] == ["user", "assistant", "tool"]


@pytest.mark.parametrize("short", [body(message("user", "x")), body(message("system", "s"), message("user", "x"))])
def test_a_body_with_nothing_to_drop_is_left_alone(short: ChatBody) -> None:
    assert shorter_context(short) is short


def test_smaller_model_tries_each_tier_from_its_last_route_up() -> None:
    routes = [route("large"), route("small"), route("other large", "warm"), route("other small", "warm")]
    assert [r.name for r in smaller_first(routes)] == ["small", "large", "other small", "other large"]


def test_a_late_job_is_answered_smaller_and_says_so(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "large"}, {"upstream": "small"}])
    workshop.policy(max_time_to_answer_seconds=0.001, degrade=["smaller_model", "human_review"])
    job_id = producer.enqueue(chat())
    workshop.worker()
    until(lambda: producer.ended([job_id])[0], "it is done")
    result = producer.fetch(job_id)
    assert (result.status, result.route, result.degraded) == (JobStatus.DONE, "small/small-1", "smaller_model")


def test_a_late_job_that_fails_may_be_answered_by_a_human_while_it_waits(
    workshop: Workshop, client: redis.Redis
) -> None:
    workshop.routes(hot=[{"upstream": "hot"}])
    policies = workshop.policy(
        max_time_to_answer_seconds=0.001, degrade=["human_review"], backoff_seconds={"first": 600, "max": 600}
    )
    workshop.providers.behave("hot", status=500)
    producer = Producer(client, policies)
    job_id = producer.enqueue(chat())
    workshop.worker()
    until(lambda: producer.fetch(job_id).status is JobStatus.RETRYING, "it waits")
    late = json.loads(workshop.run("failover", "job", "late", "--json").stdout)
    assert [(job["job_id"], job["human_review"]) for job in late["jobs"]] == [(job_id, True)]
    why = workshop.run("failover", "job", "why", job_id).stdout
    assert "a person may answer it" in why and f"failover dlq resolve {job_id}" in why
    assert workshop.run("failover", "dlq", "resolve", job_id, "--answer", "-", stdin=b"By hand.").returncode == 0
    result = producer.fetch(job_id)
    assert (result.status, result.text, result.resolved_by) == (JobStatus.DONE, "By hand.", "human")
    assert client.zcard(keyspace.scheduled("ai-tasks")) == 0
    assert workshop.run("failover", "job", "late").stdout.startswith("0 late jobs in ai-tasks")


def test_the_list_of_late_jobs_says_how_many_more_there_are(workshop: Workshop, client: redis.Redis) -> None:
    policies = workshop.policy(max_time_to_answer_seconds=0.001)
    Producer(client, policies).enqueue_many([chat(str(n), tenant_id="acme") for n in range(3)])
    listed = workshop.run("failover", "job", "late", "--limit", "2").stdout
    assert "1 more: `failover job late --limit 3`" in listed
    assert "`failover messages show brief_delay --tenant acme`" in listed
    assert "more:" not in workshop.run("failover", "job", "late", "--limit", "3").stdout
