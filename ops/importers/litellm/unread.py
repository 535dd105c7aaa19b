"""What of a deployment is not read, with the reason and the fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ops.importers.litellm.limits import Limits
from ops.importers.litellm.report import Report

COSTS = ("input_cost_per_token", "output_cost_per_token")
ABLE = {
    "supports_function_calling": ["tools"],
    "supports_response_schema": ["json_mode", "json_schema"],
    "supports_vision": ["vision"],
}
_OF_JOBS = {"temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "stop", "seed", "n", "user"}
_OF_JOBS |= {"reasoning_effort", "verbosity", "thinking", "tools", "tool_choice", "parallel_tool_calls", "logit_bias"}
_OF_JOBS |= {"response_format", "frequency_penalty", "presence_penalty", "service_tier", "num_ctx", "extra_body"}
_ENTRA = {"tenant_id", "client_id", "client_secret", "azure_ad_token", "azure_username", "azure_password"}
_WHY = {
    **dict.fromkeys(_OF_JOBS, "is no part of a route: put it into the body of the jobs"),
    **dict.fromkeys(("extra_headers", "headers", "default_headers"), "is not sent: a route has no headers of its own"),
    **dict.fromkeys(
        ("drop_params", "additional_drop_params"), "is not needed: what a provider does not know is dropped anyway"
    ),
    **{f"{name}_limit": f"is no setting of LiteLLM's deployments: write {name}" for name in ("rpm", "tpm")},
    "ssl_verify": "has no counterpart: certificates are always checked; SSL_CERT_FILE names a CA of your own",
    **dict.fromkeys(_ENTRA, "is not used: tokens of Entra ID last an hour, use an API key"),
    "organization": "is not sent: use a key of that organization",
    "max_budget": "has no counterpart: set a cap in policies/budgets.yaml",
    "tags": "has no counterpart: pin job types to routes in policies/routing.yaml",
    "cache_control_injection_points": "is not needed: policies/routing.yaml has prompt_caching",
}
_BOTH = {"mode", "order", "max_input_tokens", "max_output_tokens", *COSTS, *ABLE}
_READ = {"model", "custom_llm_provider", "litellm_credential_name", "api_key", "api_base", "base_url", "model_info"}
_READ |= {"fallbacks", "base_model", "use_in_pass_through", *_BOTH}
_INFO = {"id", "description", *_BOTH}


def report_unread(
    where: str,
    params: Mapping[str, Any],
    entry: Mapping[str, Any],
    info: Mapping[str, Any],
    *,
    azure: bool,
    report: Report,
) -> None:
    """`params`, `entry`, `info`: litellm_params, what is beside them, and model_info of the deployment `where`."""
    names = {str(name) for name in params} - _READ - Limits.READ
    if azure and "api_version" in names:
        names.discard("api_version")
        report.approximate(where, "api_version is not sent: Azure's /openai/v1 needs none")
    if "azure_ad_token" in names and "api_key" not in params:
        names.discard("azure_ad_token")
        report.approximate(where, "azure_ad_token is its key, and lasts an hour: use an API key")
    for name in sorted(names):
        report.leave_out(where, f"{name} {_WHY.get(name, 'has no counterpart: nothing is sent for it')}")
    beside = {str(name) for name in entry} - {"model_name", "litellm_params"} - _READ - Limits.READ
    inside = {f"model_info.{name}" for name in map(str, info) if name not in _INFO | Limits.READ}
    for name in sorted(beside | inside):
        report.leave_out(where, f"{name} has no counterpart: jobs go without it")
