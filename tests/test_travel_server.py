"""The server of examples/travel-mode: what it starts with, and whom it refuses. Without a browser, and without a queue."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.support.travel import CODES, SERVER

TOKEN = "fow_of_the_server"
ENVIRONMENT = {
    "FAILOVER_API_TOKEN": TOKEN,
    "FAILOVER_URL": "http://127.0.0.1:9/v1",  # nobody listens there
    "TRAVEL_CODES": ",".join(f"{tenant}={code}" for tenant, code in CODES.items()),
}
QUESTION = {"messages": [{"role": "user", "content": "hello"}]}
ASKING = {"x-failover-tenant": "acme", "x-failover-feature": "places", "Idempotency-Key": "k"}


@pytest.fixture(scope="module")
def server() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("travel_server", SERVER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def made(server: ModuleType, **environment: str) -> TestClient:
    return TestClient(server.Server(server.read_settings({**ENVIRONMENT, **environment})).app())


@pytest.fixture
def visitor(server: ModuleType) -> TestClient:
    return made(server)


def signed_in(visitor: TestClient, tenant: str = "acme") -> TestClient:
    assert visitor.post("/sign-in", headers={"x-access-code": CODES[tenant]}).status_code == 200
    return visitor


def refused(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"FAILOVER_API_TOKEN": ""}, "FAILOVER_API_TOKEN is not set"),
        ({"TRAVEL_CODES": ""}, "TRAVEL_CODES is not set"),
        ({"TRAVEL_CODES": " , "}, "TRAVEL_CODES is not set"),
        ({"TRAVEL_CODES": "acme=short"}, "entry 1 should be tenant=code, with a code of 16"),
        ({"TRAVEL_CODES": "a-code-without-a-tenant"}, "entry 1 should be tenant=code"),
        ({"TRAVEL_CODES": "acme=" + "a" * 16 + ",b=" + "a" * 16}, "entry 2 has the tenant or the code of another"),
        ({"TRAVEL_CODES": "acme=" + "a" * 16 + ",acme=" + "b" * 16}, "entry 2 has the tenant or the code of another"),
        ({"FAILOVER_URL": "localhost:8000/v1"}, "FAILOVER_URL should be like http://localhost:8000/v1"),
        ({"FAILOVER_URL": "http:///v1"}, "FAILOVER_URL should be like"),
        ({"PORT": "http"}, "PORT should be a number"),
        ({"PORT": "70000"}, "PORT should be a number"),
        ({"TRAVEL_POLICY": "/no/such.json"}, "/no/such.json cannot be read"),
    ],
)
def test_a_wrong_setting_is_named(server: ModuleType, environment: dict[str, str], words: str) -> None:
    with pytest.raises(server.WrongSetting, match=words) as problem:
        server.read_settings({**ENVIRONMENT, **environment})
    assert "a" * 16 not in str(problem.value) and "short" not in str(problem.value)  # no code


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("{", "Invalid JSON"),
        ({"features": {}}, "features: Dictionary should have at least 1 item"),
        ({"features": {"a": {"label": "A", "keep_hour": 1}}}, "features.a.keep_hour: Extra inputs"),
        ({"features": {"a": {"label": "A", "keep_hours": 0}}}, "features.a.keep_hours: Input should be greater than 0"),
        ({"features": {"a b": {"label": "A"}}}, "features.a b"),
        ({"features": {"é": {"label": "A"}}}, "features.é"),
    ],
)
def test_a_wrong_policy_is_named(server: ModuleType, tmp_path: Path, policy: Any, words: str) -> None:
    path = tmp_path / "policy.json"
    path.write_text(policy if isinstance(policy, str) else json.dumps(policy))
    with pytest.raises(server.WrongSetting, match=words):
        server.read_settings({**ENVIRONMENT, "TRAVEL_POLICY": str(path)})


def test_nobody_asks_without_a_session(visitor: TestClient) -> None:
    assert refused(visitor.get("/session")) == (401, "signed_out")
    assert refused(visitor.post("/v1/chat/completions", json=QUESTION, headers=ASKING)) == (401, "signed_out")
    for code in ("", "wrong", CODES["acme"][:-1], "%C3%A9%00%FF"):
        assert refused(visitor.post("/sign-in", headers={"x-access-code": code})) == (401, "wrong_code")
    assert not visitor.cookies


def test_a_session_cannot_be_made_up(server: ModuleType, visitor: TestClient) -> None:
    cookie = signed_in(visitor).cookies[server.COOKIE]
    tenant, until, signature = cookie.rsplit(".", 2)
    last = "0" if signature[-1] != "0" else "1"
    for other in (
        f"globex.{until}.{signature}",
        f"{tenant}.{int(until) + 1}.{signature}",
        cookie[:-1] + last,
        "",
        "a",
        "..",
    ):
        visitor.cookies.clear()
        assert refused(visitor.get("/session", headers={"Cookie": f"{server.COOKIE}={other}"})) == (401, "signed_out")
    same = {"Cookie": f"{server.COOKIE}={cookie}"}
    assert visitor.get("/session", headers=same).json()["tenant"] == "acme"
    for change in ({"TRAVEL_CODES": "acme=another-code-of-acme"}, {"FAILOVER_API_TOKEN": "fow_another"}):
        assert refused(made(server, **change).get("/session", headers=same)) == (401, "signed_out")


def test_a_session_ends(server: ModuleType, visitor: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SIGNED_IN_SECONDS", -1)
    answer = visitor.post("/sign-in", headers={"x-access-code": CODES["acme"]})
    cookie = answer.headers["set-cookie"].partition(";")[0]
    assert refused(visitor.get("/session", headers={"Cookie": cookie})) == (401, "signed_out")


@pytest.mark.parametrize(
    ("headers", "body", "refusal"),
    [
        ({"x-failover-tenant": "globex"}, QUESTION, (403, "other_tenant")),
        ({"x-failover-tenant": ""}, QUESTION, (403, "other_tenant")),
        ({"x-failover-feature": "unknown"}, QUESTION, (400, "unknown_feature")),
        ({"Idempotency-Key": ""}, QUESTION, (400, "no_key")),
        ({"Idempotency-Key": b"\xe9"}, QUESTION, (400, "no_key")),
        ({}, {"messages": []}, (400, "invalid_body")),
        ({}, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, (400, "invalid_body")),
        ({}, [], (400, "invalid_body")),
        ({}, {"messages": [{"content": "x" * 70_000}]}, (413, "too_large")),
        ({}, QUESTION, (502, "unreachable")),
    ],
)
def test_what_is_not_sent_to_the_queue(
    visitor: TestClient, headers: dict[str, Any], body: Any, refusal: tuple[int, str]
) -> None:
    answer = signed_in(visitor).post("/v1/chat/completions", json=body, headers={**ASKING, **headers})
    assert refused(answer) == refusal
    assert answer.headers["Cache-Control"] == "no-store"


def test_the_token_stays_on_the_server(visitor: TestClient) -> None:
    answers = [visitor.get(f"/{name}") for name in ("", "app.js", "sw.js", "device.js", "sending.js", "policy.json")]
    answers += [visitor.get("/server.py"), visitor.get("/%2e%2e/server.py"), signed_in(visitor).get("/session")]
    assert [answer.status_code for answer in answers] == [200] * 5 + [404] * 3 + [200]
    for answer in answers:
        assert TOKEN not in answer.text + str(answer.headers)
        assert "script-src 'self';" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
