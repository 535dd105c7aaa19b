"""`failover routes import`: a whole LiteLLM config as a map with job types. The inputs have the shapes of public configs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.importers.litellm import Imported, imported
from producer.errors import ConfigurationError
from worker.routes.schema import RouteMap

BASE = "https://{}.example.com/v1"


def of(folder: Path, text: str, alias: str | None = None, environment: dict[str, str] | None = None) -> Imported:
    path = folder / "config.yaml"
    path.write_text(text)
    found = imported(path, alias, environment)
    RouteMap.model_validate(found.routes)
    return found


def models(*aliases: str, **params: Any) -> str:
    """A model_list of these aliases, each with one route of the same name; `a=2`: of two."""
    listed = [(name, name) for name in aliases] + [
        (name, f"{name}{n}") for name, count in params.items() for n in range(count)
    ]
    entries = [
        {
            "model_name": alias,
            "litellm_params": {"model": f"openai/{model}", "api_base": BASE.format(model), "timeout": 9},
        }
        for alias, model in listed
    ]
    return yaml.safe_dump({"model_list": entries})


def tiers(found: Imported) -> tuple[list[str], list[str]]:
    hot, warm = ([route["model"] for route in found.routes.get(tier, ())] for tier in ("hot", "warm"))
    return hot, warm


def pins(found: Imported) -> dict[str, Any]:
    return json.loads(json.dumps({name: each.pin for name, each in found.job_types.items()}).replace("openai/", ""))  # type: ignore[no-any-return]


def weights(found: Imported) -> list[Any]:
    return [route.get("weight") for tier in ("hot", "warm") for route in found.routes.get(tier, ())]


FALLBACKS = [
    ("fallbacks: [{a: [b]}]", {"a": ["a", "b"], "b": ["b"], "c": ["c"]}),
    ("fallbacks: {a: b}", {"a": ["a", "b"], "b": ["b"], "c": ["c"]}),
    ("fallbacks: [{a: [b]}, {b: [c]}]", {"a": ["a", "b", "c"], "b": ["b", "c"], "c": ["c"]}),
    ("fallbacks: [{a: [b], b: [c]}]", {"a": ["a", "b", "c"], "b": ["b", "c"], "c": ["c"]}),
    ("fallbacks: [{a: [b]}, {b: [a]}]", {"a": ["a", "b"], "b": ["b", "a"], "c": ["c"]}),
    ('fallbacks: [{"*": [b]}]', {"a": ["a", "b"], "b": ["b"], "c": ["c", "b"]}),
    ('fallbacks: [{a: [c]}, {"*": [b]}]', {"a": ["a", "c", "b"], "b": ["b"], "c": ["c", "b"]}),
    ('fallbacks: ["b"]', {"a": ["a", "b"], "b": ["b"], "c": ["c", "b"]}),
    ("fallbacks: b", {"a": ["a", "b"], "b": ["b"], "c": ["c", "b"]}),
    ("default_fallbacks: [b]", {"a": ["a", "b"], "b": ["b"], "c": ["c", "b"]}),
    ("default_fallbacks: b", {"a": ["a", "b"], "b": ["b"], "c": ["c", "b"]}),
    ("fallbacks: [{openai/a: [b]}]", {"a": ["a", "b"], "b": ["b"], "c": ["c"]}),
    ("fallbacks: [{a: [{model: b, max_tokens: 5}]}]", {"a": ["a", "b"], "b": ["b"], "c": ["c"]}),
    ("context_window_fallbacks: [{a: [b]}]", {"a": ["a", "b"], "b": ["b"], "c": ["c"]}),
    ("content_policy_fallbacks: [{a: [b]}]", {"a": ["a", "b"], "b": ["b"], "c": ["c"]}),
    ("fallbacks: null", {"a": ["a"], "b": ["b"], "c": ["c"]}),
    ("fallbacks: []", {"a": ["a"], "b": ["b"], "c": ["c"]}),
    ("num_retries: 1", {"a": ["a"], "b": ["b"], "c": ["c"]}),
]


@pytest.mark.parametrize("section", ["router_settings", "litellm_settings"])
@pytest.mark.parametrize(("line", "expected"), FALLBACKS, ids=lambda each: str(each)[:40])
def test_each_alias_is_a_job_type_with_its_fallbacks(
    section: str, line: str, expected: dict[str, list[str]], tmp_path: Path
) -> None:
    found = of(tmp_path, f"{models('a', 'b', 'c')}{section}: {{{line}}}\n")
    assert pins(found) == expected
    followed = [name for name in "abc" if any(name in pin[1:] for pin in expected.values())]
    hot, warm = tiers(found)
    assert sorted(hot + warm) == ["a", "b", "c"]
    assert hot[0] == "a" and (set(warm) <= set(followed))
    assert not found.report.left_out


def test_model_narrows_to_one_alias_and_its_fallbacks(tmp_path: Path) -> None:
    text = f"{models('a', 'b', 'c', 'd')}litellm_settings: {{fallbacks: [{{c: [b]}}]}}\n"
    assert tiers(of(tmp_path, text)) == (["a", "c", "d"], ["b"])
    found = of(tmp_path, text, "c")
    assert (tiers(found), pins(found)) == ((["c"], ["b"]), {"c": ["c", "b"]})
    with pytest.raises(ConfigurationError, match="no model_name is 'x'; the file has a, b, c, d"):
        of(tmp_path, text, "x")


def test_the_fallbacks_of_one_deployment_are_warm_routes_of_its_alias(tmp_path: Path) -> None:
    own = "fallbacks: [{model: mistral/m, api_key: os.environ/M}, groq/l]"
    found = of(tmp_path, f"model_list: [{{model_name: a, litellm_params: {{model: gpt-4o, {own}}}}}]\n")
    assert tiers(found) == (["gpt-4o"], ["m", "l"])
    assert pins(found) == {"a": ["gpt-4o", "mistral/m", "groq/l"]}
    assert [route["apiKeyEnv"] for route in found.routes["warm"]] == ["M", "GROQ_API_KEY"]


def test_a_fallback_that_is_no_alias_is_said(tmp_path: Path) -> None:
    found = of(tmp_path, f"{models('a')}router_settings: {{fallbacks: [{{a: [gone]}}, 7]}}\nfallbacks: [{{a: [a]}}]\n")
    told = str(found.report)
    assert "fallbacks: gone is not a model_name of the file: add it to model_list" in told
    assert "router_settings.fallbacks: 7 is not a mapping" in told
    assert "fallbacks: LiteLLM does not read it there: move it to router_settings" in told


def test_fallbacks_of_router_settings_hide_those_of_litellm_settings_by_kind(tmp_path: Path) -> None:
    both = (
        "router_settings: {fallbacks: [{a: [b]}]}\nlitellm_settings: {fallbacks: [{a: [c]}], default_fallbacks: [c]}\n"
    )
    found = of(tmp_path, models("a", "b", "c") + both)
    assert pins(found) == {"a": ["a", "b", "c"], "b": ["b", "c"], "c": ["c"]}
    assert "litellm_settings.fallbacks: LiteLLM does not read it beside router_settings" in str(found.report)


WILDCARDS = """
model_list:
  - {model_name: a, litellm_params: {model: anthropic/claude-sonnet-4-5, api_key: os.environ/A}}
  - {model_name: "openai/*", litellm_params: {model: "openai/*", api_key: os.environ/B}}
  - {model_name: "openai/gpt-*", litellm_params: {model: "azure/eu-*", api_base: "https://x.openai.azure.com", api_key: os.environ/C}}
  - {model_name: "*", litellm_params: {model: "openrouter/*", api_key: os.environ/D}}
"""  # noqa: E501


@pytest.mark.parametrize(
    ("settings", "pins_by_type"),
    [
        ("fallbacks: [{a: [openai/o3]}]", {"a": ["openai/o3"], "openai/o3": []}),
        ("fallbacks: [{a: [openai/gpt-4o]}]", {"a": ["azure/eu-4o"], "openai/gpt-4o": []}),
        ("fallbacks: [{a: [x-ai/grok-4]}]", {"a": ["openrouter/x-ai/grok-4"], "x-ai/grok-4": []}),
        ("fallbacks: [{openai/o3: [a]}]", {"a": [], "openai/o3": ["anthropic/claude-sonnet-4-5"]}),
        ("model_group_alias: {best: openai/o3}", {"a": [], "openai/o3": [], "best": []}),
    ],
)
def test_a_name_that_an_entry_with_a_star_stands_for_is_a_job_type(
    settings: str, pins_by_type: dict[str, list[str]], tmp_path: Path
) -> None:
    found = of(tmp_path, f"{WILDCARDS}router_settings: {{{settings}}}\n")
    assert {name: each.pin[1:] for name, each in found.job_types.items()} == pins_by_type
    assert "is not a model_name" not in str(found.report)


def test_model_may_be_a_name_that_an_entry_with_a_star_stands_for(tmp_path: Path) -> None:
    assert tiers(of(tmp_path, WILDCARDS, "openai/gpt-4o")) == (["eu-4o"], [])


def test_context_window_fallbacks_take_the_windows_with_them(tmp_path: Path) -> None:
    config = yaml.safe_load(models("a", "b"))
    config["model_list"][0]["model_info"] = {"max_input_tokens": 8000}
    config["model_list"][1]["litellm_params"]["model"] = "openai/gpt-4o"
    config["litellm_settings"] = {"context_window_fallbacks": [{"a": ["b"]}]}
    found = of(tmp_path, yaml.safe_dump(config))
    assert [found.routes[tier][0]["contextWindow"] for tier in ("hot", "warm")] == [8000, 128000]
    config["model_list"][1]["litellm_params"]["model"] = "openai/mine"
    assert "the context window of mine is not known: set contextWindow" in str(
        of(tmp_path, yaml.safe_dump(config)).report
    )


def test_content_policy_fallbacks_let_a_refusal_fail_over(tmp_path: Path) -> None:
    found = of(tmp_path, f"{models('a', 'b')}litellm_settings: {{content_policy_fallbacks: [{{a: [b]}}]}}\n")
    assert {name: each.policy for name, each in found.job_types.items()} == {
        "a": {"failover_on_refusal": True},
        "b": {},
    }


def test_a_second_name_is_a_job_type_too(tmp_path: Path) -> None:
    text = "router_settings: {model_group_alias: {gpt-4: a, hidden: {model: a, hidden: true}, x: gone}}\n"
    found = of(tmp_path, models("a") + text)
    assert pins(found) == {"a": ["a"], "gpt-4": ["a"], "hidden": ["a"]}
    assert "model_group_alias x: gone is no alias" in str(found.report)


SHARES = [
    ("", [{}, {}], [1, 1]),
    ("", [{"rpm": 6}, {"rpm": 2}], [6, 2]),
    ("", [{"rpm": 6}, {}], [6, 0]),
    ("", [{"tpm": 9000}, {"tpm": 1000, "rpm": 3}], [9000, 1000]),
    ("", [{"rpm": 6, "tpm": 1}, {"rpm": 2, "tpm": 9}], [6, 2]),
    ("", [{"weight": 3}, {"weight": 1}], [3, 1]),
    ("", [{"weight": "0.7"}, {"weight": 0.3, "rpm": 9}], [0.7, 0.3]),
    ("", [{"weight": 3}, {}], [3, 0]),
    ("", [{"rpm": 6}, {"rpm": 12, "weight": 2}], [6, 12]),
    ("", [{}, {"weight": 3}], [1, 1]),
    ("", [{"order": 1}, {"order": 2}], [None, None]),
    ("", [{"order": 1}, {"order": 1}], [1, 1]),
    ("simple-shuffle", [{}, {}], [1, 1]),
    ("least-busy", [{"rpm": 6}, {"rpm": 2}], [1, 1]),
    ("usage-based-routing-v2", [{"tpm": 6}, {"tpm": 2}], [1, 1]),
    ("latency-based-routing", [{}, {}], [None, None]),
    ("cost-based-routing", [{"rpm": 6}, {"rpm": 2}], [None, None]),
    ("somebody-elses", [{}, {}], [1, 1]),
]


@pytest.mark.parametrize(("strategy", "params", "expected"), SHARES)
@pytest.mark.parametrize("place", ["litellm_params", "beside", "model_info"])
def test_deployments_of_an_alias_share_its_jobs(
    strategy: str, params: list[dict[str, Any]], expected: list[Any], place: str, tmp_path: Path
) -> None:
    config = yaml.safe_load(models(a=2))
    for entry, more in zip(config["model_list"], params, strict=True):
        (entry if place == "beside" else entry.setdefault(place, {})).update(more)
    config["router_settings"] = {"routing_strategy": strategy} if strategy else {}
    found = of(tmp_path, yaml.safe_dump(config))
    assert weights(found) == expected
    together = [] if "order" in params[0] and params[1]["order"] == 2 else ["a0", "a1"]
    assert pins(found)["a"] == ([together] if together else ["a0", "a1"])
    orders = {"latency-based-routing": "latency", "cost-based-routing": "cost"}
    assert found.job_types["a"].order == orders.get(strategy, "listed")
    assert ("routing_strategy" in str(found.report)) == (strategy not in ("", "simple-shuffle"))
    for limit in ("rpm", "tpm"):
        assert [route.get(limit) for tier in found.routes.values() for route in tier] == [
            each.get(limit) for each in params
        ]
    if "rpm" in params[0]:
        assert "held by all workers together" in str(found.report)


LIMITS = [
    ("timeout: null", "request_timeout: 30", {"timeoutSeconds": 30}, ""),
    ("timeout: 40", "request_timeout: 30", {"timeoutSeconds": 40}, ""),
    ("timeout: 0", "", {}, "timeout 0 would end every call"),
    ('timeout: "45"', "", {"timeoutSeconds": 45}, ""),
    ("timeout: os.environ/T", "", {"timeoutSeconds": 7}, ""),
    ("timeout: os.environ/UNSET", "", {}, "'os.environ/UNSET' is not a number"),
    ("timeout: 100000", "", {"timeoutSeconds": 86400}, "is reduced to 86400 s"),
    ("stream_timeout: 0", "", {}, "stream_timeout 0 would end"),
    ("rpm: 0", "", {}, "rpm 0 would stop the route"),
    ("tpm: 0", "", {}, "tpm 0 would stop the route"),
    ("rpm: 0.5", "", {"rpm": 1}, "rpm 0.5 becomes 1"),
    ("max_parallel_requests: 3", "", {"maxConcurrency": 3}, "3 calls at once held"),
    ("num_retries: 9", "", {"retries": 5}, "9 retries are reduced to 5"),
    ("max_retries: 0", "num_retries: 4", {"retries": 0}, ""),
    ("", "num_retries: 4", {"retries": 4}, ""),
    ("", "num_retries: null", {}, ""),
    ("input_cost_per_token: 3.0e-6, output_cost_per_token: 5.0e-6", "", {"price": {"input": 3, "output": 5}}, ""),
    ("input_cost_per_token: 3.0e-6", "", {}, "a price needs both the input and the output cost"),
    ("input_cost_per_token: 3, output_cost_per_token: 5", "", {}, "more than a dollar for a token"),
]


@pytest.mark.parametrize(("own", "common", "expected", "said"), LIMITS)
def test_times_and_limits_stay_within_what_a_route_allows(
    own: str, common: str, expected: dict[str, Any], said: str, tmp_path: Path
) -> None:
    text = (
        f"model_list: [{{model_name: a, litellm_params: {{model: gpt-4o, {own}}}}}]\nlitellm_settings: {{{common}}}\n"
    )
    text += "router_settings: {timeout: null}\n"
    found = of(tmp_path, text, environment={"T": "7"})
    (route,) = found.routes["hot"]
    fixed = {"provider", "model", "baseUrl", "apiKeyEnv"}
    assert {name: value for name, value in route.items() if name not in fixed} == expected
    assert said in str(found.report)
    assert ("timeout: some calls have none" in str(found.report)) == ("timeoutSeconds" not in route)


@pytest.mark.parametrize(
    ("line", "expected", "said"),
    [
        ("allowed_fails: 3, cooldown_time: 30", {"failures": 4, "cooldownSeconds": 30}, ""),
        ("allowed_fails: 0", {"failures": 1}, ""),
        ("allowed_fails: 1000", {"failures": 1000}, "1000 is reduced"),
        ("cooldown_time: 0", None, "0 would be no cooldown"),
        ("cooldown_time: 7200", {"cooldownSeconds": 3600}, "7200 is reduced to 3600 s"),
        ("allowed_fails: null, cooldown_time: often", None, "'often' is not a number"),
    ],
)
def test_the_breaker_stays_within_its_limits(line: str, expected: Any, said: str, tmp_path: Path) -> None:
    found = of(tmp_path, f"{models('a')}router_settings: {{{line}}}\n")
    assert found.routes.get("breaker") == expected
    assert said in str(found.report)


def test_a_credential_is_resolved_by_its_name(tmp_path: Path) -> None:
    text = """
model_list:
  - {model_name: a, litellm_params: {model: gpt-4o, litellm_credential_name: east}}
  - {model_name: b, litellm_params: {model: gpt-4o, litellm_credential_name: gone, api_key: os.environ/B}}
credential_list:
  - credential_name: east
    credential_values: {api_key: os.environ/EAST, api_base: "https://east.openai.azure.com", api_version: x}
    credential_info: {custom_llm_provider: azure}
"""
    found = of(tmp_path, text)
    a, b = found.routes["hot"]
    assert "entry 1 (a): api_version is not sent" in str(found.report)
    assert (a["provider"], a["baseUrl"], a["apiKeyEnv"]) == ("azure", "https://east.openai.azure.com/openai/v1", "EAST")
    assert b["apiKeyEnv"] == "B" and "credential_list has no gone" in str(found.report)


def test_defaults_of_the_whole_file_hold_where_a_deployment_has_none(tmp_path: Path) -> None:
    listed = (
        "{model_name: a, litellm_params: {model: gpt-4o}}, {model_name: b, litellm_params: {model: groq/l, rpm: 5}}"
    )
    defaults = "router_settings: {default_litellm_params: {rpm: 3, api_key: os.environ/D}}"
    found = of(tmp_path, f"model_list: [{listed}]\nlitellm_settings: {{api_base: 'http://own:8000/v1'}}\n{defaults}\n")
    assert [(each["baseUrl"], each["rpm"]) for each in found.routes["hot"]] == [
        ("http://own:8000/v1", 3),
        ("https://api.groq.com/openai/v1", 5),
    ]
    set_here = "environment_variables: {OLLAMA_API_BASE: 'http://o:11434'}"
    found = of(tmp_path, f"model_list: [{{model_name: a, litellm_params: {{model: ollama/l}}}}]\n{set_here}\n")
    assert found.routes["hot"][0]["baseUrl"] == "http://o:11434/v1"
