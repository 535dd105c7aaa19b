"""`failover routes` and `failover drill` as an operator and a reviewer use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.importers.litellm import imported
from ops.reports.route_diff import compare
from producer import Producer
from producer.errors import ConfigurationError
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.workshop import Workshop
from worker.errors.classify import Reply, classify
from worker.routes.route import read_routes
from worker.routes.schema import RouteMap, read_map

OPENAI = "https://api.openai.com/v1"
KIT = """
model_list:
  - model_name: app/chat
    litellm_params:
      model: anthropic/claude-haiku-4-5
      api_key: os.environ/PROVIDER_A_KEY
      api_base: os.environ/PROVIDER_A_API_BASE
      order: 1
      timeout: 30
      stream_timeout: 2
      weight: 9
  - model_name: app/chat
    litellm_params:
      model: openai/gpt-4o-mini
      api_key: os.environ/PROVIDER_B_KEY
      api_base: os.environ/PROVIDER_B_API_BASE
      order: 2
      timeout: 30
      stream_timeout: 2
      weight: 1
router_settings:
  routing_strategy: simple-shuffle
  enable_weighted_failover: true
  allowed_fails: 3
  cooldown_time: 30
  timeout: 30
litellm_settings:
  master_key: sk-local-dev-key
  database_url: [POSTGRES_URL]
"""


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def a_map(**sections: Any) -> RouteMap:
    return RouteMap.model_validate(sections)


def entry(name: str, **fields: Any) -> dict[str, Any]:
    return {"provider": name, "model": "m", "baseUrl": f"https://{name}.example.com/v1", **fields}


def test_the_slo_kits_config_imports_to_a_map_that_answers(workshop: Workshop, producer: Producer) -> None:
    written(workshop.folder, "litellm_config.yaml", KIT)
    ended = workshop.run("failover", "routes", "import", "litellm_config.yaml", "-o", "routes.json")
    assert ended.returncode == 0, ended.stderr
    assert "litellm_settings.master_key has no counterpart" in ended.stderr
    assert "litellm_settings.database_url has no counterpart" in ended.stderr
    assert "simple-shuffle" not in ended.stderr
    found = read_map(workshop.folder / "routes.json")
    assert (found.breaker.failures, found.breaker.cooldown_seconds) == (4, 30)
    assert [(e.timeout_seconds, e.stream_timeout_seconds, e.weight) for e in (*found.hot, *found.warm)] == [
        (30, 2, 9),
        (30, 2, 1),
    ]
    keys = {"PROVIDER_A_KEY": "sk-a", "PROVIDER_B_KEY": "sk-b"}
    bases = {f"PROVIDER_{p.upper()}_API_BASE": workshop.providers.base_url(p) for p in ("a", "b")}
    workshop.providers.behave("a", keys=["sk-a"])
    workshop.environment["ROUTES_FILE"] = str(workshop.folder / "routes.json")
    workshop.worker(**keys, **bases)
    hot = producer.wait(producer.enqueue(chat()), 30)
    assert (hot.route, hot.provider) == ("anthropic/claude-haiku-4-5", "anthropic")
    workshop.providers.behave("a", status=529)
    assert producer.wait(producer.enqueue(chat()), 30).route == "openai/gpt-4o-mini"


def test_a_placeholder_of_the_kit_becomes_a_variable(tmp_path: Path) -> None:
    kit = KIT.replace("anthropic/claude-haiku-4-5", "[PROVIDER_A_MODEL_ID]")
    found = imported(written(tmp_path, "kit.yaml", kit))
    assert any("set PROVIDER_A_MODEL_ID to the model's id" in note for note in found.notes)
    path = written(tmp_path, "routes.json", json.dumps(found.routes))
    environment = {
        "PROVIDER_A_MODEL_ID": "x-1",
        "PROVIDER_A_KEY": "k",
        "PROVIDER_A_API_BASE": "https://a.example.com/v1",
    }
    (route,) = read_routes(path, environment).routes
    assert (route.entry.provider, route.model, route.base_url) == ("provider_a", "x-1", "https://a.example.com/v1")


def test_what_has_no_counterpart_is_listed(tmp_path: Path) -> None:
    config = """
model_list:
  - model_name: a
    litellm_params: {model: bedrock/claude, aws_region_name: eu-west-1}
  - model_name: a
    litellm_params: {model: gemini/gemini-2.5-flash, api_key: sk-in-the-file, rpm: 60, tpm: 90000, tags: [x]}
    model_info: {max_input_tokens: 1000000, input_cost_per_token: 3.0e-07, output_cost_per_token: 2.5e-06, base_model: y}
  - model_name: b
    litellm_params: {model: mistral/mistral-small, api_key: os.environ/MISTRAL_API_KEY, max_retries: 9}
router_settings:
  routing_strategy: latency-based-routing
  num_retries: 1
  fallbacks: [{a: [b, gone]}]
  model_group_alias: {x: a}
general_settings: {master_key: sk-1234}
callbacks: [langfuse]
"""
    found = imported(written(tmp_path, "c.yaml", config))
    (hot,) = found.routes["hot"]
    assert (hot["provider"], hot["rpm"], hot["tpm"], hot["retries"], hot["contextWindow"]) == (
        "google",
        60,
        90000,
        1,
        1000000,
    )
    assert hot["price"] == {"input": 0.3, "output": 2.5}
    assert [(warm["provider"], warm["retries"]) for warm in found.routes["warm"]] == [("mistral", 5)]
    told = "\n".join(found.notes)
    assert "sk-in-the-file" not in told + json.dumps(found.routes)
    for said in (
        "entry 1 (a): bedrock has no counterpart",
        "entry 2 (a): its api_key is in the file itself and is not copied: put it into MODEL_LIST_ENTRY_2_KEY",
        "entry 2 (a): rpm, tpm kept in the map",
        "entry 2 (a): tags has no counterpart",
        "entry 2 (a): model_info.base_model has no counterpart",
        "entry 3 (b): 9 retries are reduced to 5",
        "fallbacks: gone is not a model_name",
        "set `order: latency` in policies/routing.yaml",
        "router_settings.model_group_alias has no counterpart",
        "general_settings.master_key has no counterpart",
        "callbacks has no counterpart",
    ):
        assert said in told, said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model_list: []", "model_list: is missing"),
        ("a: [", "is not YAML"),
        ("model_list: [{model_name: x}]", "has no litellm_params"),
        ("model_list: [{model_name: a, litellm_params: {model: vertex_ai/x}}]", "vertex_ai has no counterpart"),
    ],
)
def test_what_is_no_config_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        imported(written(tmp_path, "c.yaml", text))
    assert said in str(refused.value)


def test_several_aliases_ask_for_one(tmp_path: Path) -> None:
    two = "model_list: [{model_name: a, litellm_params: {model: openai/x}}, {model_name: b, litellm_params: {model: openai/y}}]"
    path = written(tmp_path, "c.yaml", two)
    with pytest.raises(ConfigurationError, match="choose one with --model"):
        imported(path)
    found = imported(path, "b")
    assert [route["model"] for route in found.routes["hot"]] == ["y"]
    assert "model_name a: not imported" in "\n".join(found.notes)


ODD = """
model_list:
  - model_name: chat
    litellm_params: {model: openai/no-order, api_key: os.environ/A}
  - model_name: chat
    litellm_params: {model: openai/second, api_key: os.environ/A, order: "2", timeout: os.environ/T, rpm: "60"}
  - model_name: chat
    litellm_params: {model: azure/gpt, api_base: "https://x.openai.azure.com/", api_key: [AZURE_KEY], order: 1}
  - model_name: chat
    litellm_params: {model: ollama/llama3, api_base: "http://localhost:11434", order: 1, input_cost_per_token: 1.0e-06}
  - model_name: chat
    litellm_params: {model: "openai/<MODEL>", api_base: [BASE], api_key: sk-live-literal, order: 1}
  - model_name: chat
    litellm_params: {model: "anthropic/*"}
router_settings: {fallbacks: [7], timeout: "45"}
litellm_settings: [1]
"""


def test_orders_quotes_placeholders_and_what_is_malformed(tmp_path: Path) -> None:
    found = imported(written(tmp_path, "c.yaml", ODD))
    RouteMap.model_validate(found.routes)
    hot = [(route["baseUrl"], route["apiKeyEnv"], route["timeoutSeconds"]) for route in found.routes["hot"]]
    assert hot == [
        ("https://x.openai.azure.com/openai/v1", "AZURE_KEY", 45),
        ("http://localhost:11434/v1", "", 45),
        ("${BASE}", "MODEL_LIST_ENTRY_5_KEY", 45),
    ]
    assert [(route["model"], route.get("rpm")) for route in found.routes["warm"]] == [
        ("second", 60),
        ("no-order", None),
    ]
    told = "\n".join(found.notes)
    for said in (
        "'os.environ/T' is not a number",
        "both the input",
        "<MODEL> looks like a placeholder",
        "anthropic/* is not a single model",
    ):
        assert said in told, said
    assert "7 is not a mapping" in told and "litellm_settings has no counterpart" in told
    assert "sk-live" not in told + json.dumps(found.routes)


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
