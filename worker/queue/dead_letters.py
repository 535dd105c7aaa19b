"""What operators do with dead letters: list, count, requeue, resolve with a human's answer, discard.

The dead letters are the jobs in RQ's FailedJobRegistry. Our indexes (by time, reason, tenant, route) keep reading a page
fast for any number of letters. Atomic scripts requeue each letter once, even for two operators or after a killed command.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from producer import keyspace
from producer.errors import UnknownJob, UsageError
from producer.job import JobResult, JobStatus
from producer.keyspace import JobField
from producer.results import result_commands, result_of
from producer.scripts import Call, Command, ask
from worker.queue import transitions

PAGE = 500
RESENDS = 3  # of a script whose reply was lost
GENERATIONS_ALLOWED = 3
FORCED_GENERATIONS = 1_000_000


@dataclass(frozen=True)
class Filters:
    """Selects dead letters; a field that is None selects all. `since_ms`: buried at or after this Unix time (ms)."""

    reason: str | None = None
    tenant: str | None = None
    route: str | None = None
    since_ms: int | None = None

    def indexes(self, queue: str) -> list[str]:
        kinds = (("reason", self.reason), ("tenant", self.tenant), ("route", self.route))
        return [keyspace.dead_by(queue, kind, value) for kind, value in kinds if value is not None]


@dataclass(frozen=True)
class DeadLetter:
    """One dead letter. `died_ms`: Unix time (ms). `route`: the last one tried. `generation`: how often it was requeued."""

    job_id: str
    reason: str
    detail: str
    tenant: str
    job_type: str
    route: str | None
    died_ms: int
    generation: int


@dataclass(frozen=True)
class Stats:
    """Counts of dead letters; each group is sorted, largest first. `oldest_ms`: Unix time (ms) of the first burial."""

    total: int
    oldest_ms: int | None
    by_reason: dict[str, int] = field(default_factory=dict)
    by_tenant: dict[str, int] = field(default_factory=dict)
    by_route: dict[str, int] = field(default_factory=dict)


@dataclass
class Requeued:
    """Counts of a requeue. `refused`: requeued too often before; `gone`: no longer a dead letter."""

    requeued: int = 0
    refused: int = 0
    gone: int = 0


def pages(
    client: redis.Redis, queue: str, filters: Filters, *, until_ms: int, newest_first: bool = False
) -> Iterator[list[tuple[str, int]]]:
    """Yield (job id, died ms) of the matching letters, page by page. Safe while letters are added and removed."""
    wanted = filters.indexes(queue)
    sizes = ask(client, [("ZCARD", key) for key in wanted]) if wanted else []
    by_size = [key for _, key in sorted(zip(sizes, wanted, strict=True))]
    index, others = (by_size[0], by_size[1:]) if by_size else (keyspace.dead(queue), [])
    low, high = filters.since_ms or 0, until_ms
    seen: set[str] = set()  # ids already read at the score where the last page ended
    while True:
        limit = ("LIMIT", 0, PAGE + len(seen))
        command: Command = ("ZRANGEBYSCORE", index, low, high, "WITHSCORES", *limit)
        if newest_first:
            command = ("ZREVRANGEBYSCORE", index, high, low, "WITHSCORES", *limit)
        (reply,) = ask(client, [command])
        fresh = [(name.decode(), int(score)) for name, score in reply if name.decode() not in seen]
        if not fresh:
            return
        edge = fresh[-1][1]
        same_edge = {name for name, score in fresh if score == edge}
        seen = same_edge | seen if edge == (high if newest_first else low) else same_edge
        low, high = (low, edge) if newest_first else (edge, high)
        if matching := _matching(client, queue, fresh, others):
            yield matching


def _matching(
    client: redis.Redis, queue: str, entries: list[tuple[str, int]], others: list[str]
) -> list[tuple[str, int]]:
    """The entries that are in every other index too, and still in RQ's FailedJobRegistry."""
    names = [name for name, _ in entries]
    replies = ask(client, [("ZMSCORE", key, *names) for key in (keyspace.failed(queue), *others)])
    return [entry for entry, *scores in zip(entries, *replies, strict=True) if None not in scores]


def listed(
    client: redis.Redis, queue: str, filters: Filters, limit: int, until_ms: int | None = None
) -> list[DeadLetter]:
    """The newest `limit` matching letters that died up to `until_ms` (None: now), newest first."""
    letters: list[DeadLetter] = []
    for page in pages(client, queue, filters, until_ms=until_ms or now_ms(client), newest_first=True):
        letters += _letters(client, page[: limit - len(letters)])
        if len(letters) >= limit:
            break
    return letters


def _letters(client: redis.Redis, entries: Sequence[tuple[str, int]]) -> list[DeadLetter]:
    fields = (
        JobField.DEAD_REASON,
        JobField.DEAD_DETAIL,
        JobField.TENANT,
        JobField.TYPE,
        JobField.DEAD_ROUTE,
        JobField.GENERATION,
    )
    replies = ask(client, [("HMGET", keyspace.job(job_id), *fields) for job_id, _ in entries])
    letters = []
    for (job_id, died_ms), reply in zip(entries, replies, strict=True):
        reason, detail, tenant, job_type, route, generation = (value and value.decode() for value in reply)
        known = (reason or "?", detail or "", tenant or "?", job_type or "?", route)
        letters.append(DeadLetter(job_id, *known, died_ms, int(generation or 0)))
    return letters


def stats(client: redis.Redis, queue: str) -> Stats:
    """Counts of a queue's dead letters by reason (`?`: in no index of ours), tenant and route; the time of the oldest."""
    dead = keyspace.dead(queue)
    failed = keyspace.failed(queue)
    total, indexes = ask(client, [("ZCARD", failed), ("SMEMBERS", keyspace.dead_indexes(queue))])
    names = sorted(name.decode() for name in indexes)
    groups: dict[str, dict[str, int]] = {"reason": {}, "tenant": {}, "route": {}}
    counts = ask(
        client, [("ZINTERCARD", 2, name, failed) for name in names]
    )  # RQ's own tools do not change the indexes
    for name, count in zip(names, counts, strict=True):
        kind, _, value = name.removeprefix(f"{dead}:").partition(":")
        if count:
            groups[kind][value] = count
    if (unknown := total - sum(groups["reason"].values())) > 0:
        groups["reason"]["?"] = unknown
    oldest = next(pages(client, queue, Filters(), until_ms=now_ms(client)), None) if total else None
    by = {f"by_{kind}": dict(sorted(group.items(), key=lambda entry: -entry[1])) for kind, group in groups.items()}
    return Stats(total, oldest[0][1] if oldest else None, **by)


def requeue(
    client: redis.Redis,
    queue: str,
    batches: Iterator[list[str]],
    *,
    who: str,
    force: bool = False,
    rate: float | None = None,
    told: Callable[[Requeued], None] = lambda _: None,
    done: Requeued | None = None,
) -> Requeued:
    """Requeue the letters of `batches` (job ids), at most `rate` a second, and add to the counts in `done`. After a kill, a
    new call continues. `force` lifts the limit of requeues of one letter; `told` gets the counts after each script."""
    done = done or Requeued()
    allowed = FORCED_GENERATIONS if force else GENERATIONS_ALLOWED
    began = time.monotonic()
    for batch in batches:
        for start in range(0, len(batch), _step(rate)):
            chunk = batch[start : start + _step(rate)]
            call = transitions.requeue(queue, chunk, token=uuid4().hex, who=who, generations=allowed)
            reply = reply_of(client, call)
            requeued, refused, gone = (len(ids) for ids in reply)
            done.requeued, done.refused, done.gone = done.requeued + requeued, done.refused + refused, done.gone + gone
            told(done)
            if rate:
                time.sleep(max(0.0, done.requeued / rate - (time.monotonic() - began)))
    return done


def _step(rate: float | None) -> int:
    return PAGE if not rate else max(1, min(PAGE, int(rate / 4)))


def resolve(client: redis.Redis, job_id: str, answer: str, *, who: str, keep_seconds: int) -> None:
    """Store a human's answer (text, or a chat completion as JSON) as the result of a job that has none yet.

    Usually the job is a dead letter. A job that still waits or runs is withdrawn, and a worker that runs it is fenced.
    Raises UnknownJob; UsageError when the job has a result or was cancelled.
    """
    queue = queue_of(client, job_id)
    before = fetched(client, job_id)
    result = JobResult(
        job_id=job_id,
        status=JobStatus.DONE,
        completion=_completion(job_id, answer),
        attempts=before.attempts,
        run_ms=before.run_ms,
        trail=before.trail,
        resolved_by="human",
    )
    call = transitions.resolve(queue, result, token=uuid4().hex, who=who, keep_seconds=keep_seconds)
    reply = reply_of(client, call)
    if reply == b"ended":
        raise UsageError(f"job {job_id} has a result or was cancelled; `failover job show {job_id}` says how it ended")


def fetched(client: redis.Redis, job_id: str) -> JobResult:
    """The job's current state as a JobResult. Raises UnknownJob."""
    result = result_of(job_id, *ask(client, result_commands(job_id)))
    if result is None:
        raise UnknownJob(job_id)
    return result


def _completion(job_id: str, answer: str) -> dict[str, Any]:
    try:
        given = json.loads(answer)
    except ValueError:
        given = None
    if isinstance(given, dict) and isinstance(given.get("choices"), list):
        return given
    choice = {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
    return {
        "id": f"human-{job_id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": "human",
        "choices": [choice],
    }


def discard(client: redis.Redis, queue: str, job_ids: Sequence[str], *, who: str) -> int:
    """Discard dead letters; returns how many were discarded. Ids that are no dead letters are ignored."""
    discarded = 0
    for start in range(0, len(job_ids), PAGE):
        call = transitions.discard(queue, job_ids[start : start + PAGE], token=uuid4().hex, who=who)
        discarded += len(reply_of(client, call)[0])
    return discarded


def reply_of(client: redis.Redis, call: Call) -> Any:
    """The reply of a script. After a lost reply the script is sent again; its token makes that harmless."""
    for _ in range(RESENDS):
        try:
            return ask(client, [call])[0]
        except (RedisConnectionError, RedisTimeoutError):
            time.sleep(0.2)
    return ask(client, [call])[0]


def by_queue(client: redis.Redis, job_ids: Sequence[str]) -> dict[str, list[str]]:
    """The dead letters among `job_ids`, grouped by queue."""
    found: dict[str, list[str]] = {}
    origins = ask(client, [("HGET", keyspace.job(job_id), "origin") for job_id in job_ids])
    queues = [(job_id, origin.decode()) for job_id, origin in zip(job_ids, origins, strict=True) if origin]
    scores = ask(client, [("ZSCORE", keyspace.failed(queue), job_id) for job_id, queue in queues])
    for (job_id, queue), score in zip(queues, scores, strict=True):
        if score is not None:
            found.setdefault(queue, []).append(job_id)
    return found


def queue_of(client: redis.Redis, job_id: str) -> str:
    """The queue of a job. Raises UnknownJob."""
    origin = client.hget(keyspace.job(job_id), "origin")
    if origin is None:
        raise UnknownJob(job_id)
    return origin.decode() if isinstance(origin, bytes) else origin


def now_ms(client: redis.Redis) -> int:
    """Redis TIME in Unix milliseconds."""
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000
