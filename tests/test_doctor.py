"""The doctor does what a worker does: scripts, messages, and with the user that a worker has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from ops.reports.check_redis import check_redis
from producer.scripts import ask
from tests.support.workshop import Workshop

# as in docs/deploy.md
DOCUMENTED = [
    *("~failover:*", "~rq:*", "~pause_ai_tasks*", "resetchannels", "&failover:*", "&rq:pubsub:*"),
    *("+@all", "-@admin", "-@dangerous", "+info", "+config|get"),
]
NO_CHANNELS = ["~*", "+@all", "resetchannels"]
OTHER_KEYS = ["~app:*", "+@all", "allchannels"]


@pytest.fixture
def user(client: redis.Redis) -> Iterator[str]:
    yield "worker"
    client.acl_deluser("worker")


def told(workshop: Workshop, client: redis.Redis, rules: list[str]) -> dict[str, list[str]]:
    ask(client, [("ACL", "SETUSER", "worker", "reset", "on", ">secret", *rules)])
    url = workshop.url.replace("://", "://worker:secret@", 1)
    found: dict[str, list[str]] = {}
    for finding in check_redis({"REDIS_URL": url, "ALLOW_UNSAFE_REDIS": "true"}, deploy=False):
        found.setdefault(finding.level, []).append(finding.told)
    return found


def test_the_documented_user_may_do_all_and_nothing_is_left_behind(
    workshop: Workshop, client: redis.Redis, user: str
) -> None:
    found = told(workshop, client, DOCUMENTED)
    assert "fail" not in found
    assert {"runs our scripts", "publishes and subscribes"} <= set(found["ok"])
    assert client.keys("*doctor*") == []


def test_a_user_without_channels_is_named_with_the_fix(workshop: Workshop, client: redis.Redis, user: str) -> None:
    (text,) = told(workshop, client, NO_CHANNELS)["fail"]
    assert text.startswith("refuses messages:")
    assert "ACL SETUSER ... &failover:* &rq:pubsub:*" in text


def test_a_user_without_our_keys_is_named_with_the_fix(workshop: Workshop, client: redis.Redis, user: str) -> None:
    failures = told(workshop, client, OTHER_KEYS)["fail"]
    assert failures[0].startswith("refuses a script of ours:")
    assert "docs/deploy.md" in failures[0]
