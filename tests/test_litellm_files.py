"""`failover routes import` as people use it: files of several forms, the report, the files that it writes, and a worker that
answers by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.importers import job_types
from ops.importers.litellm import imported
from producer import Producer
from producer.errors import ConfigurationError
from tests.support.jobs import chat
from tests.support.workshop import Workshop
from worker.configuration import Configuration
from worker.routes.route import read_routes
from worker.routes.schema import read_map

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

ONE = "model_list: [{model_name: a, litellm_params: {model: gpt-4o, api_key: os.environ/K}}]\n"


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def indented(text: str, by: int) -> str:
    return "".join(f"{' ' * by}{line}\n" for line in text.splitlines())


FORMS = {
    "plain": ONE,
    "BOM": "\ufeff" + ONE,
    "Helm's values": f"image: x\nproxy_config:\n{indented(ONE, 2)}",
    "a subchart": f"litellm-helm:\n  proxy_config:\n{indented(ONE, 4)}",
    "a ConfigMap": f"apiVersion: v1\nkind: ConfigMap\ndata:\n  config.yaml: |\n{indented(ONE, 4)}",
    "several documents": f"kind: Secret\n---\nkind: ConfigMap\ndata:\n  config.yaml: |\n{indented(ONE, 4)}",
    "the list alone": "- {model_name: a, litellm_params: {model: gpt-4o, api_key: os.environ/K}}\n",
    "the proxy's /model/info": json.dumps(
        {"data": [{"model_name": "a", "litellm_params": {"model": "gpt-4o", "api_key": "os.environ/K"}}]}
    ),
    "helmfile": "values:\n  - proxy_config:\n" + indented(ONE.replace("os.environ/K", '{{ env "K" }}'), 6),
    "a template": ONE.replace("os.environ/K", "{{K}}"),
    "a section twice": f"litellm_settings: {{request_timeout: 5}}\n{ONE}litellm_settings: {{request_timeout: 30}}\n",
    "sections that are null": f"{ONE}litellm_settings:\nrouter_settings:\ngeneral_settings:\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_config_is_found_in_the_forms_that_people_have(form: str, tmp_path: Path) -> None:
    found = imported(written(tmp_path, "config.yaml", FORMS[form]))
    (route,) = found.routes["hot"]
    assert (route["model"], route["apiKeyEnv"]) == ("gpt-4o", "K")
    if form == "a section twice":
        assert route["timeoutSeconds"] == 30
        assert "litellm_settings: is in the file twice (lines 1 and 3): LiteLLM reads the last" in str(found.report)


def test_includes_are_followed_as_litellm_does(tmp_path: Path) -> None:
    main = written(tmp_path, "main.yaml", f"include: [more/models.yaml, settings.yaml]\n{ONE}")
    written(tmp_path, "more/models.yaml", f"include: [../main.yaml]\n{ONE.replace('model_name: a', 'model_name: b')}")
    written(tmp_path, "settings.yaml", "litellm_settings: {num_retries: 1}\n")
    found = imported(main)
    assert [route["retries"] for route in found.routes["hot"]] == [1, 1]
    assert list(found.job_types) == ["a", "b"]
    alone = written(tmp_path, "alone.yaml", "include: [main.yaml]\n")
    assert list(imported(alone).job_types) == ["a", "b"]
    with pytest.raises(ConfigurationError, match=r"gone\.yaml: cannot be read: No such file"):
        imported(written(tmp_path, "bad.yaml", "include: [gone.yaml]\n"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model_list: []", "model_list: is empty, so it routes nothing"),
        ("model_list:\n", "model_list: is empty, so it routes nothing"),
        ("model_list: []\ngeneral_settings: {store_model_in_db: true}", "its models are in LiteLLM's database"),
        ("general_settings: {store_model_in_db: true}", "curl -H 'Authorization: Bearer KEY' PROXY/model/info"),
        ("litellm_settings: {drop_params: true}", "model_list: is missing: the file has only settings"),
        ("services: {web: {image: x}}", "model_list: is missing: is it a LiteLLM config?"),
        ("", "is it a LiteLLM config?"),
        ("model_list: {a: 1}", "model_list: is not a list"),
        ("model_list: [{model_name: x}]", "entry 1 has no litellm_params"),
        ("a: [", "is not YAML"),
        (
            "a: &a [x]\n"
            + "".join(
                f"b{n}: &b{n} [*{'a' if n == 0 else f'b{n - 1}'}, *{'a' if n == 0 else f'b{n - 1}'}]\n"
                for n in range(30)
            ),
            "values or more",
        ),
    ],
)
def test_what_is_no_config_is_named_for_what_it_is(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        imported(written(tmp_path, "c.yaml", text))
    assert said in str(refused.value)


LEFTOVERS = """
model_list:
  - model_name: a
    litellm_params: {model: bedrock/claude, aws_region_name: eu-west-1}
  - model_name: a
    litellm_params: {model: gemini/gemini-2.5-flash, api_key: sk-in-the-file, rpm: 60, tpm: 90000, tags: [x], temperature: 1}
    model_info: {max_input_tokens: 1000000, input_cost_per_token: 3.0e-07, output_cost_per_token: 2.5e-06, base_model: y}
  - model_name: b
    litellm_params: {model: azure/d, api_base: "https://r.openai.azure.com", api_version: x, supports_vision: true}
router_settings: {routing_strategy: latency-based-routing, num_retries: 1, enable_pre_call_checks: true, redis_host: x}
litellm_settings: {drop_params: true, success_callback: [langfuse], cache: true, odd: null}
general_settings: {master_key: sk-1234, database_url: null, alerting: [slack]}
environment_variables: {SECRET: sk-more}
callbacks: [langfuse]
"""


def test_the_report_says_what_was_taken_approximated_and_left_out(tmp_path: Path) -> None:
    found = imported(written(tmp_path, "c.yaml", LEFTOVERS))
    google, _ = found.routes["hot"]
    assert (google["rpm"], google["tpm"], google["retries"], google["contextWindow"]) == (60, 90000, 1, 1000000)
    assert google["price"] == {"input": 0.3, "output": 2.5}
    assert "sk-" not in json.dumps(found.routes) + str(found.report)
    told = found.report.sections()
    for section, said in (
        (
            "taken",
            "a: google/gemini-2.5-flash at https://generativelanguage.googleapis.com/v1beta/openai, key MODEL_LIST",
        ),
        ("taken", "rpm 60 and tpm 90000 held by all workers together"),
        ("taken", "job type b: azure/d"),
        ("taken", "latency-based-routing is `order: latency`"),
        ("taken", "router_settings.enable_pre_call_checks, litellm_settings.drop_params: is always on here"),
        (
            "approximated",
            "entry 2 (a): its api_key is in the file itself and is not copied: put it into MODEL_LIST_ENTRY_2_KEY",
        ),
        ("approximated", "entry 3 (b): api_version is not sent: Azure's /openai/v1 needs none"),
        ("left_out", "entry 1 (a): bedrock has no counterpart: its calls are signed"),
        ("left_out", "entry 2 (a): tags has no counterpart: pin job types"),
        ("left_out", "entry 2 (a): temperature is no part of a route: put it into the body of the jobs"),
        ("left_out", "entry 2 (a): model_info.base_model has no counterpart"),
        ("left_out", "entry 3 (b): supports_vision: set capabilities on the route"),
        (
            "left_out",
            "litellm_settings.success_callback: langfuse is not copied: the extra `otel` sends each job's trace to Langfuse",
        ),
        ("left_out", "litellm_settings.cache: is not copied: set ttl_seconds in policies/cache.yaml"),
        ("left_out", "general_settings.master_key: is not copied: FAILOVER_API_TOKEN"),
        ("left_out", "general_settings.alerting: is not copied: set SLACK_WEBHOOK_URL"),
        ("left_out", "environment_variables: put SECRET into the environment or .env"),
        ("left_out", "callbacks: is not copied: hooks see each attempt"),
    ):
        assert any(said in line for line in told[section]), said
    assert "odd" not in str(found.report) and "database_url" not in str(found.report)


def test_what_is_switched_off_or_traced_elsewhere_is_said_by_name(tmp_path: Path) -> None:
    settings = "{ssl_verify: false, cache: false, callbacks: [prometheus, sentry], telemetry: false}"
    told = str(imported(written(tmp_path, "c.yaml", f"{KIT}litellm_settings: {settings}\n")).report)
    assert "litellm_settings.ssl_verify: is not copied: certificates are always checked" in told
    assert "litellm_settings.callbacks: prometheus is not copied: GET /metrics" in told
    assert "litellm_settings.callbacks: sentry is not copied: hooks see" in told
    assert "cache" not in told and "telemetry" not in told


def test_an_alias_without_a_route_is_answered_by_its_fallbacks(tmp_path: Path) -> None:
    config = """
model_list:
  - {model_name: claude, litellm_params: {model: bedrock/anthropic.claude-3}}
  - {model_name: smart, litellm_params: {model: openai/gpt-4o, api_key: os.environ/A}}
litellm_settings: {fallbacks: [{claude: [smart]}]}
"""
    found = imported(written(tmp_path, "c.yaml", config))
    assert {name: each.pin for name, each in found.job_types.items()} == {
        "claude": ["openai/gpt-4o"],
        "smart": ["openai/gpt-4o"],
    }
    assert "entry 1 (claude): bedrock has no counterpart" in str(found.report)


def test_fallbacks_for_some_failures_are_approximated(tmp_path: Path) -> None:
    config = """
model_list:
  - {model_name: a, litellm_params: {model: openai/gpt-4o, api_key: os.environ/A}}
  - {model_name: b, litellm_params: {model: openai/gpt-4o-mini, api_key: os.environ/A}}
litellm_settings: {content_policy_fallbacks: [{a: [b]}]}
"""
    told = imported(written(tmp_path, "c.yaml", config)).report.sections()["approximated"]
    assert any("a: its fallbacks are for one kind of failure" in line for line in told)


def test_a_placeholder_of_the_kit_becomes_a_variable(tmp_path: Path) -> None:
    found = imported(written(tmp_path, "kit.yaml", KIT.replace("anthropic/claude-haiku-4-5", "[PROVIDER_A_MODEL_ID]")))
    assert "set PROVIDER_A_MODEL_ID to the model's id" in str(found.report)
    path = written(tmp_path, "routes.json", json.dumps(found.routes))
    environment = {
        "PROVIDER_A_MODEL_ID": "x-1",
        "PROVIDER_A_KEY": "k",
        "PROVIDER_A_API_BASE": "https://a.example.com/v1/",
    }
    (route,) = read_routes(path, environment).routes
    assert (route.model, route.base_url) == ("x-1", "https://a.example.com/v1")


def test_the_kits_config_answers_by_its_alias(workshop: Workshop, producer: Producer) -> None:
    written(workshop.folder, "litellm_config.yaml", KIT)
    ended = workshop.run("failover", "routes", "import", "litellm_config.yaml", "-o", "routes.json")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines()[-2:] == [
        "2 routes -> routes.json, 1 job type -> policies/. Next:",
        "  failover routes check",
    ]
    found = read_map(workshop.folder / "routes.json")
    assert (found.breaker.failures, found.breaker.cooldown_seconds) == (4, 30)
    assert [(e.timeout_seconds, e.stream_timeout_seconds, e.weight) for e in (*found.hot, *found.warm)] == [
        (30, 2, 9),
        (30, 2, 1),
    ]
    bases = {f"PROVIDER_{p.upper()}_API_BASE": workshop.providers.base_url(p) for p in ("a", "b")}
    workshop.worker(PROVIDER_A_KEY="sk-a", PROVIDER_B_KEY="sk-b", **bases)
    workshop.providers.behave("a", keys=["sk-a"])
    submit = ("failover", "submit", "--job-type", "app/chat", "--prompt", "Hi", "--wait", "30", "--json")
    hot = json.loads(workshop.run(*submit).stdout)
    assert (hot["route"], hot["provider"]) == ("anthropic/claude-haiku-4-5", "anthropic")
    workshop.providers.behave("a", status=529)
    assert producer.wait(producer.enqueue(chat()), 30).route == "openai/gpt-4o-mini"


def test_import_writes_what_a_worker_loads_and_the_next_import_replaces_it(workshop: Workshop) -> None:
    written(workshop.folder, "c.yaml", f"{ONE}router_settings: {{model_group_alias: {{'gpt 4': a, b: a}}}}\n")
    command = ("failover", "routes", "import", "c.yaml")
    shown = json.loads(workshop.run(*command, "--json").stdout)
    assert (shown["routes"]["hot"][0]["model"], shown["job_types"]["b"]) == ("gpt-4o", {"pin": ["openai/gpt-4o"]})
    assert not (workshop.folder / "policies").exists()
    assert workshop.run(*command, "-o", "r.json").returncode == 0
    assert workshop.run(*command, "-o", "r.json").returncode == 2
    written(workshop.folder, "c.yaml", ONE.replace("gpt-4o", "gpt-5").replace("name: a", "name: batch"))
    again = workshop.run(*command, "-o", "r.json", "--force")
    assert "1 job type -> policies/" in again.stderr
    assert "ROUTES_FILE=r.json failover routes check" in again.stderr
    environment = {
        "ROUTES_FILE": str(workshop.folder / "r.json"),
        "POLICIES_DIR": str(workshop.folder / "policies"),
        "K": "k",
    }
    loaded = Configuration.load(environment)
    assert "batch" in loaded.policies.job_types and "a" not in loaded.policies.job_types
    assert loaded.routing.of("batch").pin == ("openai/gpt-5",)


def test_an_alias_named_default_is_the_pin_of_all_other_types(tmp_path: Path) -> None:
    files: dict[str, dict[str, dict[str, Any]]]
    files = {
        "routing.yaml": {"default": {"pin": ["x/y"]}, "a": {"pin": ["x/y"]}},
        "jobs.yaml": {"default": {}, "a": {}},
    }
    assert job_types.write(tmp_path / "p", files) == []
    path = tmp_path / "p" / "routing.yaml"
    once = path.read_text()
    assert yaml.safe_load(once)["job_types"]["default"]["pin"] == ["x/y"] and "output_tokens: 1000" in once
    assert job_types.write(tmp_path / "p", files) == [] and path.read_text() == once
    job_types.write(tmp_path / "p", {"routing.yaml": {"a": {"pin": ["z"]}}})
    assert yaml.safe_load(path.read_text())["job_types"]["default"]["pin"] == []
    path.write_text("job_types: {default: {pin: [mine]}}\n")
    assert job_types.write(tmp_path / "p", files) == ["default"]
    assert yaml.safe_load(path.read_text())["job_types"]["default"]["pin"] == ["mine"]


@pytest.mark.parametrize(
    "before",
    [
        "version: 1\njob_types:\n    # mine\n    default: {order: cost}\n    x: {}\nlast: 1\n",
        '{"version": 1, "job_types": {"default": {"order": "cost"}, "x": {}}}\n',
        "version: 1\njob_types: {}\n",
        "version: 1\njob_types:\n",
        "version: 1",
    ],
)
def test_job_types_are_added_to_a_file_without_touching_the_rest(before: str) -> None:
    types: dict[str, dict[str, Any]] = {"a/b c": {"pin": ["x", ["y", "z"]]}, "n": {}, "é𝒳": {"pin": ["ü"]}}
    once = job_types.with_block("f", before, types)
    assert job_types.with_block("f", job_types.without_block(once), types) == once
    data, rest = yaml.safe_load(once), yaml.safe_load(before)
    kept = rest.pop("job_types", None) or {}
    assert data.pop("job_types") == {**types, **kept} and data == rest
    assert (yaml.safe_load(job_types.without_block(once)).get("job_types") or {}) == kept
    assert all(line in once for line in before.splitlines() if "mine" in line)
