"""`make bench-notify`: what people are told, against a simulated Slack that takes one message a second.

    python -m bench.notify [--jobs 10000]

1. Ten thousand dead letters of three tenants: at most 6 messages in 10 minutes, counts exact, every id to be had.
2. Slack away for two hours: jobs answer as fast as with Slack, and everything is said once when it is back.
3. An outage of every provider for 30 minutes: one message when it begins, one when it is over.

The second and the third run 60 times as fast: minutes of policies/oncall.yaml as seconds, the breakers' cooldown 0.5 s.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import redis

from bench.throughput import bench_place, wait_until
from ops.local import session
from ops.simulators import slack_api
from ops.simulators.provider import Control
from ops.simulators.slack_api import Slack
from producer import LLMJob, Producer, keyspace
from producer.connection import connect
from producer.job import DeadReason
from producer.policy import load_policies
from worker.breakers.local import Rules
from worker.configuration import Configuration
from worker.notify.incidents import Incident, Incidents
from worker.notify.kinds import Kind
from worker.notify.settings import load_settings
from worker.queue import dead_letters as letters
from worker.routes.route import read_routes

FASTER = 60
Q = "ai-tasks"
SLOTS = 100
TENANTS = 3
PEOPLE = {"on_call": [{"name": "Kira", "contact": "@kira"}], "tells_clients": {"default": "Dana"}}
FAST = {
    **PEOPLE,
    "late_minutes": 15 / FASTER,
    "quiet_minutes": 15 / FASTER,
    "reminder_minutes": 30 / FASTER,
    "digest_minutes": 5 / FASTER,
    "edit_seconds": 1,
    "thread_seconds": 1,
    "hold_seconds": 0.2,
    "steady_seconds": 1,
}
QUIET_MINUTES = 0.5  # of the first case, so that the bench need not wait for 15 to see the end


@contextlib.contextmanager
def working(url: str, folder: Path, slack: Slack, workers: int, oncall: Mapping[str, object]) -> Iterator[Producer]:
    """Workers of this process that tell `slack`."""
    policies = folder / "policies"
    policies.mkdir(exist_ok=True)
    (policies / "oncall.yaml").write_text(json.dumps({"version": 1, **oncall}))
    (policies / "jobs.yaml").write_text(json.dumps({"job_types": {"default": {"max_time_to_answer_seconds": 1}}}))
    environment = {"POLICIES_DIR": str(policies), **slack.environment}
    settings, job_policies = load_settings(environment), load_policies(environment)
    rules = Rules(cooldown_seconds=30 / FASTER, longest_cooldown_seconds=120 / FASTER)
    routes = read_routes(folder / "routes.json", {})
    with contextlib.ExitStack() as stack:
        for _ in range(workers):
            worker = session.own_worker(
                url, Configuration(job_policies, routes), slots=SLOTS, rules=rules, settings=settings
            )
            stack.enter_context(worker)
        yield Producer(stack.enter_context(connect(url)), job_policies)


def jobs_of(count: int, label: str) -> list[LLMJob]:
    body = "{}-{}".format
    return [
        LLMJob(body={"messages": [{"role": "user", "content": body(label, n)}]}, tenant_id=f"tenant{n % TENANTS}")
        for n in range(count)
    ]


def open_count(client: redis.Redis) -> int:
    return int(client.hlen(keyspace.INCIDENTS)) + int(client.scard(keyspace.UNTOLD_INCIDENTS))


def dead_letters(url: str, client: redis.Redis, folder: Path, control: Control, jobs: int) -> dict[str, object]:
    control.behave("hot", status=400)
    with (
        slack_api.running() as slack,
        working(url, folder, slack, 2, {"quiet_minutes": QUIET_MINUTES}) as producer,
    ):
        began = time.monotonic()
        ids = {receipt.job_id for receipt in producer.enqueue_many(jobs_of(jobs, "dead"))}
        wait_until(lambda: client.zcard(keyspace.failed(Q)) == jobs, "all are dead")
        took = time.monotonic() - began
        found = _told_and_over(client, Kind.DEAD_LETTERS)
        messages = list(slack.messages)
    listed = letters.listed(client, Q, letters.Filters(reason=DeadReason.REJECTED), jobs)
    exact = {f"tenant{n}": len(range(n, jobs, TENANTS)) for n in range(TENANTS)}
    return {
        "dead letters": found.dead,
        "seconds until all were dead": round(took, 1),
        "messages in the channel and its threads": len(messages),
        "edits": slack.edits,
        "429 by Slack": slack.limited,
        "counts exact": found.dead == jobs and dict(found.tenants) == exact and f"{jobs:,} jobs" in messages[0].whole(),
        "ids to be had": {letter.job_id for letter in listed} == ids,
        "passed_dead": len(messages) <= 6 and found.dead == jobs and dict(found.tenants) == exact,
    }


def _told_and_over(client: redis.Redis, kind: Kind) -> Incident:
    wait_until(lambda: open_count(client) == 0, "everything is over and told")
    (found,) = (each for each in Incidents(client).since(0) if each.kind is kind)
    return found


def slack_away(url: str, client: redis.Redis, folder: Path, control: Control, jobs: int) -> dict[str, object]:
    """The same jobs with Slack there, and with Slack taking connections and never answering."""
    control.behave("hot", latency=(0.05, 0.1))
    medians: dict[str, float] = {}
    with slack_api.running() as slack, working(url, folder, slack, 1, FAST) as producer:
        for mode in ("up", "hangs", "up", "hangs"):
            slack.mode = mode  # type: ignore[assignment]  # one of its modes
            _something_to_tell(client, slack)
            receipts = producer.enqueue_many(jobs_of(jobs, f"{mode} {time.monotonic()}"))
            wait_until(lambda: client.zcard(keyspace.accepted(Q)) == 0, "all are done")
            results = producer.fetch_many([receipt.job_id for receipt in receipts])
            times = [(r.queue_latency_ms or 0) + (r.run_ms or 0) for r in results if r is not None]
            medians[mode] = min(medians.get(mode, 1e9), statistics.median(times))
            wait_until(lambda: client.hlen(keyspace.INCIDENTS) == 0, "it is over")
        away = time.monotonic()
        wait_until(lambda: time.monotonic() > away + 7200 / FASTER / 4, "Slack stays away for longer")
        slack.mode = "up"
        wait_until(lambda: open_count(client) == 0, "everything is told")
        names = [message.metadata["event_payload"]["name"] for message in slack.messages]
        told = {name.partition(":")[0] for name in names}
        incidents = {each.id for each in Incidents(client).since(0) if each.kind is Kind.DEAD_LETTERS}
    return {
        "median time to answer, Slack there, ms": medians["up"],
        "median time to answer, Slack hangs, ms": medians["hangs"],
        "incidents told of": f"{len(told & incidents)} of {len(incidents)}",
        "told twice": len(names) - len(set(names)),
        "passed_away": len(names) == len(set(names)) and incidents <= told,
    }


def _something_to_tell(client: redis.Redis, slack: Slack) -> None:
    """An incident of which Slack is asked to tell."""
    wait_until(lambda: client.hlen(keyspace.INCIDENTS) == 0, "the one before is over")
    before, asked = client.zcard(keyspace.ALL_INCIDENTS), slack.requests
    client.hincrby(keyspace.news(Q), "dead", 1)  # as the script that buries a job does it
    wait_until(lambda: client.zcard(keyspace.ALL_INCIDENTS) > before, "an incident is open")
    wait_until(lambda: slack.requests > asked, "Slack is asked")


def outage(url: str, client: redis.Redis, folder: Path, control: Control, jobs: int) -> dict[str, object]:
    for upstream in ("hot", "warm"):
        control.behave(upstream, status=503)
    with slack_api.running() as slack, working(url, folder, slack, 3, FAST) as producer:
        producer.enqueue_many(jobs_of(jobs, "outage"))
        began = time.monotonic()
        wait_until(lambda: time.monotonic() > began + 1800 / FASTER, "the outage")
        opening = slack.in_channel()[0].whole()
        for upstream in ("hot", "warm"):
            control.behave(upstream, latency=(0.05, 0.1))
        found = _told_and_over(client, Kind.COLD)
        channel = slack.in_channel()
        reminders = [m for m in channel if "Still" in m.texts[0]]
        plain = [message for message in channel if message not in reminders]
        print("\n--- the message of the outage, when all was late", opening, sep="\n\n")
        print("\n--- the thread of the outage", *(m.whole() for m in slack.in_thread(channel[0].ts)), sep="\n\n")
    return {
        "opened and over": [message.texts[0] for message in plain],
        "reminders": len(reminders),
        "in the thread": len(slack.in_thread(channel[0].ts)),
        "edits of the first message": slack.edits,
        "late at worst": found.late,
        "passed_outage": len(plain) == 2 and "Over after" in plain[1].texts[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    arguments = parser.parse_args()
    passed = True
    for case, jobs in ((dead_letters, arguments.jobs), (slack_away, 500), (outage, 200)):
        with bench_place((0.0, 0.0)) as (url, environment, folder), connect(url) as client:
            control = Control(environment["SIMULATOR"])
            tiers = {
                tier: [{"provider": tier, "model": "m", "baseUrl": control.base_url(tier), "apiKeyEnv": ""}]
                for tier in ("hot", "warm")
            }
            (folder / "routes.json").write_text(json.dumps(tiers))
            found = case(url, client, folder, control, jobs)
        print(f"\n{case.__name__.replace('_', ' ')}")
        for name, value in found.items():
            print(f"  {name:44} {value}")
        passed &= all(value for name, value in found.items() if name.startswith("passed"))
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
