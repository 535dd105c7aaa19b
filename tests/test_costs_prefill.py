"""`failover costs sheet` as a user types it: what its inputs are filled with."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import redis
from click.testing import CliRunner

from ops.commands.costs.sheet import sheet
from producer.environment import Environment
from producer.errors import ConfigurationError, InvalidJob, UsageError
from tests.support.past import Ended, write
from tests.support.workshop import Workshop

DAY_MS = 86_400_000


def planned(environment: Environment, *options: str) -> dict[str, Any]:
    result = CliRunner().invoke(sheet, ["--json", *options], obj=environment)
    if result.exception is not None:
        raise result.exception
    data: dict[str, Any] = json.loads(result.stdout)
    return data


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def a_map(folder: Path, *hot: dict[str, Any], **others: Any) -> Environment:
    """The environment of a routing map whose routes need no key."""
    entries = [{"baseUrl": "http://localhost:1/v1", "apiKeyEnv": "", **entry} for entry in hot]
    (folder / "routes.json").write_text(json.dumps({"hot": entries, **others}))
    return {"ROUTES_FILE": str(folder / "routes.json")}


def test_without_redis_and_keys_every_route_is_planned_with_named_assumptions(elsewhere: Path) -> None:
    data = planned({})
    assert [each["route"] for each in data["routes"]] == [
        "anthropic/sonnet-4.6",
        "anthropic/haiku-4.5",
        "openai/gpt-4o-mini",
        "google/gemini-3-flash",
    ]
    assert "none can be used yet" in data["routes_from"]
    assert data["inputs"]["requests"] == {
        "value": 10_000,
        "unit": "requests",
        "origin": "assumption",
        "source": "no traffic was measured",
    }
    assert data["inputs"]["deadline_seconds"]["value"] == 120
    assert "`price`" in data["routes"][0]["inputs"]["input_price"]["source"]
    assert list(elsewhere.iterdir()) == []


def test_prices_retries_and_the_deadline_are_those_of_the_files(elsewhere: Path) -> None:
    price = {"input": 2, "output": 8}
    environment = a_map(
        elsewhere,
        {"provider": "openai", "model": "gpt-4o-mini", "retries": 3},
        {"provider": "a", "model": "a-1", "price": price, "canary": 5},
        {"provider": "a", "model": "a-2", "price": price, "retries": 3},
        {"provider": "a", "model": "off", "enabled": False},
    )
    data = planned(environment, "--job-type", "rag_answer")
    listed, own = (each["inputs"] for each in data["routes"])
    assert (listed["input_price"]["value"], listed["input_price"]["origin"]) == (0.15, "configured")
    assert "genai-prices" in listed["input_price"]["source"]
    assert (own["output_price"]["value"], own["output_price"]["source"]) == (8, "`price` of the route")
    assert (listed["retries"]["value"], own["retries"]["value"]) == (1, 3)  # of the last one all are made
    assert "`retries` is 3" in listed["retries"]["source"]
    assert data["inputs"]["deadline_seconds"]["value"] == 30


def test_a_wrong_file_an_unknown_type_and_an_empty_map_are_reported(elsewhere: Path) -> None:
    with pytest.raises(InvalidJob, match="is not in policies"):
        planned({}, "--job-type", "essay")
    with pytest.raises(ConfigurationError, match="no route can be used"):
        planned(a_map(elsewhere))
    (elsewhere / "routes.json").write_text("{")
    with pytest.raises(ConfigurationError, match="is not JSON"):
        planned({})


def test_the_file_is_not_overwritten_and_a_missing_library_is_named(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def typed(*options: str) -> str:
        result = CliRunner().invoke(sheet, options, obj={})
        if isinstance(result.exception, UsageError):
            return str(result.exception)
        assert result.exit_code == 0, result.exception
        return result.output

    assert typed() == "give -o costs.xlsx, or --json"
    assert typed("-o", "costs.csv") == "-o costs.csv: give a name that ends with .xlsx"
    assert "written: costs.xlsx (0 values measured, 9 configured, 29 assumptions" in typed("-o", "costs.xlsx")
    assert "--force overwrites it" in typed("-o", "costs.xlsx")
    assert "written: costs.xlsx" in typed("-o", "costs.xlsx", "--force")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert "pip install 'failover-worker[sheet]'" in typed("-o", "other.xlsx")


def test_measured_traffic_of_the_last_thirty_days_fills_the_sheet(workshop: Workshop, client: redis.Redis) -> None:
    workshop.routes(hot=[{"upstream": "a", "name": "a/a-1"}], warm=[{"upstream": "b", "name": "b/b-1"}])
    workshop.policy()
    now = int(time.time() * 1000)
    jobs = [
        Ended(
            now - 2 * DAY_MS + n * 1000,
            route="a/a-1",
            answer_ms=3000 if n % 10 == 0 else 500,
            failed=(("a/a-1", "http_500"),) if n % 5 == 0 else (),
            flags=("cached",) if n % 4 == 0 else (),
        )
        for n in range(1000)
    ]
    write(client, workshop.url, jobs)
    done = workshop.run("failover", "costs", "sheet", "--json", "-o", "costs.xlsx")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    requests, (first, second) = data["inputs"]["requests"], (each["inputs"] for each in data["routes"])
    assert requests["origin"] == "measured" and "750 in 2.0 days" in requests["source"]
    assert requests["value"] == pytest.approx(750 * 15, rel=0.03)  # the history is read by hours
    assert (data["inputs"]["tokens_in"]["value"], data["inputs"]["tokens_out"]["value"]) == (10, 5)
    assert first["failure_rate"]["value"] == pytest.approx(201 / 1202)
    assert first["failure_rate"]["source"].startswith("200 of 1,200 calls failed")
    assert first["p50_seconds"]["value"] == pytest.approx(0.5, rel=0.03)
    assert first["p95_seconds"]["value"] == pytest.approx(3, rel=0.03)
    assert second["failure_rate"]["origin"] == "assumption"
    book = openpyxl.load_workbook(workshop.folder / "costs.xlsx")
    assert book["Plan"]["B24"].value == requests["value"]
    assert "measured: 750 in 2.0 days" in book["Plan"]["B24"].comment.text


def test_names_are_written_without_control_characters(elsewhere: Path) -> None:
    environment = a_map(elsewhere, {"provider": "a", "model": "m\u0007\u001b[31m"})
    result = CliRunner().invoke(sheet, ["-o", "costs.xlsx"], obj=environment)
    assert result.exit_code == 0, result.exception
    names = [cell.value for cell in openpyxl.load_workbook("costs.xlsx")["Plan"]["A"]]
    assert "a/m\\u0007\\u001b[31m" in names
