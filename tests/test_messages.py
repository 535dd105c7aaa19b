"""Messages for clients: there before the outage, filled from how things stand, never interpreted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis

from producer import Producer, keyspace
from producer.errors import ConfigurationError
from tests.support.incidents import bury
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.workshop import Workshop
from worker.control import pause
from worker.control.pause import utc
from worker.notify.client_messages import LONGEST_FACT, PLACEHOLDERS, ClientMessage, load_messages
from worker.notify.kinds import Kind
from worker.queue.dead_letters import now_ms
from worker.reports.client_status import UNKNOWN_ETA, eta

NAMES = [
    *("all_clear", "brief_delay", "budget_pause", "dead_letter"),
    *("delivered", "extended_outage", "new_jobs_again", "no_new_jobs", "service_degradation"),
]


def test_the_messages_exist_before_the_outage() -> None:
    messages = load_messages({})
    assert list(messages) == NAMES
    for message in messages.values():
        assert message.when
        assert not message.text.startswith("#")
        filled = message.filled(dict.fromkeys(PLACEHOLDERS, "x"))
        assert "{" not in filled
        assert "AI service" not in filled  # each is sent for causes of ours, too


def test_a_folder_of_ones_own_wins_and_the_others_stay(tmp_path: Path) -> None:
    (tmp_path / "messages").mkdir()
    (tmp_path / "messages" / "brief_delay.txt").write_text("# When: now.\nHello {tenant}")
    (tmp_path / "messages" / "moved.txt").write_text("We moved.")
    messages = load_messages({"POLICIES_DIR": str(tmp_path)})
    assert sorted(messages) == sorted([*NAMES, "moved"])
    assert (messages["brief_delay"].when, messages["brief_delay"].text) == ("now.", "Hello {tenant}")


@pytest.mark.parametrize(("text", "said"), [("Hi {name}", "{name}: is unknown"), ("# only a head", "is empty")])
def test_a_wrong_message_is_found_before_it_is_needed(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "messages").mkdir()
    (tmp_path / "messages" / "wrong.txt").write_text(text)
    with pytest.raises(ConfigurationError, match=said.replace("{", r"\{")):
        load_messages({"POLICIES_DIR": str(tmp_path)})


@pytest.mark.parametrize(
    "hostile", ["{0.__class__}", "{jobs}", "%s %(x)s", "$tenant", "<!channel>", "a\nBcc: b", "\x1b[31m", "x" * 60_000]
)
def test_what_a_tenant_is_called_is_never_interpreted(hostile: str) -> None:
    filled = ClientMessage("m", "", "Hi {tenant}, {jobs}.").filled({"tenant": hostile, "jobs": "2"})
    assert filled.endswith(", 2.")
    assert "\n" not in filled
    assert "\x1b" not in filled
    assert len(filled) <= LONGEST_FACT + 10
    assert filled.startswith(f"Hi {hostile[:5]}".replace("\n", " ").replace("\x1b", ""))


def test_a_promise_is_rounded_up_and_never_made_without_knowing() -> None:
    assert [eta(minutes) for minutes in (0, 9, 11, 30, 70, 1000)] == [
        "within the next 15 minutes",
        "within the next 15 minutes",
        "within the next half hour",
        "within the next hour",
        "within the next 2 hours",
        "by tomorrow",
    ]
    assert eta(None) == UNKNOWN_ETA


def test_the_text_to_paste_for_a_tenant_and_for_a_job(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    workshop.worker()
    first = producer.enqueue(chat("one"))
    until(lambda: producer.fetch(first).status.ended, "a call is known")
    pause.pause(client, who="sam", why="testing")
    ids = [producer.enqueue(chat(str(n), tenant_id="acme", job_type="default")) for n in range(3)]
    producer.enqueue(chat("other", tenant_id="other"))
    shown = workshop.run("failover", "messages", "show", "extended_outage", "--tenant", "acme")
    assert shown.returncode == 0
    assert "Hi acme team" in shown.stdout
    assert "Your 3 jobs are kept" in shown.stdout
    assert UNKNOWN_ETA in shown.stdout  # it is paused: nobody knows
    one = json.loads(workshop.run("failover", "messages", "show", "brief_delay", "--job", ids[0], "--json").stdout)
    assert one["facts"]["jobs"] == "Your job is"
    assert one["facts"]["tenant"] == "acme"
    nobody = workshop.run("failover", "messages", "show", "brief_delay", "--tenant", "nobody")
    assert "{" not in nobody.stdout
    assert "[how many of the client's jobs wait" in nobody.stdout
    assert "is the client's name right?" in nobody.stderr
    assert "replace what stands in [brackets]" in nobody.stderr
    assert "{jobs}" in workshop.run("failover", "messages", "show", "brief_delay").stdout  # the template
    done = workshop.run("failover", "messages", "show", "brief_delay", "--job", first)
    assert (done.returncode, "is done" in done.stderr) == (2, True)
    assert workshop.run("failover", "messages", "show", "nope").returncode == 2
    assert workshop.run("failover", "messages", "show", "brief_delay", "--job", "nope").returncode == 1
    assert [each["name"] for each in json.loads(workshop.run("failover", "messages", "list", "--json").stdout)] == NAMES


def test_the_time_in_a_message_is_that_of_the_clients_incident(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    def text(name: str, *more: str) -> str:
        done = workshop.run("failover", "messages", "show", name, "--tenant", "tenant0", *more)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def incident(number: int, kind: Kind, opened_ms: int, **fields: Any) -> str:
        mapping: dict[Any, Any] = {"kind": kind, "opened_ms": opened_ms, **fields}
        client.hset(keyspace.incident(str(number)), mapping=mapping)
        client.zadd(keyspace.ALL_INCIDENTS, {str(number): opened_ms})
        return utc(opened_ms / 1000)

    workshop.routes(hot=[{"upstream": "a"}])
    bury(client, producer, 1)
    now = now_ms(client)
    letters = {"dead": 1, "dead:tenant:tenant0": 1}
    older = incident(1, Kind.DEAD_LETTERS, now - 7_200_000, resolved_ms=now, left=1, **letters)
    assert f"your work of {older} could" in text("dead_letter")
    newer = incident(2, Kind.DEAD_LETTERS, now - 3_600_000, **letters)
    incident(3, Kind.LATE, now - 600_000, state=json.dumps({"tenants": {"tenant0": 1}}))
    incident(4, Kind.DEAD_LETTERS, now - 60_000, dead=1, **{"dead:tenant:globex": 1})
    assert f"your work of {newer} could" in text("dead_letter")
    assert f"your work of {older} could" in text("dead_letter", "--incident", "1")
    producer.enqueue(chat("waits", tenant_id="tenant0"))
    assert f"your work of {newer} could" in text("dead_letter")
    assert older not in text("extended_outage") and newer not in text("extended_outage")
