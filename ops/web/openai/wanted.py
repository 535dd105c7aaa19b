"""A request of /v1/chat/completions as a job: what is OpenAI's stays in the body, what is ours becomes the job's fields."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from starlette.datastructures import Headers

from producer.errors import Forbidden, InvalidBody
from producer.intake import Caller
from producer.intake.routes import preferred_wait
from producer.job import LLMJob
from producer.policy import JobPolicy, Policies
from producer.telemetry.context import TRACEPARENT, carried

DEFAULT = "default"  # the job type of a model that is neither a job type nor a route
FEATURE, TENANT, STREAM = "x-failover-feature", "x-failover-tenant", "x-failover-stream"
RETRY_COUNT = "x-stainless-retry-count"  # OpenAI's SDKs count their own retries here
OURS = ("model", "stream", "stream_options")  # fields of the request that no provider gets from us as they are
LONGEST_NAME = 256


@dataclass(frozen=True)
class Wanted:
    """One request. `stream`: the answer as server-sent events. `usage`: with a last chunk that has the usage. `asynchronous`: a
    202 in place of a long wait. `wait_seconds`: how long such a request waits first. `retry`: the SDK sent it before."""

    job: LLMJob
    policy: JobPolicy
    stream: bool = False
    usage: bool = False
    asynchronous: bool = False
    wait_seconds: float = 0.0
    retry: bool = False
    by_sdk: bool = False

    @property
    def seconds(self) -> float:
        """How long the request waits for its answer."""
        return self.wait_seconds if self.asynchronous else self.policy.max_time_to_answer_seconds

    def handed_in(self) -> Wanted:
        """The same without the body: who waits for an answer does not keep megabytes of images meanwhile."""
        return replace(self, job=self.job.model_copy(update={"body": {}}))


def wanted_of(
    body: Mapping[str, Any], headers: Headers, caller: Caller, policies: Policies, routes: Collection[str]
) -> Wanted:
    """The job and what the client wants of it. `routes`: the names of routes, which a model may name. Raises InvalidBody,
    InvalidJob, Forbidden."""
    job_type, route = aim(text_field(body, "model"), policies, routes)
    policy = policies.of_known(job_type)
    stream = bool_field(body, "stream")
    mode = _mode(headers.get(STREAM, policy.stream))
    metadata = metadata_of(body.get("metadata"))
    feature = headers.get(FEATURE) or metadata.pop("feature", "")
    sent = {name: value for name, value in body.items() if name not in OURS and value is not None}
    if not body.get("store"):
        sent.pop("metadata", None)  # providers take it for what they store only
    user = text_field(body, "safety_identifier") or text_field(body, "user")
    job = LLMJob.parse(
        {
            "job_type": job_type,
            "body": sent,
            "tenant_id": tenant_of(caller, headers),
            "user_id": user[:LONGEST_NAME],
            "feature": feature[:LONGEST_NAME],
            "metadata": carried(metadata, headers.get(TRACEPARENT)),
            "live": stream and mode == "live",
            **({"route": route} if route else {}),
            **({"idempotency_key": key} if (key := headers.get("idempotency-key")) else {}),
        }
    )
    prefer = headers.get("prefer", "")
    options = object_field(body, "stream_options")
    return Wanted(
        job=job,
        policy=policy,
        stream=stream,
        usage=bool(options.get("include_usage")),
        asynchronous=bool(re.search(r"(?:^|[,;\s])respond-async(?:$|[,;\s])", prefer)),
        wait_seconds=preferred_wait(prefer, policy.max_time_to_answer_seconds),
        retry=headers.get(RETRY_COUNT, "0") not in ("", "0"),
        by_sdk=RETRY_COUNT in headers,
    )


def aim(model: str, policies: Policies, routes: Collection[str], otherwise: str = DEFAULT) -> tuple[str, str | None]:
    """The job type and the route that a model means: a job type, a route's name (a pin), or anything else."""
    if model in policies.job_types:
        return model, None
    return otherwise, model if model in routes else None


def tenant_of(caller: Caller, headers: Headers) -> str:
    """The tenant of a request: the token's, or what the header says where the token may act for all. Raises Forbidden."""
    asked = headers.get(TENANT)
    if caller.tenant is not None and asked not in (None, caller.tenant):
        raise Forbidden(f"this token submits jobs of the tenant {caller.tenant} only — leave {TENANT} out")
    return caller.tenant or asked or DEFAULT


def text_field(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidBody(name, "should be a string")
    return value or ""


def bool_field(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidBody(name, "should be true or false")
    return bool(value)


def object_field(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidBody(name, "should be an object")
    return value or {}


def metadata_of(metadata: Any) -> dict[str, str]:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InvalidBody("metadata", "should be an object whose values are strings")
    return dict(metadata)


def _mode(mode: str) -> Literal["whole", "live"]:
    if mode == "live":
        return "live"
    if mode != "whole":
        raise InvalidBody(STREAM, f"{mode!r:.40} is neither whole nor live")
    return "whole"
