"""POST /budget/webhook and /budget/resume: a billing pipeline can pause the jobs, a person resumes them.

The webhook reads the SOP's body, `{"provider": "gemini", "percentUsed": 83}`, and a Google Cloud Pub/Sub push of a budget
notification.
"""

from __future__ import annotations

import logging
import math
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis

from ops.web.auth import Guard
from producer.errors import InvalidBody, first_problem
from producer.intake import body, caller_of, errors, read_json, request_body
from producer.scripts import ask_async
from worker.control.pause import EVERYTHING, resume_call
from worker.money.billing_alerts import BillingReport, Guardrail, observe_call, observed

log = logging.getLogger("failover.web")

BODY_BYTES = 64 * 1024
EPOCH, MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
M = TypeVar("M", bound=BaseModel)

GOOGLE = "google"  # the provider of a budget in a Pub/Sub push


class PercentUsed(BaseModel):
    """The used share of a provider's budget in percent. Unknown fields are ignored."""

    provider: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    percentUsed: Annotated[float, Field(ge=0, le=1e6, strict=True)]  # noqa: N815 - the SOP's name


class Resume(BaseModel):
    """`pauseAgainAtPercent`: budgets reported by billing pause again only at this share, until their month ends."""

    model_config = ConfigDict(extra="forbid")

    pauseAgainAtPercent: Annotated[float, Field(gt=0, le=1e6, strict=True)] | None = None  # noqa: N815


class _PushMessage(BaseModel):
    data: Annotated[str, Field(max_length=BODY_BYTES)]
    messageId: Annotated[str, Field(min_length=1, max_length=256)]  # noqa: N815 - Google's name
    publishTime: AwareDatetime  # noqa: N815
    attributes: dict[str, str] = Field(default_factory=dict)


class _Push(BaseModel):
    message: _PushMessage


class _Budget(BaseModel):
    """The data of Google's push: amounts in one currency, and the begin of the budget's interval."""

    costAmount: Annotated[float, Field(ge=0, allow_inf_nan=False)]  # noqa: N815
    budgetAmount: Annotated[float, Field(gt=0, allow_inf_nan=False)]  # noqa: N815
    costIntervalStart: Annotated[str, Field(max_length=64)] = ""  # noqa: N815
    budgetDisplayName: Annotated[str, Field(max_length=256)] = ""  # noqa: N815


def budget(client: Redis, guard: Guard, guardrail: Guardrail) -> APIRouter:
    router = APIRouter(prefix="/budget", tags=["budget"])
    above = {"type": "number", "exclusiveMinimum": guardrail.at_percent, "maximum": 1e6}
    share = {"anyOf": [above, {"type": "null"}]}

    @router.post(
        "/webhook",
        status_code=204,
        response_class=Response,
        responses=errors(400, 401, 403, 413, 422, 503),
        openapi_extra=request_body(PercentUsed),
    )
    async def webhook(request: Request) -> Response:
        """Record the used share of a budget. At BUDGET_PAUSE_AT_PERCENT, no job starts after the 204. It also reads a
        Google Pub/Sub push of a budget, and accepts a Standard Webhooks signature instead of the token."""
        raw = await body(request, BODY_BYTES)
        await guard.budget_sender(request, raw)
        spend = _spend(read_json(raw), request.headers.get("webhook-id", ""))
        (reply,) = await ask_async(client, [observe_call(spend, guardrail)])
        seen = observed(reply)
        facts = {"provider": spend.provider, "percent": spend.percent, "outcome": seen.outcome}
        log.log(logging.WARNING if seen.paused else logging.INFO, "budget", extra={**facts, "paused": seen.paused})
        return Response(status_code=204)

    @router.post(
        "/resume",
        status_code=204,
        response_class=Response,
        responses=errors(400, 401, 403, 413, 422, 503),
        openapi_extra=request_body(Resume, required=False, pauseAgainAtPercent=share),
    )
    async def resume(request: Request) -> Response:
        """Clear the pause; the backlog drains automatically."""
        raw = await body(request, BODY_BYTES)
        wanted = _checked(Resume, read_json(raw)) if raw.strip() else Resume()
        again_at = wanted.pauseAgainAtPercent
        if again_at is not None and again_at <= guardrail.at_percent:
            raise InvalidBody("pauseAgainAtPercent", f"must be above the {guardrail.at_percent:g}% at which jobs pause")
        who = caller_of(request).who
        await ask_async(client, [resume_call(EVERYTHING, who=who, also_budgets=True, again_at=again_at)])
        return Response(status_code=204)

    return router


def _spend(data: Any, message_id: str) -> BillingReport:
    if isinstance(data, dict) and "message" in data and "percentUsed" not in data:
        message = _checked(_Push, data).message
        try:
            notification = _checked(_Budget, read_json(b64decode(message.data, validate=True)))
        except ValueError:
            raise InvalidBody("message.data", "is not base64 of a budget notification") from None
        percent = 100 * notification.costAmount / notification.budgetAmount
        if not math.isfinite(percent):
            raise InvalidBody("message.data", "its budgetAmount is too small")
        return BillingReport(
            GOOGLE,
            percent,
            "google pub/sub",
            round((message.publishTime - EPOCH) / MILLISECOND),
            notification.costIntervalStart,
            message.messageId,
            budget_id=message.attributes.get("budgetId", "")[:64],
            budget_name=notification.budgetDisplayName,
        )
    used = _checked(PercentUsed, data)
    return BillingReport(used.provider, used.percentUsed, "webhook", message_id=message_id)


def _checked(model: type[M], data: Any) -> M:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InvalidBody(*first_problem(error)) from None
