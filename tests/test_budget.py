"""The budget's webhook: percentages from any pipeline, signatures, Google's pushes; what pauses, and what never resumes."""

from __future__ import annotations

import base64
import datetime as dt
import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
import redis
from cryptography.hazmat.primitives.asymmetric import rsa
from standardwebhooks.webhooks import Webhook

from producer import Producer, keyspace
from producer.job import JobStatus
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.web import file_server, served
from tests.support.workshop import Workshop
from worker.control import pause
from worker.control.pause import EVERYTHING, Scope, paused
from worker.money import billing_alerts
from worker.money.billing_alerts import BillingReport, Guardrail, Observed

GUARD = Guardrail()
SECRET = "whsec_" + base64.b64encode(b"a secret of the tests, long enough").decode()
AUDIENCE, EMAIL = "https://failover.example/budget/webhook", "billing@project.iam.gserviceaccount.com"


def seen(client: redis.Redis, percent: float, at_ms: int | None = None, **fields: Any) -> Observed:
    return billing_alerts.observe(client, BillingReport("gemini", percent, at_ms=at_ms, **fields), GUARD)


def percent(client: redis.Redis) -> float:
    (known,) = billing_alerts.known(client)
    return known.percent


def flags(client: redis.Redis) -> list[str]:
    return [str(flag.scope) for flag in paused(client, ["ai-tasks"])]


def test_at_the_threshold_everything_pauses_and_the_provider_too(client: redis.Redis) -> None:
    assert seen(client, 79.99) == Observed("noted", paused=False)
    assert flags(client) == []
    assert seen(client, 80) == Observed("noted", paused=True)
    assert flags(client) == ["everything", "provider google"]
    assert paused(client, [])[0].why == "google has used 80% of its budget (the pause begins at 80%)"
    assert pause.resume(client, who="sam") == [EVERYTHING, Scope(provider="google")]
    assert flags(client) == []


def test_a_provider_alone_when_told_so(client: redis.Redis) -> None:
    billing_alerts.observe(client, BillingReport("openai", 99), Guardrail(90, "provider"))
    assert flags(client) == ["provider openai"]


def test_a_message_counts_once_and_an_older_one_never_lowers_the_value(client: redis.Redis) -> None:
    assert seen(client, 85, 2000, message_id="m1").paused
    pause.resume(client, who="sam")
    assert seen(client, 85, 2000, message_id="m1") == Observed("duplicate", paused=False)
    assert seen(client, 40, 1000, message_id="m0") == Observed("older", paused=False)
    assert (percent(client), flags(client)) == (85, [])
    assert seen(client, 86, 1500, message_id="m2").paused  # older, and higher: the safe side
    assert seen(client, 70, 3000, message_id="m3") == Observed("noted", paused=False)
    assert percent(client) == 70
    assert flags(client) == ["everything", "provider google"]  # a lower value never resumes


def test_a_new_interval_begins_anew_and_an_old_one_is_past(client: redis.Redis) -> None:
    seen(client, 95, 5000, interval="2026-10-01T07:00:00Z")
    pause.resume(client, who="sam")
    assert seen(client, 2, 4000, interval="2026-11-01T07:00:00Z").outcome == "noted"
    assert seen(client, 99, 6000, interval="2026-10-01T07:00:00Z") == Observed("older", paused=False)
    assert (percent(client), flags(client)) == (2, [])


def test_an_operator_may_let_it_go_on_until_a_higher_share(client: redis.Redis) -> None:
    seen(client, 85)
    pause.resume(client, who="sam", again_at=95)
    assert not seen(client, 94.9).paused
    assert seen(client, 95).paused
    pause.resume(client, who="sam", again_at=120)
    seen(client, 3)  # a new month
    assert seen(client, 80).paused


def test_a_share_let_go_on_holds_for_its_provider_and_its_interval(client: redis.Redis) -> None:
    november = "2026-11-01T07:00:00Z"
    billing_alerts.observe(client, BillingReport("openai", 85), GUARD)
    seen(client, 85, 1000, interval=november)
    pause.resume(client, who="sam")
    pause.resume(client, Scope(provider="gemini"), who="sam", again_at=95)
    assert billing_alerts.observe(client, BillingReport("openai", 85), GUARD).paused
    pause.resume(client, who="sam")
    for at_ms, share in ((2000, 79), (3000, 81), (4000, 94)):
        assert not seen(client, share, at_ms, interval=november).paused
    assert seen(client, 81, 5000, interval="2026-12-01T07:00:00Z").paused


def test_several_budgets_of_a_provider_do_not_hide_each_other(client: redis.Redis) -> None:
    seen(client, 10, 2000, interval="2026-11-01T07:00:00Z", budget_id="monthly", budget_name="Gemini")
    quarterly = seen(client, 99, 1000, interval="2026-10-01T07:00:00Z", budget_id="quarterly", budget_name="All")
    assert quarterly == Observed("noted", paused=True)
    assert {str(each): each.percent for each in billing_alerts.known(client)} == {
        "google (Gemini)": 10,
        "google (All)": 99,
    }
    pause.resume(client, Scope(provider="google"), who="sam", again_at=150)
    assert {each.again_at for each in billing_alerts.known(client)} == {150}


def test_an_operators_pause_keeps_its_note_and_one_that_would_run_out_holds_on(client: redis.Redis) -> None:
    pause.pause(client, who="sam", why="holiday")
    assert seen(client, 90).paused  # the provider's flag
    assert [flag.who for flag in paused(client, [])] == ["sam", "budget"]
    pause.resume(client, who="sam")
    pause.resume(client, Scope(provider="google"), who="sam")
    pause.pause(client, who="sam", why="a while", seconds=100)
    seen(client, 91)
    assert client.ttl(keyspace.PAUSE) == -1


@pytest.fixture
def web(workshop: Workshop) -> Iterator[httpx.Client]:
    workshop.policy()
    with served(workshop, BUDGET_WEBHOOK_SECRET=SECRET) as client:
        yield client


@pytest.mark.parametrize("share", [85, 85.5, 0, 80])
def test_the_sops_body_is_read_whatever_its_content_type(web: httpx.Client, client: redis.Redis, share: float) -> None:
    body = json.dumps({"provider": "gemini", "percentUsed": share, "more": "passed over"}).encode()
    answer = web.post("/budget/webhook", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert (percent(client), bool(flags(client))) == (share, share >= 80)
    assert web.post("/budget/resume").status_code == 204
    assert flags(client) == []


@pytest.mark.parametrize(
    "body",
    [
        b"{}", b"[]", b"1", b"null", b'{"provider": "gemini"}', b'{"provider": "gemini", "percentUsed": "85"}',
        b'{"provider": "gemini", "percentUsed": true}', b'{"provider": "gemini", "percentUsed": -1}',
        b'{"provider": "gemini", "percentUsed": 1e400}', b'{"provider": "", "percentUsed": 85}',
        b'{"provider": "a\\u0000", "percentUsed": 85}', b'{"provider": ["gemini"], "percentUsed": 85}',
        b'{"message": {}}', b'{"message": {"data": "####", "messageId": "1", "publishTime": "2026-11-01T00:00:00Z"}}',
        b'{"message": {"data": "e30=", "messageId": "1", "publishTime": "2026-11-01T00:00:00Z"}}',
        b'{"message": {"data": "e30=", "messageId": "1", "publishTime": "soon"}}',
        b'{"message": {"data": "e30=", "messageId": "1", "publishTime": "0001-01-01T00:00:00"}}',
    ],
)  # fmt: skip
def test_what_is_no_share_is_refused(web: httpx.Client, client: redis.Redis, body: bytes) -> None:
    refused = web.post("/budget/webhook", content=body)
    assert refused.status_code in (400, 422)
    assert refused.json()["error"]["message"]
    assert (billing_alerts.known(client), flags(client)) == ([], [])


def test_resume_takes_a_share_to_pause_again_at(web: httpx.Client, client: redis.Redis) -> None:
    web.post("/budget/webhook", json={"provider": "gemini", "percentUsed": 85})
    assert web.post("/budget/resume", json={"pauseAgainAtPercent": 95}).status_code == 204
    web.post("/budget/webhook", json={"provider": "gemini", "percentUsed": 90})
    assert flags(client) == []
    assert web.post("/budget/resume", json={"pauseAgain": 95}).status_code == 422
    for wrong in (80, 0, -1, "95", True):
        assert web.post("/budget/resume", json={"pauseAgainAtPercent": wrong}).status_code == 422


def test_resume_at_a_terminal_takes_it_too(workshop: Workshop, client: redis.Redis) -> None:
    seen(client, 85)
    assert workshop.run("failover", "resume", "--pause-again-at", "95").returncode == 0
    assert not seen(client, 94).paused
    for wrong in (
        ("--pause-again-at", "nan"),
        ("--pause-again-at", "inf"),
        ("--pause-again-at", "80"),
        ("--pause-again-at", "95", "--queue", "ai-tasks"),
    ):
        assert workshop.run("failover", "resume", *wrong).returncode == 2


def signed(body: bytes, *, secret: str = SECRET, at: dt.datetime | None = None, id_: str = "msg_1") -> dict[str, str]:
    at = at or dt.datetime.now(dt.UTC)
    signature = Webhook(secret).sign(id_, at, body.decode())
    return {"webhook-id": id_, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


def test_a_standard_webhooks_signature_is_as_good_as_the_token(web: httpx.Client, client: redis.Redis) -> None:
    body = b'{"provider": "openai", "percentUsed": 81}'

    def post(headers: dict[str, str], content: bytes = body) -> int:
        url = str(web.base_url) + "/budget/webhook"
        return httpx.post(url, content=content, headers=headers, trust_env=False).status_code

    good = signed(body)
    old = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=10)
    assert post(signed(body, secret="whsec_" + base64.b64encode(b"another").decode())) == 401
    assert post(signed(body, at=old)) == 401
    assert post(good, body.replace(b"81", b"10")) == 401
    assert post({**good, "webhook-timestamp": "soon"}) == 401
    assert post({name: good[name] for name in ("webhook-id", "webhook-signature")}) == 401
    assert flags(client) == []
    deep = b"[" * 20_000 + b"]" * 20_000
    assert post(signed(deep), deep) == 400
    assert post(good) == 204
    assert flags(client) == ["everything", "provider openai"]
    web.post("/budget/resume")
    assert post(good) == 204  # sent again: it counted already
    assert flags(client) == []


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def google_token(key: rsa.RSAPrivateKey = KEY, algorithm: str = "RS256", **claims: Any) -> str:
    now = int(time.time())
    good = {
        "aud": AUDIENCE,
        "email": EMAIL,
        "email_verified": True,
        "iss": "https://accounts.google.com",
        "exp": now + 600,
    }
    return jwt.encode({**good, "iat": now, **claims}, key, algorithm, headers={"kid": "k1"})


def push(cost: float, budget: float = 100.0, *, id_: str = "1", at: str = "2026-11-20T10:00:00Z") -> dict[str, Any]:
    told = {
        "budgetDisplayName": "Gemini", "costAmount": cost, "costIntervalStart": "2026-11-01T07:00:00Z",
        "budgetAmount": budget, "budgetAmountType": "SPECIFIED_AMOUNT", "currencyCode": "EUR",
    }  # fmt: skip
    data = base64.b64encode(json.dumps(told).encode()).decode()
    attributes = {"billingAccountId": "01D4EE-079462-DFD6EC", "budgetId": "de72f49d", "schemaVersion": "1.0"}
    message = {"attributes": attributes, "data": data, "messageId": id_, "message_id": id_, "publishTime": at}
    return {"message": message, "subscription": "projects/p/subscriptions/budget"}


@pytest.fixture
def google(workshop: Workshop) -> Iterator[httpx.Client]:
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))
    workshop.policy()
    with file_server({"keys": [{**public, "kid": "k1", "alg": "RS256", "use": "sig"}]}) as certs:
        sender = {"BUDGET_GOOGLE_AUDIENCE": AUDIENCE, "BUDGET_GOOGLE_EMAIL": EMAIL, "BUDGET_GOOGLE_CERTS_URL": certs}
        with served(workshop, **sender) as client:
            del client.headers["Authorization"]
            yield client


def posted(web: httpx.Client, token: str, body: dict[str, Any] | None = None) -> int:
    answer = web.post("/budget/webhook", json=body or push(85), headers={"Authorization": f"Bearer {token}"})
    return answer.status_code


def test_a_verified_push_of_google_is_read(google: httpx.Client, client: redis.Redis) -> None:
    assert posted(google, google_token(), push(41.5, 50)) == 204
    assert percent(client) == 83
    assert flags(client) == ["everything", "provider google"]
    assert posted(google, google_token(), push(10, 50, id_="2", at="2026-11-20T09:00:00Z")) == 204
    assert posted(google, google_token(), push(10, 50, id_="3", at="0001-01-01T00:00:00Z")) == 204
    assert percent(client) == 83


def test_a_push_that_google_did_not_make_is_refused(google: httpx.Client, client: redis.Redis) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    wrong = [
        google_token(other),
        google_token(aud="https://elsewhere.example"),
        google_token(email="mallory@project.iam.gserviceaccount.com"),
        google_token(email_verified=False),
        google_token(iss="https://evil.example"),
        google_token(exp=int(time.time()) - 600),
        jwt.encode({"aud": AUDIENCE, "email": EMAIL}, "secret" * 8, "HS256", headers={"kid": "k1"}),
        "a.b.c",
        "x",
    ]
    for token in wrong:
        assert posted(google, token) == 401
    assert billing_alerts.known(client) == []


def test_nothing_starts_after_the_204_running_jobs_end_and_resume_drains(
    workshop: Workshop, producer: Producer, client: redis.Redis
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    workshop.providers.behave("a", latency=(0.5, 0.5))
    workers = [workshop.worker("--concurrency", "5") for _ in range(3)]
    with served(workshop) as web:
        running = [producer.enqueue(chat(str(uuid4()))) for _ in range(10)]
        until(lambda: workshop.providers.account("a")["in_flight"] == 10, "they run")
        assert web.post("/budget/webhook", json={"provider": "gemini", "percentUsed": 85}).status_code == 204
        waiting = [producer.enqueue(chat(str(uuid4()))) for _ in range(20)]
        for job_id in running:
            assert producer.wait(job_id, 20).status is JobStatus.DONE
        for worker in workers:
            until(partial(workshop.events, worker, "paused"), "each worker knows")
        assert client.llen(keyspace.queue("ai-tasks")) == 20
        assert workshop.providers.account("a")["asked"] == 10
        assert web.post("/budget/resume").status_code == 204
        for job_id in waiting:
            assert producer.wait(job_id, 60).status is JobStatus.DONE
