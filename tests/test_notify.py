"""People are told: one incident, one message, whatever Slack, the workers or the network do meanwhile."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import redis

from ops.simulators import slack_api
from ops.simulators.slack_api import Slack
from producer import Producer, keyspace
from producer.policy import load_policies
from tests.support.incidents import bury, die, incidents, on_call, over, quick_workers
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.transitions import Q
from tests.support.workshop import Workshop
from worker.control import pause
from worker.notify import sender
from worker.notify.kinds import Kind
from worker.queue.dead_letters import now_ms


def test_an_outage_is_one_message_that_opens_and_one_that_says_it_is_over(
    workshop: Workshop, producer: Producer, client: redis.Redis, slack: Slack
) -> None:
    workshop.routes(hot=[{"upstream": "a"}], warm=[{"upstream": "b"}])
    on_call(workshop, promised=0.5, late_minutes=0.06)  # late after the outage was told, as in life
    for upstream in "ab":
        workshop.providers.behave(upstream, status=503)
    with quick_workers(workshop, 3, slack.environment):
        own = Producer(client, load_policies(workshop.environment))
        jobs = own.enqueue_many([chat(str(n), tenant_id="acme") for n in range(20)])
        until(lambda: slack.in_channel(), "the outage is told")
        _through_the_outage(workshop, slack, [job.job_id for job in jobs])
    assert len(slack.in_channel()) == 2


def _through_the_outage(workshop: Workshop, slack: Slack, job_ids: list[str]) -> None:
    opening = slack.in_channel()[0]
    assert "All AI providers are down" in opening.texts[0]
    until(lambda: "acme 20" in opening.whole(), "the late client is in the message, by an edit")
    for told in ("Kira (@kira)", "Dana writes to acme", "failover messages show extended_outage --tenant acme"):
        assert told in opening.whole()
    assert any(job_id in opening.whole() for job_id in job_ids)
    for upstream in "ab":
        workshop.providers.behave(upstream)
    until(lambda: len(slack.in_channel()) == 2, "its end is told", seconds=90)
    closing = slack.in_channel()[1]
    assert closing.broadcast
    assert "Over after" in closing.texts[0]
    assert "failover messages show all_clear --tenant acme" in closing.whole()
    story = "\n".join(message.whole() for message in slack.in_thread(opening.ts))
    for told in (
        "a/a-1 fails",
        "acme waits",
        "a route may be called again",
        "Message for acme, ready to paste",
        "Hi acme team",
    ):
        assert told in story
    until(lambda: "Over" in opening.texts[-1], "the first message shows the end too")


def test_ten_thousand_dead_letters_are_one_incident_with_exact_counts(
    workshop: Workshop, producer: Producer, client: redis.Redis, slack: Slack
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    ids = bury(client, producer, 1000, tenants=3)
    workshop.worker(**slack.environment)
    workshop.worker(**slack.environment)
    until(lambda: over(client, Kind.DEAD_LETTERS), "it is over when no more come")
    until(lambda: len(slack.in_channel()) == 2, "its end is told")
    opening, closing = slack.in_channel()
    assert "1,000 jobs: rejected 1,000" in opening.whole()
    assert "tenant0 334, tenant1 333, tenant2 333" in opening.whole()
    assert all(job_id in opening.whole() for job_id in ids[:5])
    assert "failover dlq list" in opening.whole()
    assert "1,000 jobs" in closing.whole()
    (incident,) = incidents(client, Kind.DEAD_LETTERS)
    assert (incident.dead, dict(incident.tenants)) == (1000, {"tenant0": 334, "tenant1": 333, "tenant2": 333})


@pytest.mark.parametrize("look", [True, False])
def test_a_post_that_was_taken_before_the_connection_broke_is_not_made_again(
    workshop: Workshop, producer: Producer, client: redis.Redis, slack: Slack, look: bool
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    slack.mode, slack.may_look = "takes and resets", look
    workshop.worker(**slack.environment)
    pause.pause(client, who="kira", why="a look")
    until(lambda: slack.messages, "it was taken")
    (incident,) = incidents(client, Kind.PAUSED)
    until(lambda: told(client, incident.id).startswith("unknown"), "nobody knows whether it arrived")
    slack.mode = "up"
    state = "sent" if look else "ambiguous"
    until(lambda: told(client, incident.id).startswith(state), "it was looked for")
    pause.resume(client, who="kira")
    until(lambda: len(slack.in_channel()) == 2, "its end is told")
    assert ["Paused" in slack.in_channel()[0].texts[0], "Over" in slack.in_channel()[1].texts[0]] == [True, True]


def test_an_incident_of_which_no_part_may_have_arrived_is_told_once_more(
    workshop: Workshop, client: redis.Redis, slack: Slack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "ORPHANED_MS", 1000)
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    slack.mode = "down"
    pause.pause(client, who="kira", why="a look")
    with quick_workers(workshop, 1, slack.webhook_environment):
        until(lambda: incidents(client, Kind.PAUSED), "the pause is an incident")
        pause.resume(client, who="kira")
        until(lambda: over(client, Kind.PAUSED), "it came and went")
    (incident,) = incidents(client, Kind.PAUSED)
    client.hset(
        keyspace.incident(incident.id), "slack:closing", f"sending {incident.closed_ms}"
    )  # and the worker was killed
    slack.mode = "takes and resets"
    with quick_workers(workshop, 1, slack.webhook_environment):
        until(lambda: slack.messages, "it is sent for the second time")
        until(lambda: told(client, incident.id, "closing").startswith("ambiguous"), "and not for the third", seconds=60)
        until(lambda: client.scard(keyspace.UNTOLD_INCIDENTS) == 0, "nothing is left to tell")
    (message,) = slack.messages
    assert "Paused" in message.texts[0] and "sent for the second time" in message.whole()


def holder_of(client: redis.Redis) -> str:
    """The worker that notifies people; "" for nobody."""
    found: Any = client.get(keyspace.NOTIFIER)
    return found.decode() if found else ""


def told(client: redis.Redis, incident_id: str, part: str = "opening") -> str:
    value = client.hget(keyspace.incident(incident_id), f"slack:{part}")
    return value.decode() if isinstance(value, bytes) else ""


def test_what_was_never_taken_is_sent_again(
    workshop: Workshop, client: redis.Redis, slack: Slack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "NOT_ARRIVED_MS", 4000)
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    slack.mode = "resets"
    pause.pause(client, who="kira", why="a look")
    with quick_workers(workshop, 1, slack.environment):
        until(lambda: incidents(client, Kind.PAUSED), "the pause is an incident")
        (incident,) = incidents(client, Kind.PAUSED)
        until(lambda: told(client, incident.id).startswith("unknown"), "nobody knows whether it arrived")
        slack.mode = "up"
        until(lambda: slack.messages, "it was looked for, was not there, and is sent")
    assert len(slack.messages) == 1


@pytest.mark.parametrize("bot", [True, False])
def test_while_slack_is_down_nothing_is_lost_and_nothing_said_twice(
    workshop: Workshop, producer: Producer, client: redis.Redis, slack: Slack, bot: bool
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    slack.mode = "down"
    first = workshop.worker(**(slack.environment if bot else slack.webhook_environment))
    die(workshop, producer, 5)
    pause.pause(client, who="kira", why="a look")
    until(lambda: over(client, Kind.DEAD_LETTERS), "one incident came and went")
    first.kill()  # and the worker that knew of it too
    workshop.worker(**(slack.environment if bot else slack.webhook_environment))
    slack.mode = "up"
    until(lambda: len(slack.in_channel()) >= 2, "both are told", seconds=60)
    until(lambda: client.scard(keyspace.UNTOLD_INCIDENTS) == 0, "nothing is left to tell")
    texts = [message.texts[0] for message in slack.in_channel()]
    assert sum("dead letters of" in text for text in texts) == 1
    assert sum("Paused" in text for text in texts) == 1


def test_the_notifier_is_followed_within_seconds(workshop: Workshop, client: redis.Redis, slack: Slack) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    workers = {}
    for _ in range(3):
        process = workshop.worker(**slack.environment)
        workers[process.pid] = process
    holder = until(lambda: holder_of(client), "somebody leads")
    leader = next(process for pid, process in workers.items() if f"-{pid}-" in holder)
    leader.send_signal(signal.SIGKILL)
    until(lambda: holder_of(client) not in ("", holder), "another one leads", seconds=15)
    follower = holder_of(client)
    polite = next(process for pid, process in workers.items() if f"-{pid}-" in follower)
    polite.send_signal(signal.SIGTERM)
    assert polite.wait(30) == 0
    until(lambda: holder_of(client) not in ("", follower), "who leaves gives it back")
    client.delete(keyspace.worker(holder))  # as it runs out by itself after half a minute
    gone = until(lambda: [m for m in slack.in_channel() if "Worker vanished" in m.texts[0]], "the kill is told")
    assert len(gone) == 1


def test_slack_limits_are_kept_and_text_of_tenants_stays_literal(
    workshop: Workshop, producer: Producer, client: redis.Redis, slack: Slack
) -> None:
    hostile = "<!channel> <https://evil.example|click> {0.__class__} *bold* @here `x` " + "y" * 60_000
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    ids = bury(client, producer, 3)
    for job_id in ids:
        client.hset(keyspace.job(job_id), mapping={"tenant": hostile})
    client.delete(keyspace.news(Q))
    bury(client, producer, 1)
    client.hset(keyspace.news(Q), f"dead:tenant:{hostile}", 7)
    client.hset(keyspace.news(Q), f"dead:reason:{hostile}", 7)
    workshop.worker(**slack.environment)
    pause.pause(client, who=hostile, why=hostile)
    until(lambda: len(slack.in_channel()) >= 2, "both are told")
    for message in slack.in_channel():
        assert "<!channel>" not in message.texts[0]
        for block in message.blocks:
            kinds = {block["type"], *(part["type"] for part in block.get("elements", []))}
            assert kinds <= {"header", "section", "context", "rich_text", "rich_text_preformatted", "plain_text"}
            assert block.get("text", {}).get("type", "plain_text") == "plain_text"
    assert any("{0.__class__}" in message.whole() for message in slack.in_channel())


def test_letters_that_died_while_nobody_looked_are_not_taken_for_handled(
    workshop: Workshop, producer: Producer, client: redis.Redis, slack: Slack
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop, quiet_minutes=0.03)
    ids = bury(client, producer, 3)
    scored: Any = client.zrange(keyspace.dead(Q), 0, -1, withscores=True)
    died_ms = min(score for _, score in scored)
    until(lambda: now_ms(client) > died_ms + 1500, "a while passes without a worker")
    workshop.worker(**slack.environment)
    until(lambda: len(slack.in_channel()) == 2, "quiet")
    assert "3 of 3 still need a person" in slack.in_channel()[1].texts[0]
    (incident,) = incidents(client, Kind.DEAD_LETTERS)
    assert incident.opened_ms == died_ms
    die(workshop, producer, 1)
    until(lambda: len(slack.in_channel()) == 3, "another incident")
    workshop.run("failover", "dlq", "discard", "--all", "--yes")
    until(lambda: len(slack.in_channel()) == 4, "handled before it is quiet, or quiet")
    assert ids


def test_what_nobody_can_read_silences_nobody(
    workshop: Workshop, producer: Producer, client: redis.Redis, slack: Slack
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    client.hset(keyspace.INCIDENTS, mapping={"paused|x|": "901", "late||": "902", "cold||": "abc"})
    client.hset(keyspace.incident("901"), mapping={"kind": "paused", "opened_ms": "x", "state": "{"})
    client.hset(keyspace.news(Q), mapping={"dead": "many", b"dead:tenant:\xff": "1", "saved": "x"})
    client.hset(keyspace.PAUSE_NOTES, keyspace.PAUSE, '{"who": "\\ud800", "why": "x\\ud800"}')
    client.sadd("rq:workers", b"rq:worker:\xff")
    client.hset(keyspace.SPEND, "google", "{}")
    workshop.worker(**slack.environment)
    client.set(keyspace.PAUSE, "1")
    until(lambda: any("Paused: everything" in m.texts[0] for m in slack.in_channel()), "the pause is told all the same")


def test_one_channel_that_hangs_holds_up_no_other(
    workshop: Workshop, producer: Producer, client: redis.Redis, slack: Slack
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    with slack_api.running() as other:
        other.mode = "hangs"
        webhook = {"NOTIFY_WEBHOOK_URL": f"{other.url}/services/x", "NOTIFY_WEBHOOK_SECRET": "whsec_c2VjcmV0"}
        workshop.worker(**slack.environment, **webhook)
        pause.pause(client, who="kira", why="a look")
        until(lambda: other.requests, "the one that hangs is asked")
        until(lambda: slack.in_channel(), "the other one tells", seconds=8)  # sooner than the first one gives up
        pause.resume(client, who="kira")
        until(lambda: len(slack.in_channel()) == 2, "also the end", seconds=8)


def test_a_message_that_somebody_deleted_is_no_trouble_for_the_others(
    workshop: Workshop, client: redis.Redis, slack: Slack
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    workshop.worker(**slack.environment)
    pause.pause(client, pause.Scope(queue=Q), who="kira", why="a look")
    until(lambda: slack.in_channel(), "it is told")
    slack.messages.clear()
    client.rpush("rq:queue:" + Q, "ghost")  # a job more waits: the message would be edited
    until(lambda: told(client, "1").startswith("refused"), "it is not there any more")
    pause.pause(client, pause.Scope(provider="a"), who="kira", why="another")
    until(lambda: slack.in_channel(), "the next one is told")
    pause.resume(client, pause.Scope(queue=Q), who="kira")
    until(lambda: any("Over" in message.texts[0] for message in slack.in_channel()), "and the end of the first")
