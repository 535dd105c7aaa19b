"""The names that providers give to errors, as data: which count as a status, and which say more than any status."""

from __future__ import annotations

from worker.errors.catalog import (
    BAD_GENERATION,
    BAD_KEY,
    BILLING,
    CONTEXT,
    FILTERED,
    FORBIDDEN_HERE,
    NO_MODEL,
    PARAMETER,
    QUOTA,
    TOO_LARGE,
    UNABLE_TO,
)

# Names that count as a status, wherever they stand: in a 400, in a 200, in a stream. Anthropic's types, gRPC's codes, AWS's and
# LiteLLM's classes; `status_code` are MiniMax's numbers, `error_code` Baidu's, `zhipu` Zhipu's.
KINDS = {
    **dict.fromkeys(("authentication_error", "UNAUTHENTICATED", "AuthenticationError", "UnauthorizedError"), 401),
    **dict.fromkeys(("permission_error", "PERMISSION_DENIED", "PermissionDeniedError", "AccessDeniedException"), 403),
    **dict.fromkeys(("not_found_error", "NOT_FOUND", "NotFoundError"), 404),
    **dict.fromkeys(
        ("rate_limit_error", "rate_limit_exceeded", "too_many_requests", "rate_limited", "RESOURCE_EXHAUSTED"), 429
    ),
    **dict.fromkeys(
        ("RateLimitError", "ThrottlingException", "TooManyRequestsException", "tokens_exceeded_error"), 429
    ),
    **dict.fromkeys(("REQUEST_LIMIT_EXCEEDED", "Throttling", "Throttling.RateQuota", "RateLimitExceeded"), 429),
    **dict.fromkeys(("ResourceExhausted", "too_many_requests_error", "engine_rate_limited"), 429),
    **dict.fromkeys(
        (
            "zhipu 1302",
            "zhipu 1303",
            "zhipu 1305",
            "status_code 1002",
            "status_code 1039",
            "status_code 2045",
            "error_code 18",
        ),
        429,
    ),
    **dict.fromkeys(("status_code 1004", "status_code 2049", "error_code 110", "error_code 111"), 401),
    **dict.fromkeys(("status_code 1000", "status_code 1013"), 500),
    "status_code 1001": 504,
    "status_code 2013": 400,
    **dict.fromkeys(("api_error", "INTERNAL", "InternalServerError", "InternalServerException", "internal_error"), 500),
    **dict.fromkeys(("server_error", "internal_server_error", "internal_failure"), 500),
    **dict.fromkeys(
        (
            "UNAVAILABLE",
            "service_unavailable",
            "service_unavailable_error",
            "ServiceUnavailableError",
            "ModelNotReadyException",
        ),
        503,
    ),
    **dict.fromkeys(("ServiceUnavailableException", "engine_overloaded", "engine_overloaded_error"), 503),
    **dict.fromkeys(("timeout_error", "DEADLINE_EXCEEDED", "APITimeoutError", "Timeout", "ModelTimeoutException"), 504),
    **dict.fromkeys(("APIConnectionError", "ModelErrorException", "bad_gateway"), 502),
    **dict.fromkeys(("overloaded_error", "overloaded", "server_overloaded"), 529),
    "invalid_request_error": 400,
    "request_too_large": 413,
}

# An error's `code`, `type` or `status`, or the name of its inner error: exact.
CODES = {
    "insufficient_quota": QUOTA,
    "organization_spend_limit_exceeded": QUOTA,
    "project_spend_limit_exceeded": QUOTA,
    "organization_usage_limit_exceeded": QUOTA,
    "enforced_spend_limit_reached": QUOTA,
    "contract_spend_limit_reached": QUOTA,
    **dict.fromkeys(("BudgetExceededError", "budget_exceeded", "quota_exceeded", "usage_limit_reached"), QUOTA),
    **dict.fromkeys(
        (
            "QuotaExceeded",
            "AccountQuotaExceeded",
            "SetLimitExceeded",
            "blocked_api_access",
            "SubscriptionUsageLimitError",
            "FreeUsageLimitError",
            "budget_limit",
            "token_quota_reached",
        ),
        QUOTA,
    ),
    **dict.fromkeys(("zhipu 1308", "zhipu 1310", "error_code 17", "AllocationQuota.FreeTierOnly"), QUOTA),
    **dict.fromkeys(("insufficient_user_quota", "pre_consume_token_quota_failed", "NOT_ENOUGH_BALANCE"), BILLING),
    **dict.fromkeys(
        ("exceeded_current_quota_error", "billing_not_active", "BILLING_DISABLED", "credit_limit"), BILLING
    ),
    **dict.fromkeys(
        ("organization_restricted", "customer_verification_required", "access_terminated", "access_terminated_error"),
        BILLING,
    ),
    **dict.fromkeys(
        ("AccountOverdueError", "FailedOperation.ResourcePackExhausted", "zhipu 1113", "zhipu 1309"), BILLING
    ),
    "status_code 1008": BILLING,
    "credit_balance_exhausted": BILLING,
    "Arrearage": BILLING,
    "insufficient_balance": BILLING,
    "insufficient_credits": BILLING,
    "insufficient_funds": BILLING,
    "payment_required": BILLING,
    "account_suspended": BILLING,
    "account_deactivated": BILLING,
    "billing_error": BILLING,
    "billing_hard_limit_reached": BILLING,
    "context_length_exceeded": CONTEXT,
    "model_max_prompt_tokens_exceeded": CONTEXT,
    "exceed_context_size_error": CONTEXT,
    "context_window_exceeded": CONTEXT,
    "zhipu 1261": CONTEXT,
    "ContextWindowExceededError": CONTEXT,
    "request_too_large": TOO_LARGE,
    "content_filter": FILTERED,
    "content_policy_violation": FILTERED,
    "ResponsibleAIPolicyViolation": FILTERED,
    "ContentPolicyViolationError": FILTERED,
    "content_policy_violated": FILTERED,
    "data_inspection_failed": FILTERED,
    "DataInspectionFailed": FILTERED,
    "moderation_blocked": FILTERED,
    **dict.fromkeys(("cyber_policy_violation", "invalid_prompt", "sensitive_words_detected"), FILTERED),
    **dict.fromkeys(("censorship_blocked", "PROHIBITED_CONTENT", "SAFETY", "BLOCKLIST", "zhipu 1301"), FILTERED),
    **dict.fromkeys(("InputTextSensitiveContentDetected", "OutputTextSensitiveContentDetected"), FILTERED),
    **dict.fromkeys(("SensitiveContentDetected", "status_code 1026", "status_code 1027"), FILTERED),
    "invalid_api_key": BAD_KEY,
    "API_KEY_INVALID": BAD_KEY,
    "API_KEY_EXPIRED": BAD_KEY,
    "incorrect_api_key": BAD_KEY,
    **dict.fromkeys(("expired_api_key", "ExpiredTokenException", "UserUnAuthError"), BAD_KEY),
    "model_not_found": NO_MODEL,
    "DeploymentNotFound": NO_MODEL,
    "model_decommissioned": NO_MODEL,
    "invalid_model": NO_MODEL,
    "model_not_available": NO_MODEL,
    "model_unavailable": NO_MODEL,
    "ModelNotFound": NO_MODEL,
    "model_not_supported": NO_MODEL,
    **dict.fromkeys(
        (
            "unavailable_model",
            "dedicated_endpoint_not_running",
            "key_model_access_denied",
            "zhipu 1211",
            "zhipu 1311",
            "status_code 2061",
            "model_terms_required",
        ),
        NO_MODEL,
    ),
    "no_access": NO_MODEL,
    "deployment_not_found": NO_MODEL,
    **dict.fromkeys(("unsupported_country_region_territory", "unsupported_country"), FORBIDDEN_HERE),
    "no_counterpart": UNABLE_TO,  # ours: a dialect cannot say what the job asks for
    "unsupported_parameter": PARAMETER,
    "unknown_parameter": PARAMETER,
    "unsupported_value": PARAMETER,
    "extra_forbidden": PARAMETER,
    "UnsupportedParamsError": PARAMETER,
    "tool_use_failed": BAD_GENERATION,
    "json_validate_failed": BAD_GENERATION,
}
