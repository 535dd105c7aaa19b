"""Kept answers: whose they are, what counts as the same question, what is never kept."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from producer import LLMJob, Producer
from producer.errors import ConfigurationError
from producer.job import JobStatus
from tests.support.jobs import asking, chat
from tests.support.money import budgets, failover
from tests.support.polling import until
from tests.support.routes import PRICES, done
from tests.support.workshop import Workshop
from worker.money.answer_cache import CachePolicy, Caching, kept, key_of, load_caching


def cached(workshop: Workshop, **faq: Any) -> None:
    workshop.policy()
    told = {"version": 1, "features": {"faq": {"ttl_seconds": 600, **faq}}}
    (Path(workshop.environment["POLICIES_DIR"]) / "cache.yaml").write_text(json.dumps(told))


def asked(workshop: Workshop) -> int:
    count: int = workshop.providers.account("a")["asked"]
    return count


@pytest.fixture
def place(workshop: Workshop) -> Workshop:
    workshop.routes(hot=[{"upstream": "a", "price": PRICES["a"]}])
    cached(workshop)
    workshop.worker()
    return workshop


def test_the_second_question_costs_nothing_and_says_so(
    place: Workshop, producer: Producer, client: redis.Redis
) -> None:
    first = done(producer, chat("What is it?", feature="faq", tenant_id="acme"))
    again = done(producer, chat(" What is it? ", feature="faq", tenant_id="acme"))
    assert (first.cache_hit, again.cache_hit, again.status) == (False, True, JobStatus.DONE)
    assert (again.text, again.route, again.usage) == (first.text, first.route, first.usage)
    assert (again.cost_usd, again.attempts, asked(place)) == (0.0, 0, 1)
    why = failover(place, "job", "why", again.job_id)
    assert "with the cached answer of a/a-1" in why and "cost: $0.000000, because the answer was cached" in why
    assert "1 answer cached" in failover(place, "cache", "show")
    assert "1 answer deleted" in failover(place, "cache", "purge", "--tenant", "acme", "--feature", "faq")
    assert not done(producer, chat("What is it?", feature="faq", tenant_id="acme")).cache_hit


def test_no_other_tenant_feature_or_question_has_it(place: Workshop, producer: Producer) -> None:
    done(producer, chat("q", feature="faq", tenant_id="acme"))
    others = [
        chat("q", feature="faq", tenant_id="globex"),
        chat("q", feature="", tenant_id="acme"),
        chat("r", feature="faq", tenant_id="acme"),
        chat("Q", feature="faq", tenant_id="acme"),
        asking({**chat("q").body, "temperature": 1}, feature="faq", tenant_id="acme"),
        chat("q", feature="faq", tenant_id="acme", job_type="batch"),
    ]
    assert not any(done(producer, job).cache_hit for job in others)


def test_what_is_cut_failed_or_degraded_is_never_kept(place: Workshop, producer: Producer, client: redis.Redis) -> None:
    place.providers.behave("a", finish_reason="length")
    assert done(producer, chat("cut", feature="faq")).truncated
    place.providers.behave("a", finish_reason="content_filter")
    assert done(producer, chat("refused", feature="faq")).status is JobStatus.DEAD
    place.providers.behave("a")
    budgets(place, features={"default": {"max_output_tokens": 5}})
    wordy = asking({**chat("long").body, "max_tokens": 100}, feature="faq")
    until(lambda: done(producer, wordy.model_copy(update={"feature": "x"})).degraded, "the cap is heard")
    assert done(producer, wordy).degraded == "shorter_answer"
    assert not list(kept(client, None, None))


def test_a_new_policy_version_forgets_what_was_kept(place: Workshop, producer: Producer) -> None:
    done(producer, chat("q", feature="faq"))
    assert done(producer, chat("q", feature="faq")).cache_hit
    cached(place, policy_version="2")
    until(lambda: not done(producer, chat("q", feature="faq")).cache_hit, "the new version is heard")


def test_an_entry_that_cannot_be_read_is_a_miss(place: Workshop, producer: Producer, client: redis.Redis) -> None:
    done(producer, chat("q", feature="faq"))
    ((key,),) = kept(client, None, None)
    client.set(key, b"\x00 nonsense")
    result = done(producer, chat("q", feature="faq"))
    assert (result.status, result.cache_hit) == (JobStatus.DONE, False)
    client.delete(key)
    client.rpush(key, "a list")
    assert done(producer, chat("q", feature="faq")).status is JobStatus.DONE


def test_what_counts_as_the_same_question() -> None:
    policy = CachePolicy(ttl_seconds=60, ignore_case=True, ignore=("uuids", "hex"))

    def key(text: Any, **fields: Any) -> str:
        body = {"messages": [{"role": "user", "content": text}], **fields}
        return key_of(LLMJob(body=body), policy)  # type: ignore[arg-type]  # pydantic checks it as it runs

    assert key("Hello there \n") == key("hello there deadbeef0123") == key("HELLO THERE", model="gpt", user="u")
    assert key([{"type": "text", "text": "A b"}]) == key([{"type": "text", "text": "a b"}])
    assert key("if x:\n    y") != key("if x:\ny")
    assert key("a") != key("b") and key("a") != key("a", max_tokens=5)
    assert Caching().of("faq") is None


@pytest.mark.parametrize("text", ["a" * 200_000 + "!", " " * 200_000 + "x", "0" * 200_000 + "g", "a-" * 100_000])
def test_no_question_takes_long_to_be_read(text: str) -> None:
    policy = CachePolicy(ttl_seconds=60, ignore_case=True, ignore=("uuids", "hex", "numbers", "blanks"))
    began = time.process_time()
    policy.normalized(text)
    assert time.process_time() - began < 2  # a pattern that is not linear takes minutes


def test_a_wrong_file_says_where(workshop: Workshop) -> None:
    cached(workshop, ignore=["\\w+"])
    with pytest.raises(ConfigurationError, match=r"features\.faq\.ignore\.0"):
        load_caching(workshop.environment)
