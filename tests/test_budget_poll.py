"""`failover budget poll` against the recorded shapes of OpenAI's and Anthropic's cost endpoints."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import redis

from producer import keyspace
from tests.support.workshop import Workshop
from worker.money import billing_alerts
from worker.providers.costs import Month

Answer = tuple[int, Any]


def nothing(_query: dict[str, str]) -> Answer:
    """A path that the provider does not have."""
    return 404, {"error": {"message": "none"}}


class Books:
    """Both providers' books: pages by path, and what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[dict[str, str]], Answer]] = {}
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.url = ""


@pytest.fixture
def ledger_keys() -> Iterator[Books]:
    ledger_keys = Books()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            ledger_keys.asked.append((parts.path, query, {k.lower(): v for k, v in self.headers.items()}))
            status, content = ledger_keys.answers.get(parts.path, nothing)(query)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content if isinstance(content, bytes) else json.dumps(content).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ledger_keys.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield ledger_keys
        server.shutdown()


def openai_page(*amounts: float, following: str | None = None) -> dict[str, Any]:
    """As recorded in OpenAI's reference of GET /organization/costs."""
    results = [
        {
            "object": "organization.costs.result",
            "amount": {"value": amount, "currency": "usd"},
            "line_item": None,
            "project_id": None,
            "organization_id": "org-x",
        }
        for amount in amounts
    ]
    bucket = {"object": "bucket", "start_time": 1730419200, "end_time": 1730505600, "results": results}
    return {"object": "page", "data": [bucket], "has_more": following is not None, "next_page": following}


def anthropic_page(*cents: str, following: str | None = None) -> dict[str, Any]:
    """As recorded in Anthropic's reference of GET /v1/organizations/cost_report."""
    results = [
        {
            "currency": "USD",
            "amount": amount,
            "workspace_id": None,
            "description": None,
            "cost_type": None,
            "context_window": None,
            "model": None,
            "service_tier": None,
            "token_type": None,
        }
        for amount in cents
    ]
    bucket = {"starting_at": "2026-11-01T00:00:00Z", "ending_at": "2026-11-02T00:00:00Z", "results": results}
    return {"data": [bucket], "has_more": following is not None, "next_page": following}


COSTS, LIMIT, REPORT = "/v1/organization/costs", "/v1/organization/spend_limit", "/v1/organizations/cost_report"


def poll(workshop: Workshop, ledger_keys: Books, **environment: str) -> tuple[int, list[dict[str, Any]], str]:
    where = {"OPENAI_ADMIN_BASE_URL": ledger_keys.url, "ANTHROPIC_ADMIN_BASE_URL": ledger_keys.url}
    done = workshop.run("failover", "budget", "poll", "--json", **where, **environment)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout or "[]"), done.stderr


def test_openai_s_pages_are_summed_exactly_and_pause_at_the_threshold(
    workshop: Workshop, ledger_keys: Books, client: redis.Redis
) -> None:
    workshop.policy()
    ledger_keys.answers[COSTS] = lambda query: (
        (200, openai_page(0.3, following="p2")) if query.get("page") != "p2" else (200, openai_page(0.1, 39.6))
    )
    code, found, _ = poll(workshop, ledger_keys, OPENAI_ADMIN_KEY="sk-admin-1", OPENAI_MONTHLY_BUDGET_USD="50")
    assert code == 0
    assert found == [
        {
            "provider": "openai",
            "dollars": 40.0,
            "budget_dollars": 50.0,
            "percent": 80.0,
            "paused": True,
            "problem": None,
        }
    ]
    path, query, headers = ledger_keys.asked[0]
    month = Month.of(datetime.now(UTC))
    assert (path, query["start_time"], query["bucket_width"]) == (COSTS, str(int(month.begin.timestamp())), "1d")
    assert headers["authorization"] == "Bearer sk-admin-1"
    assert [item[1].get("page") for item in ledger_keys.asked] == [None, "p2"]
    assert client.get(keyspace.PAUSE) == b"1"
    assert "openai: 80% used, reported by poll" in workshop.run("failover", "budget", "show").stdout
    assert "budget of openai: 80% used" in workshop.run("failover", "status").stdout


def test_openai_s_own_limit_is_taken_where_no_budget_is_set(workshop: Workshop, ledger_keys: Books) -> None:
    workshop.policy()
    ledger_keys.answers[COSTS] = lambda _: (200, openai_page(25))
    limit = {"object": "organization.spend_limit", "threshold_amount": 10000, "currency": "USD", "interval": "month"}
    ledger_keys.answers[LIMIT] = lambda _: (200, {**limit, "enforcement": {"status": "inactive"}})
    code, found, _ = poll(workshop, ledger_keys, OPENAI_ADMIN_KEY="sk-admin-1")
    assert (code, found[0]["budget_dollars"], found[0]["percent"]) == (0, 100.0, 25.0)
    del ledger_keys.answers[LIMIT]
    code, found, _ = poll(workshop, ledger_keys, OPENAI_ADMIN_KEY="sk-admin-1")
    assert (code, "OPENAI_MONTHLY_BUDGET_USD" in found[0]["problem"]) == (1, True)


def test_anthropic_s_amounts_are_cents(workshop: Workshop, ledger_keys: Books, client: redis.Redis) -> None:
    workshop.policy()
    ledger_keys.answers[REPORT] = lambda _: (200, anthropic_page("123.78912", "876.21088"))
    code, found, _ = poll(
        workshop, ledger_keys, ANTHROPIC_ADMIN_KEY="sk-ant-admin01-x", ANTHROPIC_MONTHLY_BUDGET_USD="40"
    )
    assert (code, found[0]["dollars"], found[0]["percent"], found[0]["paused"]) == (0, 10.0, 25.0, False)
    _, query, headers = ledger_keys.asked[0]
    assert (headers["x-api-key"], headers["anthropic-version"]) == ("sk-ant-admin01-x", "2023-06-01")
    assert query["starting_at"].endswith("-01T00:00:00Z")
    assert [each.percent for each in billing_alerts.known(client)] == [25.0]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, {"error": {"message": "Incorrect API key provided: sk-admin-secret"}}), "admin key"),
        ((403, {}), "admin key"),
        ((500, b"oops"), "answered 500"),
        ((200, b"<html>"), "no page of costs"),
        ((200, {"data": [{}]}), "a form that is not known"),
        (
            (200, {"data": [{"results": [{"amount": {"value": "much", "currency": "usd"}}]}]}),
            "a form that is not known",
        ),
        ((200, {"data": [{"results": [{"amount": {"value": 1, "currency": "eur"}}]}]}), "bills in eur"),
        ((200, {"data": [{"results": [{"amount": {"value": "NaN", "currency": "usd"}}]}]}), "no number"),
        ((200, {"data": [{"results": [{"amount": {"value": "1E+999999999", "currency": "usd"}}] * 2}]}), "a form that"),
    ],
)
def test_what_cannot_be_read_is_told_and_pauses_nothing(
    workshop: Workshop, ledger_keys: Books, client: redis.Redis, answer: Answer, said: str
) -> None:
    workshop.policy()
    ledger_keys.answers[COSTS] = lambda _: answer
    ledger_keys.answers[REPORT] = lambda _: (200, anthropic_page("100"))
    keys = {"OPENAI_ADMIN_KEY": "sk-admin-secret", "ANTHROPIC_ADMIN_KEY": "k"}
    budgets = {"OPENAI_MONTHLY_BUDGET_USD": "1", "ANTHROPIC_MONTHLY_BUDGET_USD": "10"}
    code, found, stderr = poll(workshop, ledger_keys, **keys, **budgets)
    assert code == 1
    assert said in found[0]["problem"]
    assert "sk-admin-secret" not in json.dumps(found) + stderr
    assert found[1]["percent"] == 10.0  # the other provider is read all the same
    assert [each.provider for each in billing_alerts.known(client)] == ["anthropic"]


def test_a_month_begins_at_midnight_utc() -> None:
    assert str(Month.of(datetime.fromisoformat("2026-12-01T01:00:00+02:00"))) == "2026-11-01T00:00:00Z"


def test_wrong_configuration_is_told(workshop: Workshop, ledger_keys: Books) -> None:
    workshop.policy()
    assert poll(workshop, ledger_keys)[0] == 2
    for amount in ("much", "0", "-1", "nan"):
        code, _, stderr = poll(workshop, ledger_keys, OPENAI_ADMIN_KEY="k", OPENAI_MONTHLY_BUDGET_USD=amount)
        assert (code, "OPENAI_MONTHLY_BUDGET_USD" in stderr) == (2, True)
    code, found, _ = poll(workshop, ledger_keys, OPENAI_ADMIN_KEY="kéy", OPENAI_MONTHLY_BUDGET_USD="5")
    assert (code, "copy it again" in found[0]["problem"]) == (1, True)
    code, found, _ = poll(workshop, ledger_keys, OPENAI_ADMIN_KEY="k", OPENAI_MONTHLY_BUDGET_USD="5")
    assert (code, "404" in found[0]["problem"]) == (1, True)
