"""`failover routes check`: addresses that cannot be right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ops.importers.litellm.prefixes import prefixes
from ops.reports.route_address import address_problem
from tests.support.workshop import Workshop
from worker.routes.route import Route
from worker.routes.schema import RouteEntry


def problem(base_url: str, **fields: Any) -> str | None:
    entry = RouteEntry(provider="p", model="m", base_url=base_url, **fields)
    return address_problem(Route("p/m", "hot", entry, base_url.rstrip("/")))


@pytest.mark.parametrize(
    ("base_url", "said"),
    [
        ("https://api.openai.com/v1/chat/completions", "ends with /chat/completions, which is added"),
        ("https://gateway.example.com/v1/responses/", "ends with /responses"),
        ("https://api.openai.com/v1/messages", "ends with /messages"),
        ("https://api.openai.com", "has no path: openai answers at https://api.openai.com/v1"),
        ("https://openrouter.ai", "openrouter answers at https://openrouter.ai/api/v1"),
        ("https://h/v1/v1", "has /v1 twice"),
        ("https://r.openai.azure.com", "Azure answers at https://r.openai.azure.com/openai/v1, with the deployment"),
        ("https://r.openai.azure.com/openai/deployments/d", "Azure answers at https://r.openai.azure.com/openai/v1"),
        ("https://r.services.ai.azure.com/models", "ends with /models"),
        ("https://r.services.ai.azure.com/anthropic", "set `api` to anthropic"),
        ("https://r.openai.azure.com/openai/v1?api-version=preview", "has a query"),
        (
            "https://generativelanguage.googleapis.com/v1beta",
            "use https://generativelanguage.googleapis.com/v1beta/openai",
        ),
        ("https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l", "/endpoints/openapi"),
        ("https://api.minimax.io/anthropic", "set `api` to anthropic"),
        ("http://localhost:11434", "is Ollama's own API: use http://localhost:11434/v1"),
        ("http://ollama:11434/api", "use http://ollama:11434/v1"),
    ],
)
def test_an_address_that_cannot_be_right_is_named_with_the_fix(base_url: str, said: str) -> None:
    assert said in (problem(base_url) or "")


@pytest.mark.parametrize(
    ("base_url", "said"),
    [
        ("https://api.anthropic.com/v1/messages", "ends with /messages"),
        ("https://api.anthropic.com/v1/v1", "has /v1 twice"),
        ("https://api.openai.com/v1", "is OpenAI's"),
    ],
)
def test_so_is_one_of_the_anthropic_dialect(base_url: str, said: str) -> None:
    assert said in (problem(base_url, api="anthropic") or "")


def test_good_addresses_have_no_problem() -> None:
    known = [row for row in prefixes().values() if row.address and "$" not in row.address]
    assert not [(row.name, why) for row in known if row.address and (why := problem(row.address, api=row.api))]
    for url in (
        "https://api.anthropic.com",
        "https://r.services.ai.azure.com/anthropic",
        "http://127.0.0.1:8000/anything",
    ):
        assert problem(url, api="anthropic") is None
    for url in (
        "http://vllm:8000/v1",
        "http://gateway",
        "https://r.openai.azure.com/openai/v1",
        "https://api.deepseek.com",
    ):
        assert problem(url) is None


def test_check_warns_of_an_address_and_of_a_404(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a"}, {"upstream": "b"}])
    path = workshop.folder / "routes.json"
    routes = json.loads(path.read_text())
    routes["hot"][0]["baseUrl"] += "/chat/completions"
    path.write_text(json.dumps(routes))
    ended = workshop.run("failover", "routes", "check")
    assert ended.returncode == 0, ended.stdout
    told = ended.stdout.splitlines()
    assert any(line.startswith("warn  a/a-1 address: ") and "remove it" in line for line in told)
    assert any(line.startswith("warn  a/a-1 models: no models (404)") and "baseUrl is wrong" in line for line in told)
    assert not any("b/b-1 address" in line for line in told)
