"""Money from the outside: real workers, caps that hold, alert thresholds, what is given up, what a kill leaves behind."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis

from producer import LLMJob, Producer, keyspace
from producer.exchange import Receipt
from producer.job import DeadReason, JobResult, JobStatus
from producer.trail import RejectedFor, Rejection
from producer.waiting import WaitReason
from tests.support.jobs import asking, chat
from tests.support.ledger import MONTH, rows, sums
from tests.support.money import budgets, failover
from tests.support.polling import until
from tests.support.routes import PRICES, done, two_routes
from tests.support.web import served
from tests.support.workshop import Workshop
from worker.control.pause import paused

LONG = asking(
    {
        "messages": [
            {"role": "user", "content": "old " * 400},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": "new"},
        ]
    }
)


def capped(job: LLMJob, **body: Any) -> LLMJob:
    return job.model_copy(update={"body": {**job.body, **body}})


def served_micros(workshop: Workshop, upstream: str) -> int:
    """What the provider would bill, by its own log and the test's own arithmetic: whole dollars a million tokens."""
    price = PRICES[upstream]
    usages = [entry["usage"] for entry in workshop.providers.log(upstream) if entry["usage"]]
    return sum(u["prompt_tokens"] * price["input"] + u["completion_tokens"] * price["output"] for u in usages)


def name_of(workshop: Workshop, worker: subprocess.Popen[bytes]) -> str:
    name: str = until(lambda: workshop.events(worker, "worker started"), "it tells its name")[0]["worker"]
    return name


def waits_for(producer: Producer, receipts: list[Receipt], why: str) -> JobResult | None:
    results = producer.fetch_many([receipt.job_id for receipt in receipts])
    return next((result for result in results if result and why in (result.waiting_for or "")), None)


def test_every_attempt_has_a_row_and_the_ledger_equals_what_the_providers_served(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    two_routes(workshop)
    workshop.providers.behave("a", status=503, every=3)
    workshop.worker()
    results = [
        done(producer, chat(f"{n} " * (n + 1), tenant_id="acme", user_id="u", feature="notes")) for n in range(12)
    ]
    attempts = sum(result.attempts for result in results)
    until(lambda: len(rows(client)) == attempts, "all rows are written")
    assert attempts > 12 and client.hlen(keyspace.RESERVATIONS) == 0
    total = served_micros(workshop, "a") + served_micros(workshop, "b")
    assert sums(client)["spent:total"] == total == sum(round(r.cost_usd * 1e6) for r in results)
    for scope in ("tenant:acme", "user:acme/u", "feature:notes"):
        assert sums(client)[f"spent:{scope}"] == total
    assert {row["state"] for row in rows(client)} == {"settled", "released"}
    shown = json.loads(failover(workshop, "budget", "show", "--json"))
    assert {each["scope"]: round(each["spent_usd"] * 1e6) for each in shown["scopes"]}["total"] == total
    told = [json.loads(line) for line in failover(workshop, "budget", "ledger", "--state", "settled").splitlines()]
    assert sum(row["micros"] for row in told) == total
    assert {row["price"] for row in told} <= {"routes.json 1/2", "routes.json 10/20"}


def test_a_hard_cap_of_a_tenant_holds_its_jobs_and_nobody_elses_and_a_raise_lets_them_go(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    two_routes(workshop)
    budgets(workshop, tenants={"acme": {"hard_usd": 0.00205}})
    for _ in range(2):
        workshop.worker("--concurrency", "50")
    jobs = [capped(chat(f"{n}", tenant_id="acme"), max_tokens=1000) for n in range(30)]
    receipts = producer.enqueue_many(jobs)
    until(lambda: "its jobs wait" in failover(workshop, "status"), "the cap is used up")
    assert done(producer, capped(chat(tenant_id="other"), max_tokens=1000)).status is JobStatus.DONE
    found = sums(client)
    assert found["spent:tenant:acme"] + found.get("held:tenant:acme", 0) <= 2_050
    waiting = until(lambda: waits_for(producer, receipts, "left this month"), "jobs wait")
    assert RejectedFor.OVER_BUDGET in [e.code for e in waiting.trail if isinstance(e, Rejection)]
    assert "tenant:acme has too little left of its cap of $0.002050 for this month; its jobs wait" in failover(
        workshop, "status"
    )
    assert "tenant:acme: hard $60.00" in failover(workshop, "budget", "set", "tenant:acme", "--hard", "60")
    results = [producer.wait(receipt.job_id, 30) for receipt in receipts]
    assert {result.status for result in results} == {JobStatus.DONE}
    assert "policies/budgets.yaml applies again: hard $0.002050" in failover(workshop, "budget", "unset", "tenant:acme")


def test_a_hard_cap_of_a_provider_sends_its_jobs_to_another(workshop: Workshop, producer: Producer) -> None:
    two_routes(workshop)
    budgets(workshop, providers={"a": {"hard_usd": 0}})
    workshop.worker()
    result = done(producer)
    assert result.route == "b/b-1"
    assert [e.code for e in result.trail if isinstance(e, Rejection)] == [RejectedFor.OVER_BUDGET]


def test_an_unknown_price_under_a_hard_cap_is_refused_with_the_mend(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    budgets(workshop, total={"hard_usd": 5})
    workshop.worker()
    result = done(producer)
    assert result.dead_reason is DeadReason.OVER_BUDGET
    assert "give it a `price` in routes.json, or `pip install genai-prices`" in result.dead_detail
    doctor = workshop.run("failover", "doctor")
    assert "a/a-1 has no price, so it is not called under a hard cap" in doctor.stdout + doctor.stderr


def test_answers_are_bounded_while_a_cap_holds(workshop: Workshop, producer: Producer) -> None:
    two_routes(workshop)
    budgets(workshop, users={"default": {"hard_usd": 1}})
    workshop.worker()
    done(producer, chat(user_id="u1"))
    assert workshop.providers.account("a")["last"]["max_tokens"] == 1000
    done(producer, chat())
    assert "max_tokens" not in workshop.providers.account("a")["last"]


def test_a_providers_month_pauses_at_the_percentage_by_our_own_books(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    two_routes(workshop)
    budgets(workshop, providers={"a": {"soft_usd": 0.0005}})
    workshop.worker()
    receipts = producer.enqueue_many([chat("x" * 80, tenant_id="acme") for _ in range(200)])
    (flag,) = until(lambda: paused(client, []), "the pause")
    assert (flag.provider, client.get(keyspace.PAUSE)) == ("a", None)
    assert flag.why is not None and "of its budget (our own ledger) (the pause begins at 80%)" in flag.why
    assert {producer.wait(receipt.job_id, 60).status for receipt in receipts} == {JobStatus.DONE}
    until(lambda: done(producer).route == "b/b-1", "another provider serves")
    failover(workshop, "resume", "--provider", "a")
    worker = workshop.worker()
    until(lambda: client.get(f"failover:routes:{name_of(workshop, worker)}"), "it has looked")
    assert done(producer).route == "b/b-1"  # at the end of its budget a provider comes last
    assert not paused(client, [])  # a step is told once, also to a worker that starts


def test_the_totals_month_pauses_everything(workshop: Workshop, producer: Producer, client: redis.Redis) -> None:
    two_routes(workshop)
    budgets(workshop, total={"soft_usd": 0.00005})
    workshop.worker()
    producer.enqueue_many([chat("x" * 80) for _ in range(20)])
    until(lambda: client.get(keyspace.PAUSE) == b"1", "the pause")
    assert [str(flag.scope) for flag in paused(client, [])] == ["everything"]


def test_a_cap_that_leaves_the_file_leaves_nothing_behind(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    two_routes(workshop)
    budgets(workshop, tenants={"acme": {"soft_usd": 0.00001}})
    workshop.worker()
    until(lambda: done(producer, LONG.model_copy(update={"tenant_id": "acme"})).degraded, "cost saving begins")
    budgets(workshop)
    until(lambda: "BUDGET" not in failover(workshop, "status"), "it is forgotten")
    assert done(producer, LONG.model_copy(update={"tenant_id": "acme"})).degraded is None


def test_a_job_that_fits_on_a_cheaper_route_goes_there(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "b", "price": PRICES["b"]}], warm=[{"upstream": "a", "price": PRICES["a"]}])
    budgets(workshop, tenants={"acme": {"hard_usd": 0.0211}})
    workshop.worker()
    job = capped(chat(tenant_id="acme"), max_tokens=1000)
    assert done(producer, job).route == "b/b-1"
    workshop.providers.behave("b", text="word " * 600)
    assert done(producer, job).route == "b/b-1"
    result = done(producer, job)
    assert (result.route, result.status) == ("a/a-1", JobStatus.DONE)


def test_a_call_that_is_larger_than_the_whole_cap_is_told_at_once_and_marks_nobody(
    workshop: Workshop, producer: Producer
) -> None:
    two_routes(workshop)
    budgets(workshop, tenants={"acme": {"hard_usd": 0.001}})
    workshop.worker()
    dead = done(producer, capped(chat(tenant_id="acme"), max_tokens=4000))
    assert (
        dead.dead_reason is DeadReason.OVER_BUDGET and "the whole cap of tenant:acme is $0.001000" in dead.dead_detail
    )
    assert done(producer, capped(chat(tenant_id="acme"), max_tokens=100)).status is JobStatus.DONE
    assert "BUDGET" not in failover(workshop, "status")


@pytest.mark.parametrize("priced", [True, False])
def test_the_jobs_of_a_client_whose_cap_is_zero_wait_and_go_on_when_it_is_raised(
    workshop: Workshop, producer: Producer, priced: bool
) -> None:
    workshop.routes(hot=[{"upstream": "a", **({"price": PRICES["a"]} if priced else {})}])
    assert "its jobs wait" in _stderr_of(workshop, "budget", "set", "tenant:acme", "--hard", "0")
    workshop.worker()
    ids = [producer.enqueue(capped(chat(str(n), tenant_id="acme"), max_tokens=100)) for n in range(3)]
    results = until(
        lambda: (f := producer.fetch_many(ids)) and all(r and r.status == "parked" for r in f) and f, "parked"
    )
    assert all(result and result.waiting_for and "budget" in result.waiting_for for result in results)
    assert done(producer).status is JobStatus.DONE  # others go on
    failover(workshop, "budget", "unset", "tenant:acme")
    until(lambda: all(producer.ended(ids)), "they go on at once")
    assert {result.status for result in producer.fetch_many(ids) if result} == {JobStatus.DONE}


def _stderr_of(workshop: Workshop, *words: str) -> str:
    return workshop.run("failover", *words).stderr


def incidents(workshop: Workshop) -> list[dict[str, Any]]:
    return [e for process in workshop.processes for e in workshop.events(process, "incident opening")]


def test_cost_saving_takes_the_cheapest_route_and_less_context(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "b", "price": PRICES["b"]}], warm=[{"upstream": "a", "price": PRICES["a"]}])
    budgets(workshop, tenants={"acme": {"soft_usd": 0.00001}}, cost_saving={"critical_features": ["contracts"]})
    workshop.worker()
    job = LONG.model_copy(update={"tenant_id": "acme"})
    first = done(producer, job)
    assert (first.route, first.degraded) == ("b/b-1", None)
    result = until(lambda: (r := done(producer, job)).degraded and r, "cost saving begins")
    assert (result.route, result.degraded) == ("a/a-1", "shorter_context, cheaper_model")
    assert "tenant:acme has used at least 95%" in next(e for e in result.trail if hasattr(e, "reduced")).reduced
    sent = workshop.providers.account("a")["last"]
    assert (len(sent["messages"]), sent["max_tokens"]) == (1, 500)
    assert done(producer, LONG).route == "b/b-1"
    told = until(lambda: [e for e in incidents(workshop) if e["kind"] == "spend"], "people are told")
    assert "tenant:acme has used at least 95% of its $0.000010 for this month" in told[0]["lines"]
    assert done(producer, job.model_copy(update={"feature": "contracts"})).degraded is None


def test_reduce_cost_now_is_one_command_and_ends_with_another(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "b", "price": PRICES["b"]}], warm=[{"upstream": "a", "price": PRICES["a"]}])
    workshop.worker()
    assert done(producer).route == "b/b-1"
    assert "cost saving is on for every job" in failover(workshop, "budget", "reduce", "--reason", "the bill")
    until(lambda: done(producer).route == "a/a-1", "it is heard")
    assert "COST SAVING cost is reduced by" in failover(workshop, "status")
    explained = failover(workshop, "routes", "show", "--explain")
    assert "cost saving: cost is reduced by" in explained and explained.index("a/a-1") < explained.index("b/b-1")
    failover(workshop, "budget", "reduce", "--end")
    until(lambda: done(producer).route == "b/b-1", "it is over")


@pytest.mark.parametrize("when_over", ["degrade", "abort"])
def test_caps_of_one_job_by_feature(workshop: Workshop, producer: Producer, when_over: str) -> None:
    workshop.routes(hot=[{"upstream": "b", "price": PRICES["b"]}])
    caps = {"max_input_tokens": 300, "max_output_tokens": 50, "max_cost_usd": 0.02, "when_over": when_over}
    budgets(workshop, features={"notes": caps})
    workshop.worker()
    within = done(producer, chat("short", feature="notes"))
    assert (within.status, within.degraded) == (JobStatus.DONE, None)
    assert workshop.providers.account("b")["last"]["max_tokens"] == 50
    long = LONG.model_copy(update={"feature": "notes"})
    wordy = capped(chat("short", feature="notes"), max_tokens=900)
    whole = chat("all of it " * 400, feature="notes")
    if when_over == "degrade":
        assert done(producer, long).degraded == "shorter_context"
        assert done(producer, wordy).degraded == "shorter_answer"
        assert workshop.providers.account("b")["last"]["max_tokens"] == 50
    else:
        for job in (long, wordy):
            assert done(producer, job).dead_reason is DeadReason.OVER_BUDGET
    dead = done(producer, whole)
    assert dead.dead_reason is DeadReason.OVER_BUDGET
    assert "feature notes takes at most 300 a job" in dead.dead_detail


def test_a_killed_workers_calls_are_in_the_books_once(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    """settled <= what the provider served <= settled + ambiguous, and nothing stays reserved."""
    two_routes(workshop)
    budgets(workshop, total={"hard_usd": 5})
    workshop.providers.behave("a", latency=(0.3, 0.6))
    worker = workshop.worker("--concurrency", "20")
    receipts = producer.enqueue_many([chat(f"{n}") for n in range(60)])
    until(lambda: workshop.providers.account("a")["answered"] > 10, "it is at work")
    worker.send_signal(signal.SIGKILL)
    workshop.worker("--concurrency", "20")
    assert all(producer.wait(receipt.job_id, 60).status is JobStatus.DONE for receipt in receipts)
    until(lambda: client.hlen(keyspace.RESERVATIONS) == 0, "the ledger is closed", 60)
    found, served = sums(client), served_micros(workshop, "a")
    assert found.get("held:total", 0) == 0 and found["ambiguous:total"] > 0
    assert found["spent:total"] <= served <= found["spent:total"] + found["ambiguous:total"]
    log = workshop.providers.log("a")
    booked = len(rows(client)) + client.hlen(keyspace.AMBIGUOUS + MONTH)
    assert len(log) <= booked <= len(log) + 20  # some were written down, and the worker died before it called


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "budgets.yaml"),
        (
            "tenants: {acme: {hard_usd: 5}}\nusers:\n  u1: {hard_usd: 2}\n",
            "u1 is a user of which tenant? As in acme/u1",
        ),
        ("tenants:\n  acme: {hard_usd: 5}\n  acme: {hard_usd: 500}\n", "tenants.acme stands twice, in lines 2 and 3"),
        ("total: {hard_usd: '5'}\n", "must be US dollars as a number, as in 60"),
        ("total: {hard_usd: 5, soft_usd: 9}\n", "soft_usd is above hard_usd"),
        ("providers: {gemini: {hard_usd: 5}, google: {hard_usd: 9}}\n", "stands twice"),
        ("ladder: [95, 60]\n", "its steps climb"),
    ],
)
def test_a_wrong_file_is_refused_in_words(workshop: Workshop, text: str, told: str) -> None:
    two_routes(workshop)
    budgets(workshop)
    (Path(workshop.environment["POLICIES_DIR"]) / "budgets.yaml").write_text(text)
    ended = workshop.run("failover-worker")
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)
    assert told in ended.stderr, ended.stderr
    assert told in workshop.run("failover", "doctor").stdout


def test_an_emptied_file_lifts_no_cap_of_a_running_worker(workshop: Workshop, producer: Producer) -> None:
    two_routes(workshop)
    budgets(workshop, tenants={"acme": {"hard_usd": 0}})
    worker = workshop.worker()
    (Path(workshop.environment["POLICIES_DIR"]) / "budgets.yaml").write_text("")
    until(lambda: workshop.events(worker, "configuration refused, the old one stays"), "it is refused")
    job_id = producer.enqueue(chat(tenant_id="acme"))
    until(lambda: producer.fetch(job_id).status is JobStatus.PARKED, "it waits for the cap of zero")
    assert producer.fetch(job_id).waiting_reason is WaitReason.BUDGET


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("set", "tenant", "--hard", "5"), 2, "use total, provider:P"),
        (("set", "total"), 2, "--hard USD, --soft USD or --tokens N"),
        (("set", "total", "--hard", "1,5"), 2, "is not an amount"),
        (("set", "total", "--hard", "-5"), 2, "hard_usd"),
        (("set", "total", "--tokens", "inf"), 2, "tokens"),
        (("set", "total", "--tokens", "1.5"), 2, "tokens"),
        (("show", "--month", "2026-13"), 2, "such as 2026-11"),
        (("reduce", "--end", "--for", "2h"), 2, "not both"),
        (("set", "tenant:nobody", "--hard", "5"), 0, "is the name right?"),
        (("ledger", "--job", "none"), 0, ""),
    ],
)
def test_what_is_typed_wrongly_is_told(workshop: Workshop, words: tuple[str, ...], code: int, told: str) -> None:
    ended = workshop.run("failover", "budget", *words)
    assert (ended.returncode, told in ended.stderr) == (code, True), ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_somebody_wrote_over_is_shown_as_far_as_it_can_be_read(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    two_routes(workshop)
    worker = workshop.worker()
    done(producer)
    client.hset(keyspace.ALERT_THRESHOLDS + MONTH, "tenant:x", "garbage")
    client.hset(keyspace.BUDGETS, "tenant:x", "5")
    client.hset(keyspace.SPEND, "a", "garbage")
    client.hset(keyspace.RESERVATIONS, "x", "garbage")
    client.set(keyspace.REDUCE, "garbage")
    for words in (("status",), ("budget", "show"), ("budget", "ledger"), ("budget", "set", "total", "--hard", "5")):
        failover(workshop, *words)
    assert "COST SAVING cost is reduced by somebody" in failover(workshop, "status")
    assert done(producer).status is JobStatus.DONE and worker.poll() is None


def test_metrics_tell_of_money(workshop: Workshop, producer: Producer) -> None:
    two_routes(workshop)
    budgets(workshop, tenants={"acme": {"soft_usd": 0.000005}})
    workshop.worker()
    done(producer, chat(tenant_id="acme", user_id="u"))
    with served(workshop) as web:
        text = until(lambda: (t := web.get("/metrics").text) and "failover_budget_step_percent{" in t and t, "the step")
    assert 'failover_spent_usd{scope="tenant:acme",state="spent"}' in text
    assert 'failover_budget_step_percent{scope="tenant:acme"} 95.0' in text
    assert 'failover_budget_full{scope="tenant:acme"} 0.0' in text
    assert "user:" not in text


def test_what_may_have_been_billed_is_settled_by_a_person(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    workshop.routes(hot=[{"upstream": "a", "price": PRICES["a"], "timeoutSeconds": 0.3}], warm=[{"upstream": "b"}])
    workshop.providers.behave("a", fault="hang")
    workshop.worker()
    assert {done(producer).route for _ in range(3)} == {"b/b-1"}
    until(lambda: client.hlen(keyspace.AMBIGUOUS + MONTH) >= 3, "they are booked")
    listed = [json.loads(line) for line in failover(workshop, "budget", "ledger", "--state", "ambiguous").splitlines()]
    assert workshop.run("failover", "budget", "settle", "nope", "--usd", "0").returncode == 2
    assert "1 row settled" in failover(workshop, "budget", "settle", listed[0]["id"], "--usd", "0.002")
    left = len(listed) - 1
    assert f"{left} rows settled" in failover(workshop, "budget", "settle", "--all", "--usd", "0")
    found = sums(client)
    assert (found["spent:provider:a"], found.get("ambiguous:total", 0)) == (2000, 0)
