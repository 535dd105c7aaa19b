"""The web process from outside: intake, who may call, hostile bodies, health, signals."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from bench.throughput import free_port
from ops.local import embedded
from ops.web.serve import EVERYWHERE
from producer import keyspace
from tests.support.polling import until
from tests.support.proxy import Proxy
from tests.support.web import BODY, TOKEN, served, tenants
from tests.support.workshop import Workshop
from worker.control import pause


def message(response: httpx.Response) -> str:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "code", "param"}
    return str(error["message"])


def test_a_job_is_accepted_and_its_answer_asked_for(web: httpx.Client, workshop: Workshop) -> None:
    accepted = web.post("/jobs", json=BODY)
    assert accepted.status_code == 202
    url = accepted.json()["status_url"]
    assert accepted.headers["location"] == url
    assert web.get(url).json()["status"] == "queued"
    workshop.worker()
    result = web.get(url, headers={"Prefer": "wait=20"}).json()
    assert (result["status"], result["route"]) == ("done", "a/a-1")
    assert web.delete(url).status_code == 409


def test_a_preference_to_wait_holds_the_answer_and_then_gives_202(web: httpx.Client, workshop: Workshop) -> None:
    early = web.post("/jobs", json=BODY, headers={"Prefer": "wait=1, respond-async"})
    assert (early.status_code, early.headers["preference-applied"]) == (202, "wait=1")
    workshop.worker()
    done = web.post("/jobs", json=BODY, headers={"Prefer": "wait=100000"})
    assert (done.status_code, done.headers["preference-applied"]) == (200, "wait=20")
    assert done.json()["completion"]["choices"][0]["message"]["content"]


def test_a_large_job_that_is_waited_for_holds_up_no_other(web: httpx.Client) -> None:
    large = {"body": {"messages": [{"role": "user", "content": "x" * 500_000}]}}
    answers: list[int] = []

    def waiting() -> None:
        with contextlib.suppress(httpx.TransportError, RuntimeError):  # the test is over before it
            answers.append(web.post("/jobs", json=large, headers={"Prefer": "wait=20"}).status_code)

    held = threading.Thread(target=waiting, daemon=True)
    held.start()
    for _ in range(3):
        assert web.post("/jobs", json=large, timeout=10).status_code == 202
    assert answers == []


def test_a_paused_system_accepts_and_says_so(web: httpx.Client, client: redis.Redis) -> None:
    pause.pause(client, who="sam", why="testing")
    assert "paused" in web.post("/jobs", json=BODY).json()["message"]
    assert web.get("/readyz").json()["notes"] == ["no worker is running", "paused"]


def test_what_was_accepted_is_never_answered_as_if_it_were_not(
    workshop: Workshop, client: redis.Redis, tmp_path: Path
) -> None:
    """Redis goes away between the job and the answer: told to send it again, a client would have two."""
    workshop.policy()
    proxy = Proxy(Path(workshop.url.removeprefix("unix://")))
    workshop.url = proxy.url
    try:
        with served(workshop) as web:
            web.post("/jobs", json=BODY)  # the scripts are known now
            proxy.script, proxy.lose, proxy.lose_reply = b"HGETALL", 0, False
            accepted = web.post("/jobs", json=BODY)
            assert (accepted.status_code, proxy.lost) == (202, 1)
            proxy.script, proxy.lose = b"HMGET", 1000
            threading.Timer(0.5, proxy.close).start()
            waited = web.post("/jobs", json=BODY, headers={"Prefer": "wait=5"})
            assert waited.status_code == 202
            assert client.llen(keyspace.queue("ai-tasks")) == 3
    finally:
        proxy.close()


def test_a_cancelled_job_is_gone(web: httpx.Client) -> None:
    url = web.post("/jobs", json=BODY).json()["status_url"]
    assert web.delete(url).json()["status"] == "cancelled"
    assert web.delete(url).status_code == 200
    gone = web.get(url)
    assert gone.status_code == 404
    assert "was cancelled" in message(gone)
    for method in ("GET", "DELETE"):
        unknown = web.request(method, "/jobs/nope")
        assert unknown.status_code == 404
        assert "no job has the id" in message(unknown)


def test_an_idempotency_key_is_honoured_from_body_and_header(web: httpx.Client) -> None:
    first = web.post("/jobs", json=BODY, headers={"Idempotency-Key": "k1"}).json()["job_id"]
    assert web.post("/jobs", json={**BODY, "idempotency_key": "k1"}).json()["job_id"] == first
    other = {"body": {"messages": [{"role": "user", "content": "other"}]}}
    conflict = web.post("/jobs", json=other, headers={"Idempotency-Key": "k1"})
    assert conflict.status_code == 409
    assert first in message(conflict)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"[" * 10_000 + b"]" * 10_000, 400, "not JSON"),
        (
            json.dumps(BODY).replace("hello", "[" * 9).encode()[:-1] + b', "metadata": ' + b'{"a":' * 10_000,
            400,
            "not JSON",
        ),
        (b'{"body": {"messages": [{"role": "user", "content": "\\ud800"}]}}', 400, "not JSON"),
        (b'{"body": {"messages": [{"role": "user", "content": "\\u0000"}]}}', 422, "NUL"),
        (b'{"body": {"messages": [{"role": "user", "content": "\x00"}]}}', 400, "not JSON"),
        (b'{"body": {"messages": [{"role": "user", "content": "\xff"}]}}', 400, "not JSON"),
        (b'{"body": {"messages": [{"role": "user"}], "temperature": NaN}}', 400, "not JSON"),
        (b'{"body": {"messages": []}}', 422, "body.messages"),
        (b'{"body": {"messages": [{"role": "user"}]}, "job_type": "nope"}', 422, "policies/jobs.yaml"),
        (b'{"body": {"messages": [{"role": "user"}]}, "tenant_id": "a b"}', 422, "tenant_id"),
        (b'{"body": {"messages": [{"role": "user"}]}, "priority": true}', 422, "priority"),
        (b"[]", 422, "a job is an object"),
        (b'{"messages": [{"role": "user"}]}', 422, "wrap the chat body"),
    ],
)
def test_what_is_no_job_is_refused_with_a_sentence(web: httpx.Client, body: bytes, status: int, said: str) -> None:
    refused = web.post("/jobs", content=body)
    assert refused.status_code == status
    assert said in message(refused)
    assert web.get("/healthz").status_code == 200


def test_a_backslash_before_u0000_is_no_nul(web: httpx.Client) -> None:
    body = b'{"body": {"messages": [{"role": "user", "content": "\\\\u0000"}]}}'
    assert web.post("/jobs", content=body).status_code == 202


@pytest.mark.parametrize("path", ["/jobs", "/budget/webhook", "/budget/resume"])
@pytest.mark.parametrize("declared", [True, False])
def test_fifty_megabytes_are_refused_and_not_held(web: httpx.Client, path: str, declared: bool) -> None:
    chunk = b" " * 1_000_000

    def chunks() -> Iterator[bytes]:
        for _ in range(50):
            yield chunk

    headers = {"Content-Length": "50000000"} if declared else {}
    refused = web.post(path, content=chunks(), headers=headers)
    assert refused.status_code == 413
    assert "larger than" in message(refused)
    resident = next(line for line in web.get("/metrics").text.splitlines() if line.startswith("process_resident"))
    assert float(resident.split()[1]) < 200e6


def test_a_tenant_over_its_rate_is_told_when_to_come_back(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    tenants(workshop, jobs_per_minute=6, burst=3)
    with served(workshop) as web:
        statuses = [web.post("/jobs", json={**BODY, "tenant_id": "acme"}).status_code for _ in range(4)]
        assert statuses == [202, 202, 202, 429]
        refused = web.post("/jobs", json={**BODY, "tenant_id": "acme"})
        assert 8 <= int(refused.headers["retry-after"]) <= 10
        assert "acme" in message(refused)
        assert web.post("/jobs", json={**BODY, "tenant_id": "other"}).status_code == 202


def test_every_route_but_health_wants_the_token(web: httpx.Client) -> None:
    routes = (
        ("POST", "/jobs"), ("GET", "/jobs/x"), ("DELETE", "/jobs/x"), ("POST", "/budget/webhook"),
        ("POST", "/budget/resume"), ("GET", "/metrics"), ("GET", "/openapi.json"),
    )  # fmt: skip
    for wrong in ("", "Bearer", "Bearer nope", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff"):
        for method, path in routes:
            refused = web.request(method, path, headers={b"Authorization": wrong.encode("latin-1")})
            assert refused.status_code == 401, (wrong, path)
            assert refused.headers["www-authenticate"] == "Bearer"
            assert TOKEN not in refused.text
    for path in ("/healthz", "/readyz"):
        assert httpx.get(str(web.base_url) + path, trust_env=False).status_code == 200


def test_without_a_secret_only_this_machine_is_served(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    with served(workshop, token=None) as web:
        assert web.post("/jobs", json=BODY).status_code == 202
        port = web.base_url.port
        for headers in (
            {"Host": "evil.example"},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://["},
            {"Host": "["},
        ):
            assert web.post("/jobs", json=BODY, headers=headers).status_code == 401
        own = socket.gethostbyname(socket.gethostname())
        if not own.startswith("127."):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((own, port or 0), timeout=2)
    refused = workshop.run("failover", "serve", "--host", EVERYWHERE, "--port", str(free_port()))
    assert refused.returncode == 2
    assert "FAILOVER_API_TOKEN" in refused.stderr


def test_what_cannot_serve_says_why(workshop: Workshop) -> None:
    workshop.policy()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = workshop.run("failover", "serve", PORT=port)
    assert (refused.returncode, "cannot be listened on" in refused.stderr) == (2, True)
    for name, value in (
        ("BUDGET_PAUSE_AT_PERCENT", "most"),
        ("BUDGET_WEBHOOK_SECRET", "not base64!"),
        ("BUDGET_GOOGLE_AUDIENCE", "x"),
    ):
        refused = workshop.run("failover", "serve", PORT="0", **{name: value})
        assert (refused.returncode, "BUDGET_" in refused.stderr, "Traceback" in refused.stderr) == (2, True, False)


def test_unknown_paths_and_methods_are_told(web: httpx.Client) -> None:
    assert web.get("/nope").status_code == 404
    refused = web.put("/jobs/x")
    assert (refused.status_code, refused.headers["allow"]) == (405, "DELETE, GET")
    assert "PUT is not for /jobs/x" in message(refused)


def test_metrics_tell_what_the_status_tells(web: httpx.Client, client: redis.Redis) -> None:
    web.post("/jobs", json=BODY)
    web.post("/budget/webhook", json={"provider": "gemini", "percentUsed": 85})
    text = web.get("/metrics").text
    for line in (
        'failover_queue_jobs{queue="ai-tasks",state="queued"} 1.0',
        'failover_paused{name="",scope="everything"} 1.0',
        'failover_budget_used_percent{budget="",provider="google"} 85.0',
        'failover_http_requests_total{method="POST",route="/jobs",status="202"} 1.0',
    ):
        assert line in text


def test_no_job_is_accepted_into_a_redis_that_can_lose_it(workshop: Workshop, tmp_path: Path) -> None:
    workshop.policy()
    (tmp_path / "unsafe").mkdir()
    server = embedded.start_server(tmp_path / "unsafe", {"appendonly": "no"})
    try:
        workshop.url = f"unix://{embedded.socket_path(tmp_path / 'unsafe')}"
        refused = workshop.run("failover", "serve", PORT="0")
        assert (refused.returncode, "appendonly" in refused.stderr) == (3, True)
        with served(workshop, ALLOW_UNSAFE_REDIS="true") as web:
            assert web.get("/readyz").json()["ready"]
            assert "appendonly" in web.get("/readyz").json()["notes"][0]
    finally:
        server.kill()
        server.wait()


def test_it_serves_while_redis_is_away_and_after(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> None:
    workshop.policy()
    folder = tmp_path_factory.mktemp("own")
    workshop.url = f"unix://{embedded.socket_path(folder)}"
    with served(workshop) as web:
        away = web.get("/readyz")
        assert (away.status_code, away.json()["reasons"]) == (503, ["redis: ConnectionError"])
        for refused in (
            web.post("/jobs", json=BODY),
            web.get("/jobs/x"),
            web.get("/metrics"),
            web.post("/budget/resume"),
        ):
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            assert "Redis" in message(refused)
        server = embedded.start_server(folder)
        try:
            until(lambda: web.get("/readyz").status_code == 200, "it is ready")
            assert web.post("/jobs", json=BODY).status_code == 202
        finally:
            server.kill()
            server.wait()


def looks(client: redis.Redis) -> int:
    """How often anybody has read a job."""
    return int(client.info("commandstats").get("cmdstat_hmget", {"calls": 0})["calls"])


def test_sigterm_again_and_again_lets_requests_end_and_exits_well(
    web: httpx.Client, workshop: Workshop, client: redis.Redis
) -> None:
    process = workshop.processes[-1]
    url = web.post("/jobs", json=BODY).json()["status_url"]
    answers: list[Any] = []
    before = looks(client)
    held = threading.Thread(target=lambda: answers.append(web.get(url, headers={"Prefer": "wait=3"})))
    held.start()
    until(lambda: looks(client) >= before + 3, "the request is held")
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0, workshop.log(process)
    held.join(20)
    assert answers[0].json()["status"] == "queued"
    assert "Traceback" not in workshop.log(process)
