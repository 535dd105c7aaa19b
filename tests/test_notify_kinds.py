"""The incidents that need a person, from end to end: the message names the fix, and the fix that it names ends it."""

from __future__ import annotations

from uuid import uuid4

import pytest
import redis

from ops.simulators.slack_api import Slack
from producer import Producer, keyspace
from producer.job import DeadReason
from producer.policy import load_policies
from producer.scripts import ask
from tests.support.incidents import bury, incidents, on_call, over, quick_workers
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.transitions import Q, claim
from tests.support.web import served
from tests.support.workshop import Workshop
from worker.breakers import health
from worker.control import pause
from worker.notify import incident_text, sender
from worker.notify.condition import Condition, Snapshot
from worker.notify.conditions import ConditionReader
from worker.notify.incidents import Incidents
from worker.notify.kinds import Kind
from worker.notify.oncall import OnCall
from worker.notify.provider_conditions import of_routes
from worker.notify.reconcile import Reconciler
from worker.queue import dead_letters, tenant_jobs, transitions
from worker.queue.dead_letters import now_ms
from worker.queue.outcomes import Dead


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


def test_the_web_process_tells_once_that_the_last_worker_is_gone(
    workshop: Workshop, client: redis.Redis, slack: Slack
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    producer = Producer(client, load_policies(workshop.environment))
    jobs = [receipt.job_id for receipt in producer.enqueue_many([chat(str(n)) for n in range(3)])]
    with served(workshop, **slack.environment), served(workshop, **slack.environment):
        (opening,) = until(lambda: slack.in_channel(), "it is told")
        assert opening.texts[0] == "🔴 No worker runs: 3 jobs wait"
        workshop.worker(**slack.environment)
        until(lambda: all(producer.ended(jobs)), "the jobs go on")
        until(lambda: len(slack.in_channel()) == 2, "a worker runs: it is over")
        assert "Over after" in slack.in_channel()[1].texts[0]
    assert [incident.kind for incident in Incidents(client).since(0)] == [Kind.NO_WORKERS]


def test_a_flood_names_client_count_rate_and_cost_and_its_commands_end_it(
    workshop: Workshop, client: redis.Redis, slack: Slack
) -> None:
    workshop.routes(hot=[{"upstream": "a", "price": {"input": 1.0, "output": 10.0}}])
    on_call(workshop, flood_jobs=20)
    producer = Producer(client, load_policies(workshop.environment))
    producer.enqueue_many([chat(str(n), tenant_id="globex") for n in range(15)])
    producer.enqueue_many([chat(str(n), tenant_id="acme") for n in range(60)])
    pause.pause(client, who="kira", why="so that the queue stays as it is")
    workshop.worker(**slack.environment)
    until(lambda: incidents(client, Kind.FLOOD), "it is an incident")
    opening = until(lambda: [m for m in slack.in_channel() if "acme fills the queue" in m.texts[0]], "it is told")[0]
    assert "acme fills the queue: about 60 jobs, about $" in opening.texts[0]
    assert "about 60 of the 75 jobs that wait, sent at about" in opening.whole()
    commands = [f"failover {words} --tenant acme" for words in ("pause", "job cancel", "resume")]
    assert "\n".join(commands) in opening.whole()
    steps: list[int] = []
    assert (
        tenant_jobs.cancel(client, Q, "acme", tenant_jobs.waiting(client, Q, "acme"), who="kira", report=steps.append)
        == 60
    )
    until(lambda: over(client, Kind.FLOOD), "it is over")


def test_the_time_of_a_probe_is_the_same_at_each_look_and_gone_when_it_is_past(client: redis.Redis) -> None:
    def next_probe() -> int | None:
        (found, _) = of_routes({"a/m": {"provider": "a"}}, health.of_routes(client, ["a/m"]), set(), lambda: 0)
        return found.until_ms

    opens_ms = now_ms(client) + 500
    client.hset(keyspace.breaker("a/m"), mapping={"state": "open", "opens_ms": opens_ms})
    assert {next_probe() for _ in range(20)} == {opens_ms}
    until(lambda: now_ms(client) >= opens_ms, "the cooldown is over")
    client.hset(keyspace.breaker("a/m"), mapping={"probe": "token", "probe_until_ms": opens_ms + 60_000})
    standing = health.of_routes(client, ["a/m"])
    (cold,) = of_routes({"a/m": {"provider": "a"}}, standing, set(), lambda: 0)
    assert (cold.kind, cold.until_ms) == (Kind.COLD, None)  # its probe runs; the end of its lease is no other probe


def test_a_dead_letter_that_dies_again_after_a_requeue_is_one_job_of_its_incident(
    producer: Producer, client: redis.Redis
) -> None:
    store = Incidents(client)
    letters = bury(client, producer, 5, tenants=2)

    def die_again() -> None:
        dead_letters.requeue(client, Q, iter([letters[:3]]), who="kira")
        claims, _ = transitions.claimed(ask(client, [transitions.claim(uuid4().hex, 9, "w", [Q])])[0])
        for held in claims:
            outcome = Dead(DeadReason.EXHAUSTED, "no", (), 1000)
            ask(client, [transitions.settle(held, outcome, worker_name="w", attempts=1, run_ms=1)])

    die_again()  # before any notifier has looked
    store.fold([Q], None, keep_saved=False)
    die_again()
    store.fold([Q], None, keep_saved=False)
    (told,) = incidents(client, Kind.DEAD_LETTERS)
    assert (told.dead, told.again, told.tenants, told.reasons) == (5, 6, {"tenant0": 3, "tenant1": 2}, {"rejected": 5})
    text = incident_text.of_incident(told, OnCall(), told.opened_ms)
    assert "After a requeue they died again: 6 times" in text.lines
    assert store.close(told, now_ms(client), "over")
    until(lambda: now_ms(client) > told.last_ms, "a new incident begins later")
    die_again()
    store.fold([Q], None, keep_saved=False)
    assert [(each.dead, each.again) for each in incidents(client, Kind.DEAD_LETTERS)] == [(5, 6), (3, 0)]


def test_the_count_of_an_outage_is_the_same_while_a_job_probes(producer: Producer, client: redis.Redis) -> None:
    reader = ConditionReader(client, OnCall(), ())
    producer.enqueue_many([chat(str(n)) for n in range(3)])
    (before,) = reader.read().conditions
    assert len(claim(client)) == 1
    assert reader.read().conditions == (before,)
    assert before.size == "3 jobs wait"


@pytest.mark.parametrize("kind", [Kind.CREDENTIALS, Kind.REFUSED])
def test_a_key_that_nobody_has_tried_again_is_not_said_to_be_well(client: redis.Redis, kind: Kind) -> None:
    reconciler, now = Reconciler(client, OnCall(hold_seconds=0, steady_seconds=0)), now_ms(client)
    subject = "a" if kind is Kind.CREDENTIALS else ""
    refused = Condition(kind, subject, lines=("a/a-1: refuses the key",), marks={"a/a-1 refuses the key": ""})
    reconciler.reconcile(Snapshot(now, (refused,)))
    (told,) = Incidents(client).since(0)
    for passed in (1000, 600_000):
        reconciler.reconcile(Snapshot(now + passed, ()))
        assert Incidents(client).since(0) == [told]
    reconciler.reconcile(Snapshot(now + 601_000, (), succeeded_ms={"a": now + 601_000}))
    (told,) = Incidents(client).since(0)
    assert told.resolved_ms == now + 1000


def test_reduced_answers_after_an_outage_belong_to_it_until_the_jobs_that_it_delayed_are_answered(
    client: redis.Redis,
) -> None:
    policy = OnCall(hold_seconds=0, steady_seconds=0)
    reconciler, now = Reconciler(client, policy), now_ms(client)
    down = Condition(Kind.COLD, lines=("a/a-1: fails",), marks={"a/a-1 fails": ""})
    reconciler.reconcile(Snapshot(now, (down,), queues=(Q,), overdue=3))
    reconciler.reconcile(Snapshot(now + 1000, (), queues=(Q,), overdue=3))
    client.hset(keyspace.news(Q), mapping={"degraded": 2, "degraded:tenant:acme": 2})
    late = Condition(Kind.LATE, "", Q, ("3 late",), {}, {"acme": 3}, 3)
    reconciler.reconcile(Snapshot(now + 2000, (late,), queues=(Q,), overdue=3))
    (outage,) = Incidents(client).since(0)
    assert (outage.kind, outage.degraded, outage.resolved_ms) == (Kind.COLD, 2, None)
    reconciler.reconcile(Snapshot(now + 3000, (), queues=(Q,), overdue=0))
    (outage,) = Incidents(client).since(0)
    assert (outage.opened_ms, outage.resolved_ms) == (now, now + 1000)
    client.hset(keyspace.news(Q), mapping={"degraded": 1, "degraded:tenant:acme": 1})
    reconciler.reconcile(Snapshot(now + 4000, (), queues=(Q,)))
    assert [each.kind for each in Incidents(client).since(0)] == [Kind.COLD, Kind.DEGRADED]


def test_the_story_begins_with_the_problem_and_late_jobs_are_counted_until_its_end(client: redis.Redis) -> None:
    policy = OnCall(hold_seconds=5, steady_seconds=60)
    reconciler, store, now = Reconciler(client, policy), Incidents(client), now_ms(client)
    down = Condition(Kind.COLD, lines=("a/a-1: fails",), marks={"a/a-1 fails": ""})
    for passed in (0, 6000):
        reconciler.reconcile(Snapshot(now + passed, (down,), queues=(Q,)))
    for passed, late in ((7000, 3), (8000, 2), (9000, 0)):
        waits = [Condition(Kind.LATE, "", Q, late=late)] if late else []
        reconciler.reconcile(Snapshot(now + passed, tuple(waits), queues=(Q,)))
        (told,) = store.since(0)
        left = {3: "; 3 late jobs left.", 2: "; 2 late jobs left.", 0: "."}[late]
        assert (told.lines, told.fades) == ((f"The problem seems to be over{left}",), True)
    story = store.story(told.id)
    assert [entry.text for entry in story] == ["a/a-1 fails", "a route may be called again"]
    assert story[0].at_ms == told.opened_ms == now


def test_a_text_that_somebody_must_send_later_is_shown_in_the_channel(
    workshop: Workshop, client: redis.Redis, slack: Slack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "READ_AFTER_MS", 0)  # as after a minute
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop, promised=0.5, late_minutes=0.06)
    workshop.providers.behave("a", status=503)
    with quick_workers(workshop, 1, slack.environment):
        own = Producer(client, load_policies(workshop.environment))
        own.enqueue(chat("hello", tenant_id="acme"))
        until(lambda: len(slack.in_channel()) == 2, "the text for acme is shown")
    reply = slack.in_channel()[1]
    assert reply.broadcast
    assert "Message for acme, ready to paste" in reply.whole()
