"""Routes as workers take them: kill switches, flags, keys, reloads; and what the trail tells of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import redis

from producer import Producer, keyspace
from producer.job import JobStatus, LLMJob
from producer.policy import Policies
from producer.trail import RejectedFor, Rejection
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.replies import texts
from tests.support.routes import PRICES, asked, done, routing, two_routes
from tests.support.workshop import Workshop


def test_a_kill_switch_set_in_one_process_is_obeyed_by_eight_workers(workshop: Workshop, producer: Producer) -> None:
    two_routes(workshop)
    workshop.providers.behave("a", latency=(0.05, 0.2))
    workshop.providers.behave("b", latency=(0.05, 0.2))
    for _ in range(8):
        workshop.worker("--concurrency", "2")
    producer.enqueue_many([chat(f"{number}") for number in range(3000)])
    until(lambda: asked(workshop, "a") > 50, "the route is used")
    ended = workshop.run("failover", "routes", "disable", "a/a-1", "--reason", "wrong answers")
    assert ended.returncode == 0, ended.stderr
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 1, "a second passes")
    then = asked(workshop, "a")
    before_b = asked(workshop, "b")
    until(lambda: asked(workshop, "b") > before_b + 100, "the other route goes on")
    assert asked(workshop, "a") == then
    status = workshop.run("failover", "status").stdout
    assert "DISABLED: route a/a-1" in status and "wrong answers" in status and "not paused" in status
    assert "enables it again" in ended.stdout
    assert "it was disabled" in workshop.run("failover", "routes", "enable", "a/a-1").stdout
    until(lambda: asked(workshop, "a") > then, "the route is used again")


def test_a_disabled_route_is_told_with_its_code_and_a_typo_is_refused(workshop: Workshop, producer: Producer) -> None:
    two_routes(workshop)
    workshop.worker()
    assert workshop.run("failover", "routes", "disable", "a/a-1", "--for", "90m").returncode == 0
    result = until(lambda: (r := done(producer)).route == "b/b-1" and r, "the switch is heard")
    assert [(e.route, e.code) for e in result.trail if isinstance(e, Rejection)] == [("a/a-1", RejectedFor.DISABLED)]
    typo = workshop.run("failover", "routes", "disable", "a/a-2")
    assert (typo.returncode, "known routes: a/a-1, b/b-1" in typo.stderr) == (2, True)
    last = workshop.run("failover", "routes", "disable", "b/b-1")
    assert "no route is left" in last.stderr


def test_enable_closes_a_breaker_and_ends_a_rest(workshop: Workshop, producer: Producer) -> None:
    two_routes(workshop)
    workshop.providers.behave("a", status=402)
    workshop.worker()
    assert done(producer).route == "b/b-1"
    until(lambda: "billing" in workshop.run("failover", "routes", "show").stdout, "the account rests")
    assert done(producer).route == "b/b-1"
    workshop.providers.behave("a")
    assert "it rested for billing" in workshop.run("failover", "routes", "enable", "a/a-1").stdout
    until(lambda: done(producer).route == "a/a-1", "the route is taken again")


def test_routes_and_policies_reload_while_the_worker_runs_and_a_bad_file_is_refused(
    workshop: Workshop, producer: Producer
) -> None:
    workshop.policy()
    two_routes(workshop)
    worker = workshop.worker()
    assert done(producer).route == "a/a-1"
    workshop.routes(hot=[{"upstream": "b", "price": PRICES["b"]}], warm=[{"upstream": "c"}])
    until(lambda: workshop.events(worker, "configuration reloaded"), "it is reloaded")
    until(lambda: done(producer).route == "b/b-1", "the new map is used")
    routing(workshop, pin=["c/c-1"])
    until(lambda: done(producer).route == "c/c-1", "the new policy is used")
    path = Path(workshop.environment["ROUTES_FILE"])
    path.write_text('{"hot": [{"provider": "b"}]}')
    refused = until(lambda: workshop.events(worker, "configuration refused, the old one stays"), "it is refused")
    assert any("hot.0.model: is missing" in problem for problem in refused[0]["problems"])
    assert done(producer).route == "c/c-1"
    until(lambda: "c/c-1" in workshop.run("failover", "status").stdout, "the worker tells of its new map")


def test_a_route_that_left_the_map_takes_no_more_jobs_and_may_come_back(workshop: Workshop, producer: Producer) -> None:
    two_routes(workshop)
    workshop.worker()
    workshop.routes(hot=[{"upstream": "b"}])
    until(lambda: done(producer).route == "b/b-1", "the new map is used")
    workshop.providers.behave("b", status=503)
    producer.enqueue(chat())
    until(lambda: asked(workshop, "b") > 5, "the only route is asked")
    before = asked(workshop, "a")
    two_routes(workshop)
    until(lambda: asked(workshop, "a") > before, "the old route answers again")


def test_keys_rotate_without_a_restart_and_the_trail_names_their_source(workshop: Workshop, producer: Producer) -> None:
    """Configuration (a key file) before the environment before .env; a revoked key is parked and the next one used."""
    workshop.routes(hot=[{"upstream": "a", "apiKeyEnv": "A_KEY"}])
    (workshop.folder / ".env").write_text("A_KEY=sk-of-dotenv\n")
    workshop.providers.behave("a", keys=["sk-of-dotenv", "sk-second", "sk-of-file"])
    worker = workshop.worker()
    assert done(producer).attempted[-1].key == ".env A_KEY"
    (workshop.folder / ".env").write_text("A_KEY=sk-revoked,sk-second\n")
    result = until(lambda: (r := done(producer)).attempted[-1].key == ".env A_KEY#2" and r, "the list is read")
    assert [(attempt.outcome, attempt.key) for attempt in result.attempted] in (
        [("unauthorized", ".env A_KEY#1"), ("ok", ".env A_KEY#2")],
        [("ok", ".env A_KEY#2")],
    )
    assert [attempt.key for attempt in done(producer).attempted] == [".env A_KEY#2"]
    secret = workshop.folder / "a.key"
    secret.write_text("sk-of-file\n")
    workshop.routes(hot=[{"upstream": "a", "apiKeyEnv": "A_KEY", "apiKeyFile": str(secret)}])
    until(lambda: done(producer).attempted[-1].key == "file a.key", "the file is read")
    workshop.providers.behave("a", keys=["sk-rotated"])
    secret.write_text("sk-rotated\n")
    until(lambda: (r := done(producer)).status is JobStatus.DONE and r.attempted[-1].outcome == "ok", "it is rotated")
    assert not workshop.events(worker, "an execution failed in our own code")


def test_the_environment_wins_over_dotenv(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "a", "apiKeyEnv": "A_KEY"}])
    (workshop.folder / ".env").write_text("A_KEY=sk-of-dotenv\n")
    workshop.worker(A_KEY="sk-of-environment")
    assert done(producer).attempted[-1].key == "environment A_KEY"


def test_a_tenants_own_key_is_used_for_its_jobs_alone_and_its_refusal_is_no_word_on_the_route(
    workshop: Workshop, producer: Producer, policies: Policies
) -> None:
    workshop.policy()
    folder = Path(workshop.environment["POLICIES_DIR"])
    (folder / "tenants.yaml").write_text("version: 1\ntenants: {default: {}, acme: {keys: {a: ACME_KEY}}}\n")
    workshop.routes(hot=[{"upstream": "a", "apiKeyEnv": "A_KEY"}])
    workshop.providers.behave("a", keys=["sk-ours"])
    workshop.worker(A_KEY="sk-ours", ACME_KEY="sk-acme")
    theirs = producer.enqueue(chat(tenant_id="acme"))
    parked = until(
        lambda: (r := producer.fetch(theirs)).status in (JobStatus.PARKED, JobStatus.RETRYING) and r, "it waits"
    )
    assert {attempt.key for attempt in parked.attempted} == {"environment ACME_KEY"}
    ours = done(producer)
    assert (ours.status, ours.attempted[-1].key) == (JobStatus.DONE, "environment A_KEY")
    assert [attempt.key for attempt in done(producer).attempted] == ["environment A_KEY"]


def test_a_tenants_key_that_is_not_set_is_refused_at_start(workshop: Workshop) -> None:
    workshop.policy()
    folder = Path(workshop.environment["POLICIES_DIR"])
    (folder / "tenants.yaml").write_text("version: 1\ntenants: {default: {}, acme: {keys: {a: ACME_KEY}}}\n")
    two_routes(workshop)
    ended = workshop.run("failover-worker", "--burst")
    assert (ended.returncode, "tenants.acme.keys.a: ACME_KEY is not set" in ended.stderr) == (2, True)


def test_a_key_appears_nowhere(workshop: Workshop, producer: Producer, client: redis.Redis) -> None:
    """Also when the provider echoes it: not in a log, the trail, any value in Redis, the commands, the process list."""
    canary = "sk-canary-4f1e9b7702"
    workshop.routes(
        hot=[{"upstream": "a", "apiKeyEnv": "A_KEY"}],
        warm=[{"upstream": "b", "apiKeyEnv": "A_KEY", "api": "anthropic", "streamTimeoutSeconds": 5}],
    )
    workshop.providers.behave("a", status=401, error={"message": f"Incorrect API key provided: {canary}"}, times=1)
    workshop.providers.behave("b", text=f"You are {canary}, are you not?")
    worker = workshop.worker(A_KEY=canary)
    echoed = done(producer)
    assert (echoed.route, echoed.text) == ("b/b-1", "You are [key], are you not?")
    workshop.providers.behave("a", status=400, error={"message": f"bad request of {canary}", "param": "messages"})
    workshop.run("failover", "routes", "enable", "a/a-1", A_KEY=canary)
    dead = until(lambda: (r := done(producer)).status is JobStatus.DEAD and r, "one is refused")
    seen = [workshop.log(worker), echoed.model_dump_json(), dead.model_dump_json()]
    for command in (
        ("status",),
        ("routes", "show"),
        ("routes", "show", "--json"),
        ("job", "why", dead.job_id),
        ("doctor",),
    ):
        ended = workshop.run("failover", *command, A_KEY=canary)
        seen += [ended.stdout, ended.stderr]
    seen.append(workshop.run("failover", "dlq", "show", dead.job_id).stdout)
    processes = Path("/proc").glob("[0-9]*/cmdline")
    seen += [path.read_bytes().decode(errors="replace") for path in processes]
    everything = b"".join(_values(client))
    assert len(everything) > 1000
    assert canary.encode() not in everything
    assert not [text for text in seen if canary in text]


def _values(client: redis.Redis) -> list[bytes]:
    """Every value in Redis, whatever its type; results are read as they are kept."""
    return [client.dump(key) or b"" for key in client.scan_iter()] + list(client.scan_iter())


def test_a_semantic_failure_never_fails_over(workshop: Workshop, producer: Producer) -> None:
    two_routes(workshop)
    workshop.worker()
    for behaviour in (
        {"status": 400, "error": {"message": "messages: wrong shape"}},
        {"finish_reason": "content_filter"},
    ):
        workshop.providers.behave("a", **behaviour)
        result = done(producer)
        assert (result.status, result.failover_hops) == (JobStatus.DEAD, 0)
    assert asked(workshop, "b") == 0


def test_a_permanent_outage_ends_in_bounded_attempts(workshop: Workshop, producer: Producer) -> None:
    workshop.policy(executions=2, attempts=7, backoff_seconds={"first": 0.01, "max": 0.02})
    two_routes(workshop)
    for upstream in ("a", "b"):
        workshop.providers.behave(upstream, status=500)
    workshop.worker()
    result = done(producer)
    assert result.status is JobStatus.DEAD
    assert asked(workshop, "a") + asked(workshop, "b") == result.attempts <= 7


def test_every_job_says_what_it_cost_and_what_the_baseline_would_have(workshop: Workshop, producer: Producer) -> None:
    two_routes(workshop)
    workshop.providers.behave("a", status=503, times=2)
    workshop.worker()
    moved = done(producer, chat("x" * 400))
    assert (moved.route, moved.usage) == (
        "b/b-1",
        {"prompt_tokens": 100, "completion_tokens": 102, "total_tokens": 202},
    )
    assert moved.cost_usd == pytest.approx(0.00304)
    assert moved.baseline_cost_usd == pytest.approx(0.000304)
    assert moved.cost_delta_usd == pytest.approx(0.002736)
    stayed = done(producer, chat("x" * 400))
    assert (stayed.route, stayed.cost_usd, stayed.cost_delta_usd) == ("a/a-1", pytest.approx(0.000304), 0)
    told = workshop.run("failover", "job", "why", moved.job_id).stdout
    assert "planned (listed): a/a-1, then b/b-1" in told
    assert "on the baseline route $0.000304, so +0.002736" in told
    decision = json.loads(workshop.run("failover", "job", "why", moved.job_id, "--json").stdout)["decision"]
    assert (decision["chosen"], decision["why"]) == ("b/b-1", "after a/a-1 unavailable")
    assert [(c["route"], c["kept"], c["rank"]) for c in decision["candidates"]] == [
        ("a/a-1", True, 1),
        ("b/b-1", True, 2),
    ]
    assert decision["attempts"][-1]["cost_usd"] == pytest.approx(0.00304)


def test_the_cap_is_checked_at_every_hop(workshop: Workshop, producer: Producer) -> None:
    """An attempt that may have been billed leaves less for the next route."""
    workshop.policy(executions=1)
    two_routes(workshop, timeoutSeconds=0.3)
    routing(workshop, max_cost_usd=0.0022)
    workshop.providers.behave("a", fault="hang")
    workshop.worker()
    result = done(producer, LLMJob.parse({"body": {**chat().body, "max_tokens": 100}}))
    assert [(attempt.route, attempt.outcome) for attempt in result.attempted] == [("a/a-1", "timeout")]
    assert asked(workshop, "b") == 0
    (refused,) = (entry for entry in result.trail if isinstance(entry, Rejection))
    assert (refused.route, refused.code) == ("b/b-1", RejectedFor.OVER_COST)
    assert "after $0.0002" in refused.rejected
    routing(workshop, max_cost_usd=0.0001)
    over = until(lambda: (r := done(producer)).dead_reason == "over_budget" and r, "no route may be called at all")
    assert over.attempts == 0


def test_a_lacking_route_answers_degraded_by_the_policy_and_says_so(workshop: Workshop, producer: Producer) -> None:
    workshop.policy()
    workshop.routes(hot=[{"upstream": "a"}], warm=[{"upstream": "b", "capabilities": []}])
    workshop.providers.behave("a", status=502)
    workshop.providers.behave("b", unknown=["response_format"])
    routing(workshop, may_lack=["json_schema", "json_mode"])
    workshop.worker()
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "title": "Invoice"}}}
    result = done(producer, LLMJob.parse({"body": {**chat().body, "response_format": form}}))
    assert (result.route, result.degraded) == ("b/b-1", "without json_schema")
    sent = workshop.providers.account("b")["last"]["messages"]
    assert "Invoice" in sent[0]["content"] and sent[0]["role"] == "system"


def test_a_cold_queue_that_is_off_makes_dead_letters_at_once(workshop: Workshop, producer: Producer) -> None:
    two_routes(workshop)
    for upstream in ("a", "b"):
        workshop.providers.behave(upstream, status=503)
    workshop.worker(ENABLE_COLD_QUEUE="false")
    for _ in range(8):  # through open breakers too
        result = done(producer)
        assert (result.status, result.dead_reason) == (JobStatus.DEAD, "exhausted")
        assert "ENABLE_COLD_QUEUE is off" in str(result.dead_detail)


def test_bypass_goes_to_the_first_route_though_its_breaker_is_open(workshop: Workshop, producer: Producer) -> None:
    two_routes(workshop)
    workshop.providers.behave("a", status=503)
    worker = workshop.worker()
    for _ in range(5):
        assert done(producer).route == "b/b-1"
    until(lambda: "open" in workshop.run("failover", "routes", "show").stdout, "the breaker opens")
    workshop.providers.behave("a")
    before = asked(workshop, "b")
    (workshop.folder / ".env").write_text("BYPASS_ROUTER=true\n")
    until(lambda: workshop.events(worker, "configuration reloaded"), "it is reloaded")
    result = done(producer)
    assert (result.route, asked(workshop, "b")) == ("a/a-1", before)
    assert [e.code for e in result.trail if isinstance(e, Rejection)] == [RejectedFor.BYPASS]


def test_warm_off_leaves_the_hot_tier_alone_and_comes_back_by_dotenv(workshop: Workshop, producer: Producer) -> None:
    two_routes(workshop)
    workshop.providers.behave("a", status=502)
    (workshop.folder / ".env").write_text("ENABLE_WARM_FALLBACK=false\n")
    workshop.worker()
    job_id = producer.enqueue(chat())
    until(lambda: asked(workshop, "a") > 0, "hot is asked")
    assert asked(workshop, "b") == 0
    (workshop.folder / ".env").write_text("ENABLE_WARM_FALLBACK=true\n")
    assert producer.wait(job_id, 30).route == "b/b-1"


def test_a_route_over_the_latency_limit_is_passed_over_and_tried_again_later(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    workshop.policy()
    two_routes(workshop)
    routing(workshop, max_latency_seconds=0.2)
    workshop.providers.behave("a", latency=(0.25, 0.3))
    workshop.worker("--concurrency", "25")
    jobs = [receipt.job_id for receipt in producer.enqueue_many([chat(str(number)) for number in range(25)])]
    until(lambda: all(producer.ended(jobs)), "there are calls enough")
    slow = until(lambda: (r := done(producer)).route == "b/b-1" and r, "the route is found to be slow")
    rejections = [e for e in slow.trail if isinstance(e, Rejection)]
    assert [(e.route, e.code) for e in rejections] == [("a/a-1", RejectedFor.TOO_SLOW)]
    workshop.providers.behave("a")
    calls = keyspace.calls("a/a-1")
    old = [call.partition("@")[0] + "@1000" for call in texts(client.lrange(calls, 0, -1))]
    client.delete(calls)
    client.rpush(calls, *old)
    until(lambda: done(producer).route == "a/a-1", "what lies minutes back is no guide")


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_under_a_cap_an_answer_is_bounded_and_without_one_it_is_not(
    workshop: Workshop, producer: Producer, api: str
) -> None:
    workshop.policy()
    workshop.routes(hot=[{"upstream": "a", "price": PRICES["a"], "api": api, "maxOutputTokens": 700}])
    routing(workshop, max_cost_usd=0.01, output_tokens=300)
    workshop.worker()
    assert done(producer).status is JobStatus.DONE
    assert workshop.providers.account("a")["last"]["max_tokens"] == 300
    assert done(producer, LLMJob.parse({"body": {**chat().body, "max_tokens": 40}})).status is JobStatus.DONE
    assert workshop.providers.account("a")["last"]["max_tokens"] == 40
    routing(workshop)
    until(lambda: done(producer) and workshop.providers.account("a")["last"].get("max_tokens") != 300, "no bound")
    assert workshop.providers.account("a")["last"].get("max_tokens") == (700 if api == "anthropic" else None)


def test_a_lone_job_outlives_an_outage_of_many_routes(workshop: Workshop, producer: Producer) -> None:
    """On a quiet queue its own calls have to open every breaker before its executions and attempts are used up."""
    names = [f"route{n}" for n in range(9)]
    workshop.routes(hot=[{"upstream": name} for name in names])
    for name in names:
        workshop.providers.behave(name, status=503)
    workshop.worker()
    job_id = producer.enqueue(chat())
    until(lambda: all(workshop.providers.account(name)["asked"] >= 5 for name in names), "every breaker opens", 60)
    until(lambda: producer.fetch(job_id).status is not JobStatus.RUNNING, "the execution ends")
    assert not producer.fetch(job_id).status.ended
