"""Tokens with a role and a tenant: who may call which route, and that a tenant's token learns of no other tenant."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from ops.local import embedded
from ops.web.access import ACCESS
from producer import Producer, keyspace
from producer.connection import connect, connect_async
from producer.errors import ConfigurationError, UsageError
from producer.job import JobStatus, LLMJob
from producer.scripts import ask
from tests.support.polling import until
from tests.support.web import BODY, TOKEN, served
from tests.support.workshop import Workshop
from worker.control import pause, tokens
from worker.control.tokens import Role, Token, Tokens, hash_of

SECRET = "the secret plans of globex"


def made(client: redis.Redis, name: str, role: Role, tenant: str | None = None) -> dict[str, str]:
    """The headers of a new token."""
    secret = tokens.new_secret()
    tokens.create(client, Token(name=name, role=role, tenant=tenant, sha256=hash_of(secret), by="sam"))
    return {"Authorization": f"Bearer {secret}"}


def audited(client: redis.Redis, action: str) -> list[str]:
    (entries,) = ask(client, [("XRANGE", keyspace.AUDIT, "-", "+")])
    return [fields[b"who"].decode() for _, fields in entries if fields[b"action"].decode() == action]


def operations(web: httpx.Client) -> list[tuple[str, str, dict[str, Any]]]:
    paths = web.get("/openapi.json").json()["paths"]
    return [(method.upper(), path, facts) for path, each in paths.items() for method, facts in each.items()]


def host_of(workshop: Workshop) -> str:
    (line,) = workshop.events(workshop.processes[-1], "serving")
    return str(line["host"])


def test_a_token_in_redis_alone_opens_the_port_and_stays_required(workshop: Workshop, client: redis.Redis) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    viewer = made(client, "board", Role.VIEWER)
    with served(workshop, token=None) as web:
        assert host_of(workshop) == "0.0.0.0"
        assert web.get("/metrics", headers=viewer).status_code == 200
        assert web.get("/metrics", headers={"Host": "localhost"}).status_code == 401
        tokens.revoke(client, "board", who="sam")
        until(lambda: web.get("/metrics", headers=viewer).status_code == 401, "the last token is revoked")
        assert web.get("/metrics", headers={"Host": "localhost"}).status_code == 401
    with served(workshop, token=None) as web:
        assert host_of(workshop) == "127.0.0.1"
        assert web.get("/metrics", headers={"Host": "localhost"}).status_code == 200


def test_a_redis_that_is_away_at_the_start_opens_no_port(workshop: Workshop) -> None:
    workshop.policy()
    with served(workshop, token=None, REDIS_URL="redis://127.0.0.1:1/0"):
        assert host_of(workshop) == "127.0.0.1"


def test_every_route_says_who_may_call_it(web: httpx.Client) -> None:
    """A new route needs a line in ops/web/access.py; until then nobody may call it."""
    documented = {(method, path): facts for method, path, facts in operations(web)}
    access = {(method, path.replace(":path}", "}")): roles for (method, path), roles in ACCESS.items()}
    assert set(access) == {*documented, ("GET", "/openapi.json")}
    for route, facts in documented.items():
        assert facts.get("x-roles", None) == (sorted(access[route] or ()) or None)


def owned_by(web: httpx.Client, client: redis.Redis, tenant: str, job_id: str) -> dict[str, str]:
    """One thing of each kind that a path can name, by the parameter's name."""
    headers = {"x-failover-tenant": tenant}
    file: Any = {"file": ("in.jsonl", SECRET.encode()), "purpose": (None, "batch")}
    response = {"input": SECRET, "background": True}
    batch: Any = {"tenant": tenant, "status": "completed", "input_file_id": SECRET, "created_at": 1}
    client.hset("failover:batch:batch_theirs", mapping=batch)
    return {
        "job_id": job_id,
        "file_id": web.post("/v1/files", files=file, headers=headers).json()["id"],
        "response_id": web.post("/v1/responses", json=response, headers=headers).json()["id"],
        "batch_id": "batch_theirs",
    }


def test_a_tenants_token_sees_and_touches_nothing_of_another_tenant(
    web: httpx.Client, client: redis.Redis, producer: Producer
) -> None:
    """Over every route of the document, with what is the other tenant's wherever the path wants one."""
    theirs = producer.enqueue(
        LLMJob.parse({"tenant_id": "globex", "body": {"messages": [{"role": "user", "content": SECRET}]}})
    )
    acme = made(client, "acme-app", Role.TENANT, "acme")
    known = owned_by(web, client, "globex", theirs)
    before, queued = client.hgetall(keyspace.job(theirs)), client.llen(keyspace.queue("ai-tasks"))
    for method, path, _ in operations(web):
        body = {**BODY, "tenant_id": "globex"} if path == "/jobs" else {"provider": "openai", "percentUsed": 99}
        name = next((each for each in known if f"{{{each}}}" in path), "")
        its_id = known.get(name, "")
        answer = web.request(method, path.replace(f"{{{name}}}", its_id), json=body, headers=acme)
        unknown = web.request(method, path.replace(f"{{{name}}}", f"no{its_id[2:]}"), json=body, headers=acme)
        told = answer.text.replace(its_id, "ID") if its_id else answer.text
        if its_id:
            assert (answer.status_code, told) == (404, unknown.text.replace(f"no{its_id[2:]}", "ID")), (method, path)
        elif method == "GET" and path in ("/v1/files", "/v1/batches"):
            assert answer.json()["data"] == [], path
        elif not path.startswith("/v1/models"):
            assert answer.status_code in (400, 403) or path in ("/healthz", "/readyz"), (method, path)
        assert SECRET not in told
        assert "globex" not in told
    assert client.hgetall(keyspace.job(theirs)) == before
    assert client.llen(keyspace.queue("ai-tasks")) == queued
    assert audited(client, "cancel") == []
    assert pause.holding(client, "ai-tasks") == []


def test_a_tenants_token_submits_reads_and_cancels_its_own_jobs(
    web: httpx.Client, client: redis.Redis, producer: Producer
) -> None:
    acme = made(client, "acme-app", Role.TENANT, "acme")
    job_id = web.post("/jobs", json=BODY, headers=acme).json()["job_id"]
    assert producer.fetch(job_id, tenant="acme").status is JobStatus.QUEUED
    assert web.post("/jobs", json={**BODY, "tenant_id": "acme"}, headers=acme).status_code == 202
    refused = web.post("/jobs", json={**BODY, "tenant_id": "default"}, headers=acme)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    assert web.post("/jobs", json={**BODY, "priority": 1}, headers=acme).status_code == 403
    assert web.get(f"/jobs/{job_id}", headers={**acme, "Prefer": "wait=1"}).json()["status"] == "queued"
    assert web.delete(f"/jobs/{job_id}", headers=acme).json()["status"] == "cancelled"
    assert audited(client, "cancel") == ["acme-app@http"]


@pytest.mark.parametrize(
    ("role", "may"),
    [
        (
            Role.OPERATOR,
            {"POST /jobs", "GET /jobs", "DELETE /jobs", "POST /budget/webhook", "POST /budget/resume", "GET /metrics"},
        ),
        (Role.REVIEWER, {"GET /jobs", "POST /budget/resume", "GET /metrics"}),
        (Role.VIEWER, {"GET /jobs", "GET /metrics"}),
    ],
)
def test_a_role_may_do_what_it_is_for(web: httpx.Client, client: redis.Redis, role: Role, may: set[str]) -> None:
    job_id, headers = web.post("/jobs", json=BODY).json()["job_id"], made(client, "ann", role)
    pause.pause(client, who="sam", why="testing")
    asked: list[tuple[str, str, Any]] = [
        ("GET", f"/jobs/{job_id}", None), ("GET", "/metrics", None), ("POST", "/jobs", BODY),
        ("POST", "/budget/webhook", {"provider": "gemini", "percentUsed": 3}), ("POST", "/budget/resume", {}),
        ("DELETE", f"/jobs/{job_id}", None),
    ]  # fmt: skip
    statuses = {
        f"{method} {path.replace('/' + job_id, '')}": web.request(method, path, json=body, headers=headers).status_code
        for method, path, body in asked
    }
    assert {name for name, status in statuses.items() if status < 300} == may
    assert {status for name, status in statuses.items() if name not in may} <= {403}
    assert audited(client, "resume") == (["ann@http"] if "POST /budget/resume" in may else [])


def test_a_token_is_made_listed_and_revoked(web: httpx.Client, workshop: Workshop, client: redis.Redis) -> None:
    created = workshop.run("failover", "tokens", "create", "acme-app", "--role", "tenant", "--tenant", "acme")
    secret = created.stdout.strip()
    headers = {"Authorization": f"Bearer {secret}"}
    assert web.post("/jobs", json=BODY, headers=headers).status_code == 202
    assert secret not in str(client.hgetall(keyspace.TOKENS)) + str(client.xrange(keyspace.AUDIT))
    with pytest.raises(UsageError, match="acme-app already"):
        made(client, "acme-app", Role.VIEWER)
    (known,) = json.loads(workshop.run("failover", "tokens", "list", "--json").stdout)
    assert (known["name"], known["role"], known["tenant"], known["kept"]) == ("acme-app", "tenant", "acme", "redis")
    assert workshop.run("failover", "tokens", "revoke", "acme-app").returncode == 0
    until(lambda: web.post("/jobs", json=BODY, headers=headers).status_code == 401, "it is refused", seconds=5)
    with pytest.raises(UsageError, match="no token acme-app"):
        tokens.revoke(client, "acme-app", who="sam")
    assert (len(audited(client, "create token")), len(audited(client, "revoke token"))) == (1, 1)


def test_a_token_of_the_file_works_while_redis_is_away_and_nobody_else_gets_in(
    workshop: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> None:
    workshop.policy()
    folder = tmp_path_factory.mktemp("own")
    made_line = workshop.run("failover", "tokens", "create", "ci", "--role", "viewer", "--for-file", "--json")
    fresh = json.loads(made_line.stdout)
    Path(workshop.environment["POLICIES_DIR"], "tokens.yaml").write_text(f"version: 1\ntokens:\n  {fresh['line']}\n")
    workshop.url = f"unix://{embedded.socket_path(folder)}"

    def status(web: httpx.Client, secret: str) -> int:
        return web.get("/openapi.json", headers={"Authorization": f"Bearer {secret}"}).status_code

    server = embedded.start_server(folder)
    try:
        with served(workshop) as web, connect(workshop.url) as client:
            secret = made(client, "ann", Role.OPERATOR)["Authorization"].removeprefix("Bearer ")
            assert [status(web, each) for each in (TOKEN, fresh["token"], secret, "nope")] == [200, 200, 200, 401]
            server.kill()
            server.wait()
            until(lambda: status(web, secret) == 503, "what Redis said is too old", seconds=5)
            assert [status(web, each) for each in (TOKEN, fresh["token"], secret, "nope")] == [200, 200, 503, 503]
            assert httpx.get(f"{web.base_url}/openapi.json", trust_env=False).status_code == 401
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"ci: {{role: viewer, sha256: fow_{'a' * 43}}}", "the token itself never stands here"),
        ("ci: {role: viewer}", "tokens.ci.sha256: is missing"),
        (f"ci: {{role: boss, sha256: {'a' * 64}}}", "tokens.ci.role"),
        (f"ci: {{role: tenant, sha256: {'a' * 64}}}", "needs a tenant"),
        (f"ci: {{role: viewer, tenant: acme, sha256: {'a' * 64}}}", "no other role has one"),
        (f"'a b': {{role: viewer, sha256: {'a' * 64}}}", "letters, digits"),
    ],
)
def test_a_wrong_line_of_the_file_is_named(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "tokens.yaml").write_text(f"version: 1\ntokens:\n  {line}\n")
    with pytest.raises(ConfigurationError) as refused:
        tokens.load_tokens({"POLICIES_DIR": str(tmp_path)})
    assert "tokens.yaml:3" in str(refused.value)
    assert said in str(refused.value)
    assert tokens.PREFIX not in str(refused.value)


def test_redis_is_asked_rarely_and_a_change_is_seen(url: str, client: redis.Redis) -> None:
    now, secret = [0.0], tokens.new_secret()

    async def run() -> None:
        connection = connect_async(url)
        known = Tokens(connection, [], clock=lambda: now[0])
        assert await known.find(secret) is None
        tokens.create(client, Token(name="bob", role=Role.VIEWER, sha256=hash_of(secret)))
        client.config_resetstat()
        for _ in range(50):
            assert await known.find(secret) is None
        assert "cmdstat_hget" not in client.info("commandstats")
        for _ in range(5):
            now[0] += tokens.REFRESH_SECONDS
            found = await known.find(secret)
            assert found is not None
            assert found.name == "bob"
        assert client.info("commandstats")["cmdstat_hgetall"]["calls"] == 1
        await connection.aclose()

    asyncio.run(run())
