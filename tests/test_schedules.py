"""Cron lines: their times, one start for each, missed ones, reload, and what `failover schedule list` shows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis

from producer import Producer, keyspace
from producer.connection import connect_async
from producer.errors import ConfigurationError
from producer.policy import Policies
from tests.support.polling import until
from tests.support.workshop import Workshop
from worker.schedules.leader import Record, ScheduleLeader, read_records
from worker.schedules.policy import Schedules, load_schedules

JOB = {"body": {"messages": [{"role": "user", "content": "Good morning"}]}}
YEARLY = {"cron": "0 0 1 1 *", "job": JOB}  # no time comes while a test runs
YEAR = 366 * 86400
SHIPPED = Path(__file__).parent.parent / "policies" / "schedules.yaml"


def schedules(**named: dict[str, Any]) -> Schedules:
    return Schedules.model_validate({"schedules": named}, context=["default"])


def step(url: str, policies: Policies, wanted: Schedules, *names: str) -> None:
    """One step of these workers, at the same time."""

    async def steps() -> None:
        clients = [connect_async(url, max_connections=2) for _ in names]
        leaders = [
            ScheduleLeader(client, name, lambda: wanted, lambda: policies)
            for client, name in zip(clients, names, strict=True)
        ]
        await asyncio.gather(*(leader.step() for leader in leaders))
        for client in clients:
            await client.aclose()

    asyncio.run(steps())


def records(client: redis.Redis) -> dict[str, Record]:
    fields: dict[bytes, bytes] = client.hgetall(keyspace.SCHEDULES)  # type: ignore[assignment]  # no decode_responses here
    return read_records(fields)


def rewind(client: redis.Redis, name: str, seconds: float) -> None:
    """As if the schedule's times had been handled only up to so long ago."""
    record = records(client)[name].__dict__
    client.hset(keyspace.SCHEDULES, name, json.dumps({**record, "until": record["until"] - seconds}))


def queued(client: redis.Redis) -> int:
    return client.llen(keyspace.queue("ai-tasks"))


@pytest.mark.parametrize(
    ("cron", "start", "times"),
    [
        ("30 2 * * *", "2026-03-28T12:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),  # put forward
        ("30 2 * * *", "2026-10-24T12:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),  # put back: once
        ("0 7 * * mon-fri", "2026-11-28T12:00", ["2026-11-30T07:00+01:00", "2026-12-01T07:00+01:00"]),
        ("0 0 L * *", "2027-02-01T00:00", ["2027-02-28T00:00+01:00", "2027-03-31T00:00+02:00"]),
    ],
)
def test_times_are_those_of_the_clock_on_the_wall(cron: str, start: str, times: list[str]) -> None:
    zone = ZoneInfo("Europe/Berlin")
    schedule = schedules(a={"cron": cron, "time_zone": "Europe/Berlin", "job": JOB}).schedules["a"]
    found = schedule.times(datetime.fromisoformat(start).replace(tzinfo=zone).timestamp())
    assert [datetime.fromtimestamp(next(found), zone).isoformat(timespec="minutes") for _ in times] == times


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"cron": "* * * *", "job": JOB}, "schedules.a.cron: .*five columns"),
        ({"cron": "* * * * * *", "job": JOB}, "schedules.a.cron: .*five columns"),
        ({"cron": "61 * * * *", "job": JOB}, "schedules.a.cron: .*no cron line: bad minute"),
        ({"cron": "0 0 31 2 *", "job": JOB}, "schedules.a.cron: .*no cron line: bad day-of-month"),
        ({**YEARLY, "time_zone": "Berlin"}, "schedules.a.time_zone: .*such as Europe/Berlin"),
        ({**YEARLY, "time_zone": "../etc"}, "schedules.a.time_zone: .*such as Europe/Berlin"),
        ({**YEARLY, "missed": "all"}, "schedules.a.missed"),
        ({"cron": "* * * * *"}, "schedules.a: .*either a `job` or `run: budget poll`"),
        ({**YEARLY, "run": "budget poll"}, "schedules.a: .*either"),
        ({"cron": "* * * * *", "run": "rm -rf"}, "schedules.a.run"),
        ({**YEARLY, "job": {**JOB, "job_type": "digest"}}, "schedules.a.job: .*'digest' is not in jobs.yaml"),
        ({**YEARLY, "job": {**JOB, "idempotency_key": "k"}}, "schedules.a.job: .*idempotency_key is made from"),
        ({**YEARLY, "job": {"body": {"messages": []}}}, "schedules.a.job.body.messages"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, fields: dict[str, Any], where: str) -> None:
    (tmp_path / "schedules.yaml").write_text(f"version: 1\nschedules:\n  a: {json.dumps(fields)}\n")
    with pytest.raises(ConfigurationError, match=rf"schedules.yaml:3: {where}"):
        load_schedules({"POLICIES_DIR": str(tmp_path)}, ["default"])


def test_the_shipped_file_schedules_nothing_and_its_examples_are_right(tmp_path: Path) -> None:
    assert load_schedules({}, ["default"]).schedules == {}
    head, _, examples = SHIPPED.read_text().partition("schedules:\n")
    (tmp_path / "schedules.yaml").write_text(head + "schedules:\n" + examples.replace("#  ", "  "))
    assert set(load_schedules({"POLICIES_DIR": str(tmp_path)}, ["default"]).schedules) == {"morning_digest", "costs"}


def test_a_time_is_started_once_by_one_of_the_workers(url: str, client: redis.Redis, policies: Policies) -> None:
    wanted = schedules(a=YEARLY)
    step(url, policies, wanted, "w1", "w2")
    assert queued(client) == 0 and records(client)["a"].time is None  # a new line has missed nothing
    rewind(client, "a", YEAR)
    step(url, policies, wanted, "w1", "w2")
    step(url, policies, wanted, "w1", "w2")
    assert queued(client) == 1
    handled = records(client)["a"]
    unwritten = {**handled.__dict__, "until": (handled.time or 0) - 1}  # a worker died between the job and the record
    client.hset(keyspace.SCHEDULES, "a", json.dumps(unwritten))
    client.delete(keyspace.SCHEDULES_LEADER)
    step(url, policies, wanted, "w3")
    assert queued(client) == 1 and records(client)["a"].result == handled.result


def test_a_leader_that_dies_is_followed_by_another(url: str, client: redis.Redis, policies: Policies) -> None:
    wanted = schedules(a=YEARLY)
    step(url, policies, wanted, "w1")
    rewind(client, "a", YEAR)
    step(url, policies, wanted, "w2")
    assert queued(client) == 0 and client.pttl(keyspace.SCHEDULES_LEADER) > 0
    client.delete(keyspace.SCHEDULES_LEADER)
    step(url, policies, wanted, "w2")
    assert queued(client) == 1


@pytest.mark.parametrize(("missed", "jobs"), [("run", 1), ("skip", 0)])
def test_times_missed_while_no_worker_ran_are_started_once_or_skipped(
    url: str, client: redis.Redis, policies: Policies, missed: str, jobs: int
) -> None:
    wanted = schedules(a={"cron": "0 * * * *", "missed": missed, "job": JOB})
    step(url, policies, wanted, "w1")
    before = records(client)["a"].until
    hour = before - before % 3600
    record = {**records(client)["a"].__dict__, "until": hour - 5 * 3600 - 1}
    client.hset(keyspace.SCHEDULES, "a", json.dumps(record))
    if before - hour < 120:  # the last time may be on time: move on into the hour
        wanted = schedules(a={"cron": "30 * * * *", "missed": missed, "job": JOB})
        client.hset(keyspace.SCHEDULES, "a", json.dumps({**record, "definition": wanted.schedules["a"].definition}))
    step(url, policies, wanted, "w1")
    found = records(client)["a"]
    assert queued(client) == jobs
    assert (found.missed, found.skipped) in ([(5, False), (4, False)] if jobs else [(6, True), (5, True)])
    step(url, policies, wanted, "w1")
    assert queued(client) == jobs


def test_a_command_that_ends_after_the_next_start_changes_nothing(client: redis.Redis, url: str) -> None:
    later = Record("* * * * * UTC", until=200.0, time=180.0, started=181.0)
    client.hset(keyspace.SCHEDULES, "a", json.dumps(later.__dict__))

    async def ends() -> None:
        connection = connect_async(url, max_connections=1)
        leader = ScheduleLeader(connection, "w1", Schedules, Policies)
        await leader.record("a", Record("* * * * * UTC", until=140.0, time=120.0, started=121.0), "of the first")
        assert records(client)["a"] == later
        await leader.record("a", later, "of the second")
        await connection.aclose()

    asyncio.run(ends())
    assert records(client)["a"] == Record("* * * * * UTC", 200.0, 180.0, 181.0, "of the second")


def test_a_changed_line_begins_anew_and_a_removed_one_is_forgotten(
    url: str, client: redis.Redis, policies: Policies
) -> None:
    step(url, policies, schedules(a=YEARLY, b=YEARLY), "w1")
    rewind(client, "a", YEAR)
    step(url, policies, schedules(a={"cron": "*/2 * * * *", "job": JOB}, b={**YEARLY, "enabled": False}), "w1")
    assert queued(client) == 0 and set(records(client)) == {"a"}


def test_a_record_that_cannot_be_read_begins_anew(url: str, client: redis.Redis, policies: Policies) -> None:
    client.hset(keyspace.SCHEDULES, "a", "of another release")
    step(url, policies, schedules(a=YEARLY), "w1")
    assert records(client)["a"].time is None


def test_without_a_schedule_redis_is_asked_nothing(url: str, client: redis.Redis, policies: Policies) -> None:
    step(url, policies, schedules(), "w1")
    assert client.dbsize() == 0


def test_a_worker_starts_jobs_and_commands_and_reads_a_changed_file(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "hot"}])
    workshop.policy()
    path = workshop.folder / "policies" / "schedules.yaml"
    path.write_text("version: 1\nschedules:\n")
    worker = workshop.worker()
    path.write_text(
        json.dumps(
            {"version": 1, "schedules": {"digest": YEARLY, "costs": {"cron": "0 0 1 1 *", "run": "budget poll"}}}
        )
    )
    client = producer.client
    until(lambda: set(records(client)) == {"digest", "costs"}, "the worker reads the file again")
    for name in ("digest", "costs"):
        rewind(client, name, YEAR)
    result: Callable[[str], str] = lambda name: records(client)[name].result  # noqa: E731
    until(lambda: bool(result("digest")) and bool(result("costs")), "both are started")
    until(lambda: all(producer.ended([result("digest")])), "the job runs")
    assert "OPENAI_ADMIN_KEY or ANTHROPIC_ADMIN_KEY: is not set" in result("costs") and "exit 2" in result("costs")
    assert workshop.events(worker, "scheduled job submitted")[0]["job_id"]
    listed = workshop.run("failover", "schedule", "list")
    assert listed.returncode == 0 and "budget poll" in listed.stdout and "exit 2" in listed.stdout
    rows = json.loads(workshop.run("failover", "schedule", "list", "--json").stdout)["schedules"]
    assert [row["name"] for row in rows] == ["digest", "costs"] and len(rows[0]["next"]) == 3
    assert datetime.fromisoformat(rows[0]["next"][0]) > datetime.now(UTC)
    path.write_text("version: 1\nschedules: {a: {cron: nonsense, run: budget poll}}\n")
    until(lambda: bool(workshop.events(worker, "configuration refused, the old one stays")), "the file is refused")
    wrong = workshop.run("failover", "schedule", "list")
    assert wrong.returncode == 2 and "schedules.yaml:2: schedules.a.cron" in wrong.stderr
