"""The incidents that need a person, from end to end: the message names the fix, and the fix that it names ends it."""

from __future__ import annotations

import pytest
import redis

from ops.simulators.slack_api import Slack
from producer import Producer
from producer.policy import load_policies
from tests.support.incidents import incidents, on_call
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.workshop import Workshop
from worker.notify.kinds import Kind


@pytest.mark.parametrize(
    ("status", "title", "fix"),
    [
        (401, "Every provider refuses our key: a: 3 jobs wait", "set KEY_OF_A where the workers run"),
        (402, "Our credit is used up at every provider: a: 3 jobs wait", "add credit, or pay, on a's billing page"),
    ],
)
def test_a_refused_key_or_credit_is_no_outage_and_the_command_of_its_message_starts_the_jobs(
    workshop: Workshop, client: redis.Redis, slack: Slack, status: int, title: str, fix: str
) -> None:
    workshop.routes(hot=[{"upstream": "a", "apiKeyEnv": "KEY_OF_A"}])
    on_call(workshop)
    workshop.providers.behave("a", status=status)
    producer = Producer(client, load_policies(workshop.environment))
    jobs = [receipt.job_id for receipt in producer.enqueue_many([chat(str(n)) for n in range(3)])]
    workshop.worker(**slack.environment, KEY_OF_A="secret")
    opening = until(lambda: slack.in_channel(), "it is told")[0]
    until(lambda: title in opening.texts[-1], f"its title names all: {opening.texts}")
    assert fix in opening.whole()
    assert not incidents(client, Kind.COLD)
    workshop.providers.behave("a")
    assert "Then at once: failover routes enable a/a-1" in opening.whole()
    enabled = workshop.run("failover", "routes", "enable", "a/a-1")
    assert enabled.returncode == 0, enabled.stderr
    until(lambda: all(producer.ended(jobs)), "the jobs go on")
    (refused,) = until(lambda: [e for e in incidents(client, Kind.REFUSED) if e.resolved_ms], "it is over")
    assert refused.title == title.removesuffix(": 3 jobs wait")
    until(lambda: len(slack.in_channel()) == 2, "one message opened it, one says that it is over")
