"""Real `failover-worker` processes against a real provider over HTTP, through outages, signals and kills."""

from __future__ import annotations

import signal
import subprocess
from functools import partial

import pytest
import redis
from rq import Queue, Worker
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry

from producer import Producer, keyspace
from producer.job import JobStatus, encode_job
from tests.support.jobs import asking, chat, results
from tests.support.polling import until
from tests.support.transitions import Q
from tests.support.workshop import BIN, Workshop


@pytest.fixture
def two_tiers(workshop: Workshop) -> Workshop:
    workshop.routes(hot=[{"upstream": "hot"}], warm=[{"upstream": "warm"}])
    return workshop


def asked_times(workshop: Workshop, count: int) -> bool:
    return bool(workshop.providers.account("hot")["asked"] == count)


def submit(producer: Producer, count: int) -> list[str]:
    return [receipt.job_id for receipt in producer.enqueue_many(chat(f"job {number}") for number in range(count))]


def answered_once(workshop: Workshop, *upstreams: str) -> bool:
    """No job's answer was paid for twice, by the providers' own account."""
    paid = [workshop.providers.account(upstream)["answers_by_key"] for upstream in upstreams]
    keys = [key for account in paid for key in account]
    return len(keys) == len(set(keys)) and all(times == 1 for account in paid for times in account.values())


def test_many_jobs_at_once_on_one_process(two_tiers: Workshop, producer: Producer) -> None:
    two_tiers.providers.behave("hot", latency=(0.3, 0.3))
    two_tiers.worker("--concurrency", "50")
    found = results(producer, submit(producer, 100))
    assert {result.status for result in found} == {JobStatus.DONE}
    assert [result.text for result in found] == [f"You said: job {number}" for number in range(100)]
    assert {(result.route, result.tier, result.attempts, result.failover_hops) for result in found} == {
        ("hot/hot-1", "hot", 1, 0)
    }
    assert two_tiers.providers.account("hot")["most_in_flight"] == 50
    assert answered_once(two_tiers, "hot")


@pytest.mark.parametrize("outage", [{"status": 500}, {"fault": "reset"}, {"fault": "garbage"}, {"fault": "cut"}])
def test_hot_down_warm_takes_over_within_two_attempts(
    two_tiers: Workshop, producer: Producer, outage: dict[str, object]
) -> None:
    two_tiers.providers.behave("hot", **outage)
    two_tiers.worker()
    (result,) = results(producer, submit(producer, 1))
    assert (result.status, result.tier, result.failover_hops) == (JobStatus.DONE, "warm", 1)
    assert two_tiers.providers.account("hot")["asked"] <= 2
    assert two_tiers.providers.account("warm")["asked"] == 1


def test_hot_unreachable_warm_takes_over(workshop: Workshop, producer: Producer) -> None:
    hot = {"upstream": "hot", "baseUrl": "http://127.0.0.1:9/v1"}  # the discard port: refused
    workshop.routes(hot=[hot], warm=[{"upstream": "warm"}])
    workshop.worker()
    (result,) = results(producer, submit(producer, 1))
    assert (result.status, result.tier, result.attempts) == (JobStatus.DONE, "warm", 3)
    assert [
        (attempt.model_dump().get("outcome"), attempt.model_dump().get("ambiguous")) for attempt in result.attempted
    ] == [
        ("unreachable", False),
        ("unreachable", False),
        ("ok", False),
    ]


def test_a_silent_route_is_asked_once_and_cut_off_by_wall_clock(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(
        hot=[{"upstream": "hot", "timeoutSeconds": 0.5}, {"upstream": "drip", "timeoutSeconds": 0.5}],
        warm=[{"upstream": "warm"}],
    )
    workshop.providers.behave("hot", fault="hang")
    workshop.providers.behave("drip", fault="drip")
    workshop.worker()
    (result,) = results(producer, submit(producer, 1))
    assert (result.tier, result.attempts, result.failover_hops) == ("warm", 3, 2)
    assert workshop.providers.account("hot")["asked"] == 1
    assert workshop.providers.account("drip")["asked"] == 1


def test_both_down_is_retried_then_dead(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "hot"}], warm=[{"upstream": "warm"}])
    workshop.policy(executions=2, backoff_seconds={"first": 0.2, "max": 0.2})
    for upstream in ("hot", "warm"):
        workshop.providers.behave(upstream, status=500)
    worker = workshop.worker()
    (result,) = results(producer, submit(producer, 1))
    assert (result.status, result.dead_reason) == (JobStatus.DEAD, "exhausted")
    assert "server_error" in (result.dead_detail or "")
    assert result.attempts == len(result.attempted) == 8
    assert [workshop.providers.account(upstream)["asked"] for upstream in ("hot", "warm")] == [4, 4]
    assert len(workshop.events(worker, "retry")) == 1
    assert len(workshop.events(worker, "dead")) == 1


def test_with_no_route_open_nothing_is_claimed_and_nobody_called(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "hot"}])
    workshop.providers.behave("hot", status=500)
    worker = workshop.worker("--concurrency", "1")
    job_ids = submit(producer, 6)
    until(lambda: workshop.events(worker, "no route is open, claiming waits"), "the gate shuts")
    until(lambda: "open, reopens in" in workshop.run("failover", "status").stdout, "the status says until when")
    assert workshop.providers.account("hot")["asked"] == 5
    untouched = producer.fetch_many(job_ids[3:])
    assert [(result.status, result.attempts) for result in untouched if result] == [(JobStatus.QUEUED, 0)] * 3


def test_a_rejected_job_is_dead_at_once_and_a_rate_limit_moves_on(two_tiers: Workshop, producer: Producer) -> None:
    two_tiers.worker()
    two_tiers.providers.behave("hot", status=400)
    (rejected,) = results(producer, submit(producer, 1))
    assert (rejected.dead_reason, rejected.attempts) == ("rejected", 1)
    two_tiers.providers.behave("hot", status=429, retry_after="60")
    limited, resting = results(producer, submit(producer, 1)) + results(producer, submit(producer, 1))
    assert (limited.tier, limited.attempts) == ("warm", 2)
    assert (resting.tier, resting.attempts) == ("warm", 1)


def test_a_jobs_expiry_holds(two_tiers: Workshop, producer: Producer, client: redis.Redis) -> None:
    job_id = producer.enqueue(chat(expires_after_seconds=0.01))
    until(
        lambda: int(client.time()[0]) * 1000 > int(client.hget(keyspace.job(job_id), "expires_ms") or 0), "it expires"
    )
    two_tiers.worker()
    (result,) = results(producer, [job_id])
    assert (result.dead_reason, result.attempts) == ("expired", 0)
    assert two_tiers.providers.account("hot")["asked"] == 0


def test_a_pause_starts_nothing_and_resume_drains(two_tiers: Workshop, producer: Producer, client: redis.Redis) -> None:
    two_tiers.providers.behave("hot", latency=(0.2, 0.2))
    two_tiers.worker("--concurrency", "5")
    first = submit(producer, 5)
    until(lambda: two_tiers.providers.account("hot")["in_flight"] == 5, "five run")
    assert two_tiers.run("failover", "pause", "--reason", "budget at 85%").returncode == 0
    second = submit(producer, 20)
    results(producer, first)  # running jobs end
    seen = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    until(lambda: client.info("commandstats")["cmdstat_evalsha"]["calls"] > seen + 4, "the worker has looked again")
    assert client.llen(keyspace.queue(Q)) == 20
    assert two_tiers.providers.account("hot")["asked"] == 5
    status = two_tiers.run("failover", "status").stdout
    assert "PAUSED: everything" in status and "budget at 85%" in status
    assert "resumed everything" in two_tiers.run("failover", "resume").stdout
    assert all(result.attempts == 1 for result in results(producer, second))


def test_sigterm_under_load_loses_nothing_and_burns_nothing(two_tiers: Workshop, producer: Producer) -> None:
    two_tiers.providers.behave("hot", latency=(0.05, 3.0))
    first = two_tiers.worker("--concurrency", "20", "--drain-seconds", "0.5")
    job_ids = submit(producer, 40)
    until(lambda: sum(producer.ended(job_ids)) >= 3, "some are done")
    for _ in range(5):  # Heroku may send several
        first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=15) == 0
    released = two_tiers.events(first, "released")
    assert released
    stood = [result for result in producer.fetch_many(job_ids) if result]
    assert {result.status for result in stood} <= {JobStatus.DONE, JobStatus.QUEUED}
    queue = Queue(Q, connection=producer.client, serializer="json").job_ids
    assert queue == [job_id for job_id in job_ids if job_id in set(queue)]  # in the order accepted
    two_tiers.providers.behave("hot")
    two_tiers.worker()
    found = results(producer, job_ids)
    assert {result.status for result in found} == {JobStatus.DONE}
    assert {result.attempts for result in found} == {1}


def test_a_drain_charges_nothing_even_under_the_smallest_cap(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "hot"}])
    workshop.policy(attempts=1)
    workshop.providers.behave("hot", fault="hang")
    (job_id,) = submit(producer, 1)
    for drained in range(2):
        worker = workshop.worker("--drain-seconds", "0")
        until(partial(asked_times, workshop, drained + 1), "it is asked")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=15) == 0
    broken_off = producer.fetch(job_id)
    assert (broken_off.status, broken_off.attempts, len(broken_off.attempted)) == (JobStatus.QUEUED, 0, 2)
    workshop.providers.behave("hot")
    workshop.worker()
    (result,) = results(producer, [job_id])
    assert (result.status, result.attempts) == (JobStatus.DONE, 1)


def test_jobs_that_no_open_route_can_take_and_poison_jobs_keep_nobody_waiting(
    workshop: Workshop, producer: Producer
) -> None:
    """Fifty jobs wait for a route that is down, at the head of the queue; the others are served meanwhile."""
    workshop.routes(hot=[{"upstream": "able", "capabilities": ["tools"]}, {"upstream": "plain", "capabilities": []}])
    workshop.providers.behave("able", status=503)
    tools = asking({"messages": [{"role": "user", "content": "x"}], "tools": [{}]})
    producer.enqueue_many([tools] * 50)
    plain = submit(producer, 20)
    workshop.worker("--concurrency", "5")
    assert {result.status for result in results(producer, plain)} == {JobStatus.DONE}


def test_kill_9_mid_batch_a_second_worker_ends_every_job_once(two_tiers: Workshop, producer: Producer) -> None:
    two_tiers.providers.behave("hot", latency=(0.3, 0.6))
    first = two_tiers.worker("--concurrency", "10")
    two_tiers.worker("--concurrency", "10")
    job_ids = submit(producer, 80)
    until(lambda: sum(producer.ended(job_ids)) >= 10, "some are done")
    first.kill()
    found = results(producer, job_ids)
    assert {result.status for result in found} == {JobStatus.DONE}
    assert {producer.client.xlen(keyspace.results(job_id)) for job_id in job_ids} == {1}
    asked = two_tiers.providers.account("hot")["by_key"].values()
    assert sum(asked) - 80 <= 10  # no more extra calls than were in flight at the kill
    assert producer.client.zcard(keyspace.accepted(Q)) == 0


def test_a_stopped_worker_that_wakes_after_its_lease_is_fenced(two_tiers: Workshop, producer: Producer) -> None:
    two_tiers.providers.behave("hot", latency=(0.5, 0.5))
    sleeper = two_tiers.worker("--concurrency", "5")
    job_ids = submit(producer, 5)
    until(lambda: two_tiers.providers.account("hot")["in_flight"] == 5, "five run")
    sleeper.send_signal(signal.SIGSTOP)
    two_tiers.worker()
    results(producer, job_ids)
    sleeper.send_signal(signal.SIGCONT)
    until(lambda: "fenced" in two_tiers.log(sleeper) or "lease lost" in two_tiers.log(sleeper), "the sleeper finds out")
    assert {producer.client.xlen(keyspace.results(job_id)) for job_id in job_ids} == {1}


def test_foreign_corrupt_and_newer_jobs_stop_nobody(
    two_tiers: Workshop, producer: Producer, client: redis.Redis
) -> None:
    foreign = Queue(Q, connection=client, serializer="json").enqueue("subprocess.getoutput", "id").id
    corrupt, newer = producer.enqueue(chat("a")), producer.enqueue(chat("b"))
    client.hset(keyspace.job(corrupt), "data", b"\x00\x01 not zlib")
    future = chat("b").model_copy(update={"schema_version": 99})
    client.hset(keyspace.job(newer), "data", encode_job(future).data)
    client.set(keyspace.job("poison"), "a string")
    client.rpush(keyspace.queue(Q), "poison")
    good = producer.enqueue(chat("good"))
    worker = two_tiers.worker()
    assert results(producer, [good])[0].status is JobStatus.DONE
    dead = results(producer, [foreign, corrupt])
    assert [result.dead_reason for result in dead] == ["disallowed", "malformed"]
    assert producer.fetch(newer).status is JobStatus.PARKED
    assert worker.poll() is None


def test_rq_and_its_registries_agree_with_us(two_tiers: Workshop, producer: Producer, client: redis.Redis) -> None:
    two_tiers.providers.behave("warm", fault="hang")
    two_tiers.providers.behave("hot", status=400, times=3)
    two_tiers.worker()
    dead = submit(producer, 3)
    results(producer, dead)
    done = submit(producer, 4)
    results(producer, done)
    two_tiers.providers.behave("hot", status=404)
    running = submit(producer, 2)
    until(lambda: two_tiers.providers.account("warm")["in_flight"] == 2, "two run")
    assert set(StartedJobRegistry(Q, connection=client).get_job_ids()) == set(running)
    assert set(FinishedJobRegistry(Q, connection=client).get_job_ids()) == set(done)
    assert set(FailedJobRegistry(Q, connection=client).get_job_ids()) == set(dead)
    (worker,) = Worker.all(connection=client)
    assert worker.name.startswith("failover-worker")
    assert worker.get_state() == "busy"
    assert (worker.successful_job_count, worker.failed_job_count) == (4, 3)
    info = subprocess.run([str(BIN / "rq"), "info", "--url", two_tiers.url], capture_output=True, text=True, check=True)
    assert "0, 2 executing, 4 finished, 3 failed" in info.stdout
    assert "busy ai-tasks. jobs: 4 finished, 3 failed" in info.stdout
    status = two_tiers.run("failover", "status", "--json")
    assert status.returncode == 0
    assert '"in_flight": 2' in status.stdout and '"dead": 3' in status.stdout and '"done": 4' in status.stdout


def test_a_burst_worker_ends_with_the_queue(two_tiers: Workshop, producer: Producer) -> None:
    job_ids = submit(producer, 10)
    worker = two_tiers.start("failover-worker", "--burst")
    assert worker.wait(timeout=30) == 0
    assert all(producer.ended(job_ids))


def test_rqs_shutdown_command_drains(two_tiers: Workshop, producer: Producer, client: redis.Redis) -> None:
    from rq.command import send_shutdown_command

    worker = two_tiers.worker()
    (found,) = Worker.all(connection=client)
    until(lambda: client.pubsub_numsub(keyspace.WAKE)[0][1] >= 1, "the worker listens")
    send_shutdown_command(client, found.name)
    assert worker.wait(timeout=15) == 0


@pytest.mark.parametrize(
    ("environment", "code", "told"),
    [
        (
            {"REDIS_URL": "redis://127.0.0.1:9/0", "REDIS_WAIT_SECONDS": "0"},
            3,
            "Redis at redis://127.0.0.1:9/0 cannot be used",
        ),
        ({"REDIS_URL": "redis://user:hunter2@127.0.0.1:9/0", "REDIS_WAIT_SECONDS": "0"}, 3, "redis://127.0.0.1:9/0"),
        ({"REDIS_URL": "http://x"}, 2, "REDIS_URL"),
        ({"REDIS_URL": ""}, 3, "REDIS_URL is not set"),
        ({"ROUTES_FILE": "missing.json"}, 2, "missing.json: No such file or directory"),
        ({"POLICIES_DIR": "missing"}, 2, "missing/jobs.yaml: No such file or directory"),
    ],
)
def test_wrong_configuration_is_one_sentence_and_an_exit_code(
    two_tiers: Workshop, environment: dict[str, str], code: int, told: str
) -> None:
    ended = two_tiers.run("failover-worker", **environment)
    assert ended.returncode == code
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr and "hunter2" not in ended.stderr
