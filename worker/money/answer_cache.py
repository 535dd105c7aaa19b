"""The answer cache: policies/cache.yaml (its fields are explained at the head of that file), and the answers kept in Redis.

An answer is written to the cache when it arrives, before its job is done. If Redis does not answer, that is a cache miss,
never an error.
"""

from __future__ import annotations

import json
import logging
import re
import zlib
from asyncio import Future
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Annotated, Any, Literal

import redis
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json, to_json

from producer import keyspace
from producer.environment import Environment, find_configuration
from producer.job import JobResult, JobStatus, LLMJob
from producer.policy import read_yaml, with_defaults
from producer.scripts import Command, ask
from worker.errors.endings import Ending, worst_ending

log = logging.getLogger("failover.worker")

FILE = "cache.yaml"
LARGEST_BYTES = 1024 * 1024  # a larger answer (compressed) is not kept
LONGEST_SECONDS = 30 * 86400
_NO_PART = (
    "model",
    "user",
    "metadata",
    "store",
    "stream",
    "stream_options",
)  # body fields that do not change the answer
_KEPT = ("completion", "route", "provider", "model", "tier", "usage")
Ignored = Literal["uuids", "hex", "numbers", "blanks"]
_IGNORED: dict[Ignored, re.Pattern[str]] = {  # no pattern backtracks: matching takes time linear in the text
    "uuids": re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"),
    "hex": re.compile(r"\b[0-9a-fA-F]{8,}\b"),
    "numbers": re.compile(r"\d+"),
    "blanks": re.compile(r"\s+"),
}

Ask = Callable[[Command], "Future[Any]"]


class CachePolicy(BaseModel):
    """The cache policy of one feature."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ttl_seconds: Annotated[int, Field(ge=1, le=LONGEST_SECONDS)] | None = None
    policy_version: Annotated[str, Field(max_length=256)] = "1"
    ignore_case: bool = False
    ignore: tuple[Ignored, ...] = ()

    def normalized(self, text: str) -> str:
        """The text without the parts that the policy ignores."""
        for what in self.ignore:
            text = _IGNORED[what].sub(" " if what == "blanks" else "", text)
        text = "\n".join(line.rstrip() for line in text.split("\n")).strip()
        return text.casefold() if self.ignore_case else text


class Caching(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    features: dict[str, CachePolicy] = Field(default_factory=dict)

    def of(self, feature: str) -> CachePolicy | None:
        """The policy of a feature; None if its answers are not kept."""
        policy = self.features.get(feature) or self.features.get("default")
        return policy if policy is not None and policy.ttl_seconds is not None else None


def load_caching(environment: Environment) -> Caching:
    """Read POLICIES_DIR/cache.yaml; without the file nothing is kept. Raises ConfigurationError with every problem."""
    path = find_configuration("policies", "POLICIES_DIR", environment) / FILE
    return read_yaml(path, Caching, lambda data: with_defaults(data, "features")) if path.exists() else Caching()


def key_of(job: LLMJob, policy: CachePolicy) -> str:
    """The Redis key of the kept answer to a job."""
    body: dict[str, Any] = {name: value for name, value in job.body.items() if name not in _NO_PART}
    body["messages"] = [_normalized(message, policy) for message in job.body["messages"]]
    owner = (job.tenant_id, job.feature, job.job_type)
    parts = (owner, policy.policy_version, policy.ignore, policy.ignore_case, body)
    digest = sha256(json.dumps(parts, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
    return keyspace.cache(job.tenant_id, job.feature, digest)


def _normalized(message: Any, policy: CachePolicy) -> dict[str, Any]:
    """A message with its texts normalized."""
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": policy.normalized(content)}
    if isinstance(content, list):
        parts = [
            {**part, "text": policy.normalized(part["text"])}
            if isinstance(part, dict) and isinstance(part.get("text"), str)
            else part
            for part in content
        ]
        return {**message, "content": parts}
    return dict(message)


class Cache:
    """The answer cache as one worker uses it. `ask` sends a command; its future gets None if Redis does not answer."""

    def __init__(self, ask: Ask, caching: Callable[[], Caching]) -> None:
        self._ask, self._caching = ask, caching

    async def find(self, job: LLMJob) -> dict[str, Any] | None:
        """The fields of a JobResult whose kept answer fits the job; None if there is none."""
        policy = self._caching().of(job.feature)
        if policy is None:
            return None
        raw = await self._ask(("GET", key_of(job, policy)))
        return _read(raw, job.feature) if isinstance(raw, bytes) else None

    def keep(self, job: LLMJob, result: JobResult) -> None:
        """Keep the answer, if its feature is cached and the answer is neither truncated nor degraded."""
        policy = self._caching().of(job.feature)
        if policy is None or policy.ttl_seconds is None or result.truncated or result.degraded is not None:
            return
        if worst_ending((result.completion or {}).get("choices") or ()) is not Ending.GOOD:
            return  # only an answer that ended well by a word that is known
        told = zlib.compress(to_json({name: getattr(result, name) for name in _KEPT}), 1)
        if len(told) <= LARGEST_BYTES:
            self._ask(("SET", key_of(job, policy), told, "EX", policy.ttl_seconds))


def _read(raw: bytes, feature: str) -> dict[str, Any] | None:
    """The fields of a kept answer; None if it cannot be read, or another release wrote it."""
    try:
        kept = from_json(zlib.decompress(raw))
        fields = {name: kept[name] for name in _KEPT}
        JobResult(job_id="", status=JobStatus.DONE, **fields)
    except (zlib.error, ValueError, TypeError, KeyError):
        log.warning("a cached answer cannot be read", extra={"feature": feature})
        return None
    return fields


def purge(client: redis.Redis, tenant: str | None, feature: str | None) -> int:
    """Delete the kept answers of a tenant, a feature, or both (None: of all). Returns how many there were."""
    gone = 0
    for page in kept(client, tenant, feature):
        (removed,) = ask(client, [("UNLINK", *page)])
        gone += int(removed)
    return gone


def kept(client: redis.Redis, tenant: str | None, feature: str | None) -> Iterator[list[bytes]]:
    """Yield the keys of kept answers, page by page. `tenant`, `feature`: None for all."""
    cursor: Any = 0
    while True:
        (found,) = ask(client, [("SCAN", cursor, "MATCH", keyspace.cached(tenant, feature), "COUNT", 1000)])
        cursor, page = found
        if page:
            yield page
        if int(cursor) == 0:
            return
