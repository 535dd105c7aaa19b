"""The doctor does what a worker does: scripts, messages, with the user that a worker has; and it reports what workers saw."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from ops.reports.checks.providers import check_providers
from ops.reports.checks.redis_server import check_redis
from ops.reports.checks.routes_in_use import check_routes_in_use
from producer import Producer
from producer.scripts import ask
from tests.support.jobs import chat
from tests.support.workshop import Workshop
from worker.breakers.health import restore

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


@pytest.mark.parametrize(
    ("status", "title", "fix"),
    [
        (401, "a refuses our key", "make a new key on a's page of API keys, and set KEY_OF_A where the workers run"),
        (402, "Our credit at a is used up", "add credit, or pay, on a's billing page"),
        (404, "a does not know our model", "name a model that a has in routes.json"),
    ],
)
def test_a_refusal_that_the_list_of_models_does_not_show_is_named_with_its_fix(
    workshop: Workshop, producer: Producer, client: redis.Redis, status: int, title: str, fix: str
) -> None:
    workshop.routes(hot=[{"upstream": "a", "apiKeyEnv": "KEY_OF_A"}])
    environment = {**workshop.environment, "REDIS_URL": workshop.url, "KEY_OF_A": "secret"}
    workshop.providers.behave("a", status=status)
    producer.enqueue(chat("Hello"))
    assert workshop.run("failover-worker", "--burst", **environment).returncode == 0
    assert [finding.level for finding in check_providers(environment)] == ["ok", "ok"]
    (found,) = check_routes_in_use(environment)
    assert (found.level, found.about, found.exit_code) == ("fail", "provider a", 2)
    assert found.told.startswith(f"{title} since 20")
    assert fix in found.told
    assert found.told.endswith(" Then at once: failover routes enable a/a-1")
    restore(client, "a/a-1", who="test")
    assert list(check_routes_in_use(environment)) == []


def test_a_refusal_of_the_embedded_redis_is_named_too(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.providers.behave("a", status=402)
    assert "provider a:" not in workshop.run("failover", "doctor", REDIS_URL="").stdout
    workshop.run("failover", "submit", "--wait", "3", "--prompt", "Hello", REDIS_URL="")
    done = workshop.run("failover", "doctor", REDIS_URL="")
    assert "fail  provider a: Our credit at a is used up since 20" in done.stdout
    assert done.returncode == 2
