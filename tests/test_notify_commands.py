"""What people type at 3 AM: incidents, silences, answers by hand, the runbook word for word."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import redis

from ops.simulators.slack_api import Slack
from producer import Producer, keyspace
from tests.support.documents import shown
from tests.support.incidents import die, incidents, on_call, over
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.workshop import Workshop
from worker.control import pause
from worker.money import billing_alerts
from worker.notify.kinds import Kind

ROOT = Path(__file__).parent.parent


def ran(workshop: Workshop, *words: str, stdin: str | bytes = b"", **environment: str) -> str:
    return ended(workshop.run("failover", *words, stdin=stdin, **environment), 0)


def refused(workshop: Workshop, code: int, *words: str, **environment: str) -> str:
    return ended(workshop.run("failover", *words, **environment), code)


def ended(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, (done.args, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_incidents_are_listed_shown_silenced_and_exported(
    workshop: Workshop, producer: Producer, client: redis.Redis, slack: Slack
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    workshop.worker(**slack.environment)
    die(workshop, producer, 4, tenants=2)
    until(lambda: over(client, Kind.DEAD_LETTERS), "it is over")
    assert "4 dead letters of tenant0 and 1 other client (rejected 4) (ai-tasks)" in ran(workshop, "incidents")
    shown_text = ran(workshop, "incidents", "show", "1")
    assert "tenants: tenant0 2, tenant1 2" in shown_text
    assert "the first dead letters" in shown_text
    listed = json.loads(ran(workshop, "incidents", "list", "--json"))
    assert (listed[0]["dead"], listed[0]["reasons"]) == (4, {"rejected": 4})
    exported = ran(workshop, "incidents", "export")
    assert re.search(
        r"\| 1 \| .* \| 4 dead letters of tenant0 .* \| 0 \| 0 \| 0 \| 4 \| tenant0 2, tenant1 2 \|", exported
    )
    assert "there is no incident 99" in refused(workshop, 2, "incidents", "show", "99")
    until(lambda: len(slack.in_channel()) == 2, "opened and over")
    ran(workshop, "incidents", "silence", "1", "--for", "2h", "--reason", "we know")
    die(workshop, producer, 1)
    until(lambda: len(over(client, Kind.DEAD_LETTERS)) == 2, "another one came and went")
    assert len(slack.in_channel()) == 2
    pause.pause(client, who="kira", why="another matter")
    until(lambda: len(slack.in_channel()) == 3, "what is not silenced is told")
    ran(workshop, "incidents", "unsilence", "2")
    pause.resume(client, who="kira")
    die(workshop, producer, 1)
    until(lambda: any("dead letter of" in m.texts[0] for m in slack.in_channel()[3:]), "and this again, after it")


def test_a_month_of_incidents_becomes_a_page(workshop: Workshop, client: redis.Redis, tmp_path: Path) -> None:
    client.hset(keyspace.incident("7"), mapping={"kind": "cold", "subject": "", "queue": "", "opened_ms": 1793527200000,
                "resolved_ms": 1793529000000, "saved": 12, "late": 8, "dead": 1})  # fmt: skip
    client.zadd(keyspace.ALL_INCIDENTS, {"7": 1793527200000})
    client.rpush(keyspace.story("7"), json.dumps({"at_ms": 1793527200000, "text": "a|b is *open*"}))
    ran(workshop, "incidents", "export", "--month", "2026-11", "-o", str(tmp_path / "november.md"))
    page = (tmp_path / "november.md").read_text()
    assert "# Incidents of November 2026" in page
    assert (
        "| 7 | 2026-11-01 10:00 | 2026-11-01 10:30 | 30 minutes | All AI providers are down | 12 | 8 | 0 | 1 |  |"
        in page
    )
    assert r"a\|b is \*open\*" in page
    assert "a year and a month" in refused(workshop, 2, "incidents", "export", "--month", "November")


@pytest.mark.parametrize("way", ["file", "text", "stdin"])
def test_a_person_answers_in_place_of_a_model(
    workshop: Workshop, producer: Producer, client: redis.Redis, way: str
) -> None:
    workshop.policy(max_time_to_answer_seconds=0.001, degrade=["human_review"])
    done = workshop.run("failover", "submit", "--tenant", "acme", "--prompt", "Write to\nthe dentist.")
    job_id = done.stdout.strip()
    listed = ran(workshop, "review", "list")
    assert job_id in listed
    assert "late, queued" in listed
    assert "--- user\nWrite to\nthe dentist." in ran(workshop, "review", "show", job_id)
    (workshop.folder / "answer.txt").write_text("Dear dentist")
    words = {"file": ["--answer", "answer.txt"], "text": ["--text", "Dear dentist"], "stdin": []}[way]
    said = ran(workshop, "dlq", "resolve", job_id, *words, stdin=b"Dear dentist")
    assert "message for acme, ready to paste" in said
    assert "Hi acme team" in said
    result = producer.fetch(job_id)
    assert (result.status, result.text, result.resolved_by) == ("done", "Dear dentist", "human")
    assert "no job whose policy has `human_review` waits for a person" in ran(workshop, "review", "list")
    assert "it needs no answer" in refused(workshop, 2, "review", "show", job_id)


def test_the_waiting_jobs_of_one_client_are_listed_with_what_is_needed_to_answer_them(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    workshop.policy()
    high = Producer(client, producer.policies, queue="high")
    questions = ["[red]Is it late?[/red]\n\x1b[31m" + "x" * 500, "the second", "the third"]
    producer.enqueue_many([chat("of another", tenant_id="globex") for _ in range(3)])
    ids = []
    for number, question in enumerate(questions):
        ids.append((high if number else producer).enqueue(chat(question, tenant_id="acme")))
        client.hincrby(keyspace.job(ids[-1]), "accepted_ms", (number - 9) * 60_000)
    listed = ["review", "list", "--tenant", "acme", "--waiting"]
    said = ran(workshop, *listed, COLUMNS="200")
    assert [line.split()[0] for line in said.splitlines()[1:4]] == ids
    assert "9 min" in said and "queued" in said and "[red]Is it late?[/red]" in said and "\x1b[31m" not in said
    assert "globex" not in said and "jobs of acme wait;" not in said
    cut = json.loads(ran(workshop, *listed, "--limit", "2", "--json"))
    assert (cut["waiting"], [job["job_id"] for job in cut["jobs"]]) == (3, ids[:2])
    assert (len(cut["jobs"][0]["question"]), cut["jobs"][1]["question"]) == (100, "the second")
    assert "3 jobs of acme wait; the 2 that wait longest are listed" in ran(workshop, *listed, "--limit", "2")
    assert "nothing waits" in ran(workshop, "review", "list", "--tenant", "nobody", "--waiting")
    assert "give --tenant NAME" in refused(workshop, 2, "review", "list", "--waiting")
    ran(workshop, "dlq", "resolve", ids[0], "--text", "By hand")
    assert producer.fetch(ids[0]).text == "By hand"


def test_the_commands_of_a_budgets_pause_are_accepted_and_end_it(workshop: Workshop, client: redis.Redis) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    by_provider = billing_alerts.Guardrail(scope="provider")
    for provider, percent in (("google", 97.2), ("openai", 85.0)):
        billing_alerts.observe(client, billing_alerts.BillingReport(provider, percent), by_provider)
    assert "such as 100" in refused(workshop, 2, "resume", "--pause-again-at", "95")
    assert "such as 100" in refused(workshop, 2, "resume", "--pause-again-at", "95", BUDGET_PAUSE_AT_PERCENT="98")
    workshop.worker()
    until(lambda: any(told.commands for told in incidents(client, Kind.BUDGET)), "an incident with commands")
    commands = [command for told in incidents(client, Kind.BUDGET) for command in told.commands]
    for command in commands:
        ran(workshop, *shlex.split(command)[1:])
    assert pause.paused(client, []) == []
    assert not billing_alerts.observe(client, billing_alerts.BillingReport("google", 98.0), by_provider).paused
    until(lambda: over(client, Kind.BUDGET), "it is over")


@pytest.mark.timeout(300)  # a process for each of some sixty commands
def test_every_command_of_the_runbook_runs(
    workshop: Workshop, producer: Producer, client: redis.Redis, slack: Slack
) -> None:
    """Word for word, but for ID and the client's name."""
    workshop.routes(hot=[{"upstream": "a", "name": "openai/gpt-4o-mini"}])
    on_call(workshop, quiet_minutes=60)
    environment = {**slack.environment, "FAILOVER_API_TOKEN": "x" * 40}
    workshop.worker(**environment)
    (workshop.folder / "answer.txt").write_text("By hand")
    letters = iter(die(workshop, producer, 40))
    until(lambda: incidents(client, Kind.DEAD_LETTERS), "an incident")
    workshop.run("failover", "tokens", "create", "acme-app", "--role", "tenant", "--tenant", "acme")
    lines = [words for words in shown(ROOT / "runbook.md") if words[0] == "failover"]
    ran_lines: set[str] = set()
    for _, *words in lines:
        line = " ".join(words)
        if not words or line in ran_lines:
            continue
        ran_lines.add(line)
        job_or_incident = "1" if words[0] == "incidents" else ""
        filled = [job_or_incident or next(letters) if word == "ID" else word for word in _quoted(words)]
        done = workshop.run("failover", *filled, stdin=b"By hand", **environment)
        assert done.returncode == 0, (filled, done.stdout, done.stderr)
    assert len(ran_lines) >= 25


def _quoted(words: list[str]) -> list[str]:
    """Words of a line whose quoted text was split at its spaces."""
    return shlex.split(" ".join(words)) if " ".join(words).count('"') % 2 == 0 else [w.strip('"') for w in words]


def test_the_channels_are_tried_and_what_is_wrong_is_said(workshop: Workshop, slack: Slack) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    assert "slack: the message arrived" in ran(workshop, "notify", "test", **slack.environment)
    assert "an incident would reach you like this" in slack.messages[0].whole()
    wrong = {**slack.environment, "SLACK_BOT_TOKEN": "xoxb-wrong"}
    said = refused(workshop, 1, "notify", "test", **wrong)
    assert "invalid_auth — SLACK_BOT_TOKEN is wrong" in said
    assert "xoxb-wrong" not in said
    assert "no channel is set up" in refused(workshop, 1, "notify", "test")
    said = refused(workshop, 2, "notify", "test", SLACK_BOT_TOKEN="xoxb-1")
    assert "SLACK_CHANNEL" in said
    said = refused(workshop, 1, "notify", "test", SLACK_WEBHOOK_URL="http://127.0.0.1:9/services/secret-part")
    assert "secret-part" not in said
    assert "cannot be reached" in said
    slack.mode = "down"
    webhook = {"NOTIFY_WEBHOOK_URL": f"{slack.url}/services/x", "NOTIFY_WEBHOOK_SECRET": "whsec_c2VjcmV0"}
    for environment in (slack.environment, slack.webhook_environment, webhook):
        said = refused(workshop, 1, "notify", "test", **environment)
        assert "it answered 503, a failure on its own side — no setting of yours is wrong" in said
        assert "check" not in said


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"NOTIFY_EMAIL": "a@b.example"}, "SMTP_URL"),
        ({"SMTP_URL": "http://x"}, "SMTP_URL"),
        ({"SMTP_URL": "smtp://mail.example:25"}, "NOTIFY_EMAIL"),
        ({"SMTP_URL": "smtp://mail.example:25", "NOTIFY_EMAIL": "nobody"}, "NOTIFY_EMAIL"),
        ({"NOTIFY_WEBHOOK_URL": "https://x.example/hook"}, "NOTIFY_WEBHOOK_SECRET"),
        ({"NOTIFY_WEBHOOK_URL": "x.example"}, "NOTIFY_WEBHOOK_URL"),
        ({"SLACK_WEBHOOK_URL": "hooks.slack.com/services/secret"}, "SLACK_WEBHOOK_URL"),
    ],
)
def test_a_channel_that_is_half_set_up_is_refused_at_start(
    workshop: Workshop, environment: dict[str, str], said: str
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    for command in (["failover", "notify", "test"], ["failover-worker", "--burst"]):
        done: subprocess.CompletedProcess[str] = workshop.run(*command, **environment)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert "secret" not in done.stderr.replace("NOTIFY_WEBHOOK_SECRET", "").replace("signing secret", "")


def test_the_status_says_what_is_open(workshop: Workshop, client: redis.Redis) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    workshop.worker()
    pause.pause(client, who="kira", why="a look")
    until(lambda: incidents(client, Kind.PAUSED), "an incident")
    assert re.search(r"OPEN incident 1, since .*: Paused", ran(workshop, "status"))
