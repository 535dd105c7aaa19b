"""Which roles each route of the web process admits. A route that is not listed here admits nobody."""

from __future__ import annotations

from collections.abc import Mapping

from worker.control.tokens import Role

Roles = frozenset[Role]

OPERATORS = frozenset({Role.OPERATOR})
READERS = frozenset({Role.OPERATOR, Role.REVIEWER, Role.VIEWER})
CLIENTS = frozenset({Role.OPERATOR, Role.TENANT})  # each a tenant's own, or with FAILOVER_API_TOKEN everyone's
ANY_TOKEN = frozenset(Role)
WITHOUT_TOKEN = None  # everybody; or the route verifies the sender itself

Route = tuple[str, str]  # method and path, as the OpenAPI document has them

# What a tenant's token may touch is limited to its own jobs: producer/intake/.
ACCESS: Mapping[Route, Roles | None] = {
    ("POST", "/jobs"): CLIENTS,
    ("GET", "/jobs/{job_id}"): ANY_TOKEN,
    ("DELETE", "/jobs/{job_id}"): CLIENTS,
    (
        "POST",
        "/budget/webhook",
    ): WITHOUT_TOKEN,  # an operator's token, a signature or Google's token: Guard.budget_sender
    ("POST", "/budget/resume"): frozenset({Role.OPERATOR, Role.REVIEWER}),
    ("POST", "/v1/chat/completions"): CLIENTS,
    ("POST", "/v1/responses"): CLIENTS,
    ("GET", "/v1/responses/{response_id}"): CLIENTS,
    ("GET", "/v1/responses/{response_id}/input_items"): CLIENTS,
    ("POST", "/v1/responses/{response_id}/cancel"): CLIENTS,
    ("DELETE", "/v1/responses/{response_id}"): CLIENTS,
    ("POST", "/v1/files"): CLIENTS,
    ("GET", "/v1/files"): CLIENTS,
    ("GET", "/v1/files/{file_id}"): CLIENTS,
    ("GET", "/v1/files/{file_id}/content"): CLIENTS,
    ("DELETE", "/v1/files/{file_id}"): CLIENTS,
    ("POST", "/v1/batches"): CLIENTS,
    ("GET", "/v1/batches"): CLIENTS,
    ("GET", "/v1/batches/{batch_id}"): CLIENTS,
    ("POST", "/v1/batches/{batch_id}/cancel"): CLIENTS,
    ("GET", "/v1/models"): ANY_TOKEN,
    ("GET", "/v1/models/{model:path}"): ANY_TOKEN,
    ("GET", "/healthz"): WITHOUT_TOKEN,
    ("GET", "/readyz"): WITHOUT_TOKEN,
    ("GET", "/metrics"): READERS,
    ("GET", "/openapi.json"): ANY_TOKEN,
}

_REVIEWERS = frozenset({Role.OPERATOR, Role.REVIEWER})

# Who may do what on the pages: ops/web/pages/acts/. Each has a form (GET) and does it (POST).
ACTS: Mapping[str, Roles] = {
    "pause": OPERATORS,
    "resume": _REVIEWERS,
    "disable-route": OPERATORS,
    "enable-route": OPERATORS,
    "requeue": OPERATORS,
    "discard": OPERATORS,
    "discard-lost": OPERATORS,
    "answer": _REVIEWERS,
    "cancel": OPERATORS,
    "cancel-tenant": OPERATORS,
    "set-cap": OPERATORS,
    "unset-cap": OPERATORS,
    "save-cost": OPERATORS,
    "silence": _REVIEWERS,
    "unsilence": _REVIEWERS,
}

# The pages for people. Their reader is known by the cookie of a session, and by nothing else.
PAGES: Mapping[Route, Roles | None] = {
    ("GET", "/ui/sign-in"): WITHOUT_TOKEN,
    ("POST", "/ui/sign-in"): WITHOUT_TOKEN,
    ("POST", "/ui/sign-out"): ANY_TOKEN,
    ("GET", "/ui/static/{name}"): WITHOUT_TOKEN,
    ("GET", "/status"): WITHOUT_TOKEN,  # off unless policies/status.yaml turns it on
    ("GET", "/"): ANY_TOKEN,  # a tenant is sent on to /ui/mine
    ("GET", "/ui/live"): READERS,
    ("GET", "/ui/jobs"): READERS,
    ("GET", "/ui/jobs/{job_id}"): READERS,
    ("GET", "/ui/dead-letters"): READERS,
    ("GET", "/ui/review"): READERS,
    ("GET", "/ui/review/{job_id}"): READERS,
    ("GET", "/ui/incidents"): READERS,
    ("GET", "/ui/incidents/{incident_id}"): READERS,
    ("GET", "/ui/message"): READERS,
    ("GET", "/ui/money"): READERS,
    ("GET", "/ui/history"): READERS,
    ("GET", "/ui/drills"): READERS,
    ("GET", "/ui/settings"): READERS,
    ("GET", "/ui/mine"): frozenset({Role.TENANT}),
    ("GET", "/ui/{path:path}"): ANY_TOKEN,  # says that there is no such page
    **{(method, f"/ui/act/{act}"): roles for act, roles in ACTS.items() for method in ("GET", "POST")},
}
