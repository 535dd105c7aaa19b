"""`failover routes` and `failover drill` as an operator and a reviewer use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from ops.reports.route_diff import compare
from producer import Producer
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.workshop import Workshop
from worker.errors.classify import Reply, classify
from worker.routes.schema import RouteMap

OPENAI = "https://api.openai.com/v1"


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def a_map(**sections: Any) -> RouteMap:
    return RouteMap.model_validate(sections)


def entry(name: str, **fields: Any) -> dict[str, Any]:
    return {"provider": name, "model": "m", "baseUrl": f"https://{name}.example.com/v1", **fields}


def test_a_diff_tells_a_reviewer_what_changes_for_jobs() -> None:
    before = a_map(
        hot=[entry("a"), entry("b"), entry("c")], warm=[entry("d", capabilities=["tools", "vision"]), entry("e")]
    )
    after = a_map(
        hot=[
            entry("b", timeoutSeconds=20, enabled=False),
            entry("a", streamTimeoutSeconds=2),
            entry("d", capabilities=["tools"]),
        ],
        warm=[entry("e", baseUrl=OPENAI), entry("f", canary=5, apiKeyEnv="")],
        breaker={"failures": 3},
    )
    told = [change.told for change in compare(before, after)]
    assert told == [
        "+ f/m (warm): f m at https://f.example.com/v1, no key, for 5% of the jobs",
        "- c/m (hot) is removed",
        "d/m moves from warm to hot",
        "hot: order b/m, a/m; before: a/m, b/m",
        "~ b/m: timeoutSeconds 60 -> 20",
        "~ b/m: enabled True -> False (no job uses it)",
        "~ a/m: streamTimeoutSeconds unset -> 2 (answers are streamed now)",
        "~ d/m: capabilities [tools, vision] -> [tools] (jobs that need vision do not use it)",
        f"~ e/m: baseUrl https://e.example.com/v1 -> {OPENAI} (another host: it may accept other parameters)",
        "~ breaker.failures 5 -> 3",
    ]
    assert compare(after, after) == []


def test_diff_exits_as_a_pipeline_expects(workshop: Workshop) -> None:
    written(workshop.folder, "a.json", json.dumps({"hot": [entry("a")]}))
    written(workshop.folder, "b.json", json.dumps({"hot": [entry("b")]}))
    written(workshop.folder, "bad.json", '{"hot": [{}]}')
    assert workshop.run("failover", "routes", "diff", "a.json", "a.json").returncode == 0
    changed = workshop.run("failover", "routes", "diff", "a.json", "b.json")
    assert (changed.returncode, changed.stdout.splitlines()[0]) == (1, "jobs start at b/m; before: a/m")
    assert (
        json.loads(workshop.run("failover", "routes", "diff", "a.json", "b.json", "--json").stdout)[0]["kind"]
        == "order"
    )
    assert workshop.run("failover", "routes", "diff", "a.json", "bad.json").returncode == 2


def test_the_maps_that_come_along_can_be_read_and_compared(workshop: Workshop) -> None:
    checkout = Path(__file__).parent.parent
    local, prod = str(checkout / "routes.local.json"), str(checkout / "routes.prod.json")
    ended = workshop.run("failover", "routes", "diff", local, prod)
    assert (ended.returncode, "jobs start at anthropic/claude-sonnet-5-5" in ended.stdout) == (1, True)


def test_show_tells_what_is_known_of_each_route_and_explains_a_plan(workshop: Workshop, producer: Producer) -> None:
    workshop.policy()
    workshop.routes(
        hot=[
            {"upstream": "a", "price": {"input": 1, "output": 2}, "apiKeyEnv": "A_KEY"},
            {"upstream": "gone", "apiKeyEnv": "NOT_SET"},
        ],
        warm=[{"upstream": "b", "contextWindow": 50}],
    )
    folder = Path(workshop.environment["POLICIES_DIR"])
    (folder / "routing.yaml").write_text("version: 1\njob_types: {batch: {max_cost_usd: 0.01, order: cost}}\n")
    keys = {"A_KEY": "sk-1,sk-2"}
    shown = workshop.run("failover", "routes", "show", **keys)
    assert "environment A_KEY#1, environment A_KEY#2" in shown.stdout and "sk-1" not in shown.stdout
    assert "gone/gone-1: left out: NOT_SET is not set" in shown.stdout
    rows = json.loads(workshop.run("failover", "routes", "show", "--json", **keys).stdout)
    assert [(row["route"], row["breaker"]) for row in rows] == [
        ("a/a-1", "closed"),
        ("b/b-1", "closed"),
        ("gone/gone-1", None),
    ]
    told = workshop.run(
        "failover", "routes", "show", "--explain", "--job-type", "batch", "--prompt", "word " * 100, **keys
    )
    assert "1. a/a-1 (hot): about $0.00" in told.stdout
    assert "b/b-1 (warm) context_window: about" in told.stdout
    workshop.run("failover", "routes", "disable", "a/a-1", **keys)
    found = json.loads(workshop.run("failover", "routes", "show", "--explain", "--json", **keys).stdout)
    assert "disabled: route a/a-1" in found["candidates"][0]["now"]
    unknown = workshop.run("failover", "routes", "show", "--explain", "--job-type", "typo", **keys)
    assert unknown.returncode == 2


def test_check_live_finds_a_route_that_ignores_what_it_is_told(workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "hot"}], warm=[{"upstream": "a", "api": "anthropic"}, {"upstream": "b"}])
    offline = workshop.run("failover", "routes", "check")
    assert (offline.returncode, workshop.providers.account("b")["asked"]) == (0, 0)
    good = workshop.run("failover", "routes", "check", "--live")
    assert good.returncode == 0, good.stdout
    assert "ok    a/a-1 tools: as requested" in good.stdout and "ok    a/a-1 json_schema" in good.stdout
    assert workshop.providers.account("hot")["asked"] == 0
    workshop.providers.behave("b", ignores=["response_format", "tools"])
    bad = workshop.run("failover", "routes", "check", "--live", "--json")
    assert bad.returncode == 1
    failed = {f["about"]: f["told"] for f in json.loads(bad.stdout) if f["level"] == "fail"}
    assert "without the required tool call" in failed["tools"] and "capabilities" in failed["json_schema"]
    assert workshop.run("failover", "routes", "check", "--route", "nope").returncode == 2


def test_the_golden_path_drill_prints_its_decision(workshop: Workshop) -> None:
    ended = workshop.run("failover", "drill", "golden-path", REDIS_URL="")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "failed: timeout" in ended.stdout and "passed: one failover, within the budget" in ended.stdout
    decision = json.loads(ended.stdout.partition("decision recorded: ")[2].splitlines()[0])
    assert (decision["chosen"], decision["failover_hops"]) == ("anthropic/claude-haiku-4-5", 1)
    assert [c["code"] for c in decision["candidates"] if not c["kept"]] == ["over_cost"]
    assert 0 < decision["cost_usd"] <= 0.0035


def test_the_log_tells_each_jobs_cost(workshop: Workshop, producer: Producer) -> None:
    workshop.routes(hot=[{"upstream": "a", "price": {"input": 1, "output": 2}}])
    worker = workshop.worker()
    producer.enqueue(chat())
    (event,) = until(lambda: workshop.events(worker, "done"), "it is done")
    assert event["cost_usd"] > 0 and event["delta_usd"] == 0 and event["hops"] == 0


def test_what_a_provider_sent_becomes_a_fixture_of_the_tests(workshop: Workshop, tmp_path: Path) -> None:
    workshop.routes(warm=[{"upstream": "a", "apiKeyEnv": "A_KEY"}])
    workshop.providers.behave("a", status=400, error={"message": "quota exceeded for sk-live-1234567890abcdef"})
    folder = tmp_path / "recorded"
    checked = workshop.run(
        "failover", "routes", "check", "--live", "--record", str(folder), A_KEY="sk-live-1234567890abcdef"
    )
    assert checked.returncode == 1
    (path,) = folder.glob("*.yaml")
    assert "sk-live" not in path.read_text() and path.name == "a-a-1.yaml"
    rows = yaml.safe_load(path.read_text())
    assert [row["about"] for row in rows] == ["tools", "json_schema"]
    for row in rows:
        failure = classify(Reply(row["status"], row["headers"], row["body"]), 0.0)
        assert failure is not None and failure.code == row["means"]["code"] == "quota"
    assert workshop.run("failover", "routes", "check", "--record", str(folder)).returncode == 2
