"""What the settings of a LiteLLM config become, and what has no counterpart: each with the reason and the fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ops.importers.litellm.report import Report
from ops.importers.litellm.values import number
from producer.environment import Environment

SECTIONS = ("litellm_settings", "router_settings")
_READ = {"allowed_fails", "cooldown_time", "timeout", "request_timeout", "stream_timeout", "num_retries"}
_ELSEWHERE = {
    "fallbacks",
    "default_fallbacks",
    "context_window_fallbacks",
    "content_policy_fallbacks",
    "model_group_alias",
}
_ELSEWHERE |= {
    "routing_strategy",
    "api_base",
    "default_litellm_params",
    "model_list",
    "credential_list",
    "include",
    "environment_variables",
}
_SAME_ANYWAY = {"enable_weighted_failover", "enable_pre_call_checks", "drop_params"}
_OFF: tuple[object, ...] = (False, "", [], {})  # a setting that asks for nothing
MOST_FAILURES = 1000
LONGEST_COOLDOWN_SECONDS = 3600
_TRACED = {
    "langfuse": "the extra `otel` sends each job's trace to Langfuse (docs/telemetry.md)",
    "otel": "the extra `otel` sends each job's trace to a collector (docs/telemetry.md)",
    "prometheus": "GET /metrics of `failover serve` has them",
    "slack": "set SLACK_WEBHOOK_URL",
    "callback": "hooks see each attempt and its result (docs/hooks.md)",
}
_INSTEAD = {
    "master_key": "FAILOVER_API_TOKEN protects the web process",
    "database_url": "jobs, results and costs are in Redis (REDIS_URL)",
    "store_model_in_db": "models that are only in its database are missing here: import the answer of PROXY/model/info",
    "routing_groups": "policies/routing.yaml sets the order by job type",
    "routing_strategy_args": "`order` in policies/routing.yaml has no arguments",
    "allowed_fails_policy": "the breaker counts all failures of a provider alike",
    "retry_policy": "set `retries` on the routes; which failures are tried again is fixed (docs/failures.md)",
    "retry_after": "waits follow the provider's Retry-After",
    "disable_cooldowns": "breakers cannot be switched off; raise breaker.failures in routes.json",
    "cache": "set ttl_seconds in policies/cache.yaml",
    "cache_params": "set ttl_seconds in policies/cache.yaml",
    "max_budget": "set a cap in policies/budgets.yaml",
    "budget_duration": "caps of policies/budgets.yaml are for a calendar month",
    "provider_budget_config": "set caps of providers in policies/budgets.yaml",
    "alerting": "set SLACK_WEBHOOK_URL or NOTIFY_EMAIL",
    "alerting_threshold": "set SLACK_WEBHOOK_URL or NOTIFY_EMAIL",
    "alert_types": "set SLACK_WEBHOOK_URL or NOTIFY_EMAIL",
    "ssl_verify": "certificates are always checked; SSL_CERT_FILE names a CA of your own",
    "telemetry": "nothing is sent to anybody",
    "set_verbose": "`failover job why ID` tells of each job",
    "json_logs": "logs are JSON lines anyway, but on a terminal",
    "redis_host": "set REDIS_URL",
    "redis_port": "set REDIS_URL",
    "redis_password": "set REDIS_URL",
    "redis_url": "set REDIS_URL",
    "max_parallel_requests": "failover-worker --concurrency bounds all calls",
    "global_max_parallel_requests": "failover-worker --concurrency bounds all calls",
}


def common_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of both sections that have a value; those of router_settings first."""
    return {name: value for each in SECTIONS for name, value in mapping(config.get(each)).items() if value is not None}


def breaker(settings: Mapping[str, Any], environment: Environment, report: Report) -> dict[str, Any]:
    """The breaker section. LiteLLM's `allowed_fails: 3` acts at the fourth failure, so our `failures` is one more."""
    section: dict[str, Any] = {}
    if (fails := number(settings.get("allowed_fails"), environment)) is not None:
        section["failures"] = min(int(fails) + 1, MOST_FAILURES)
        if fails >= MOST_FAILURES:
            report.approximate("allowed_fails", f"{fails} is reduced: the breaker opens after {MOST_FAILURES} failures")
    cooldown = number(settings.get("cooldown_time"), environment)
    if cooldown == 0:
        report.leave_out("cooldown_time", "0 would be no cooldown: the default stays; set breaker.cooldownSeconds")
    elif cooldown is not None:
        section["cooldownSeconds"] = min(cooldown, LONGEST_COOLDOWN_SECONDS)
        if cooldown > LONGEST_COOLDOWN_SECONDS:
            report.approximate(
                "cooldown_time", f"{cooldown} is reduced to {LONGEST_COOLDOWN_SECONDS} s, the longest cooldown"
            )
    for name, value in section.items():
        report.took(f"breaker.{name}", f"{value:g}")
    return {"breaker": section} if section else {}


def report_settings(config: Mapping[str, Any], environment: Environment, report: Report) -> None:
    """Say what of the settings was taken, and what has no counterpart."""
    for section, settings in config.items():
        if section in _ELSEWHERE:
            continue
        if section in SECTIONS and not isinstance(settings, dict):
            report.leave_out(section, "is not a mapping of settings: write `name: value` below it")
        elif not isinstance(settings, dict) or section not in (*SECTIONS, "general_settings"):
            report.leave_out(section, _left(str(section)))
        else:
            for name, value in settings.items():
                if value is not None:
                    _report_one(section, str(name), value, environment, report)
    if variables := mapping(config.get("environment_variables")):
        report.leave_out("environment_variables", f"put {', '.join(map(str, variables))} into the environment or .env")


def _asks_for_nothing(name: str, value: Any) -> bool:
    """Whether it switches something off that is not here anyway. `ssl_verify: false` does not: certificates are checked."""
    return value in _OFF and name in _INSTEAD and name != "ssl_verify"


def _left(name: str) -> str:
    """What to say of a setting that is not taken over: what does its work here, or that nothing does."""
    instead = next((text for word, text in _TRACED.items() if word in name), _INSTEAD.get(name))
    return f"is not copied: {instead}" if instead else "has no counterpart: jobs go without it"


def _report_one(section: str, name: str, value: Any, environment: Environment, report: Report) -> None:
    where = f"{section}.{name}"
    if section not in SECTIONS:
        if name in _READ or name == "routing_strategy":
            report.leave_out(where, "LiteLLM does not read it there: move it to router_settings")
        elif name not in _ELSEWHERE and not _asks_for_nothing(name, value):
            report.leave_out(where, _left(name))
    elif name in _SAME_ANYWAY:
        tell = report.took if value else report.approximate
        tell(where, "is always on here")
    elif name in _READ:
        if number(value, environment) is None:
            report.leave_out(where, f"{value!r} is not a number: set it in routes.json")
    elif "callback" in name:
        for each in filter(None, value if isinstance(value, list) else [value]):
            report.leave_out(where, f"{each} {_left(f'callback {each}')}")
    elif name not in _ELSEWHERE and not _asks_for_nothing(name, value):
        report.leave_out(where, _left(name))


def mapping(value: Any) -> dict[str, Any]:
    """The value, if it is a mapping; else an empty one."""
    return value if isinstance(value, dict) else {}
