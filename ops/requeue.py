"""A requeue that takes time: a few dead letters are tried first; and one in a thread, which a page begins.

The counts of one in a thread are in Redis, so that every page shows them. At most one runs at a time. If its process ends, what
it did not requeue yet are dead letters as before: nothing is lost, and another requeue takes the rest.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import redis

from producer import Producer, keyspace
from producer.errors import BadRequest, FailoverError
from producer.job import JobStatus
from producer.scripts import although_full, ask
from worker.queue import dead_letters
from worker.queue.dead_letters import Requeued

log = logging.getLogger("failover.web")

CANARY_SECONDS = 600.0  # then those that have not ended count as failed
RENEW_SECONDS, ALIVE_SECONDS, KEPT_SECONDS = 2.0, 20, 3600


def after_canary(
    producer: Producer, queue: str, batches: Iterator[list[str]], canary: int, *, who: str, force: bool, done: Requeued
) -> Iterator[list[str]]:
    """Requeue the first `canary` jobs of `batches`, wait for them, and return the others, page by page. Adds to the counts in
    `done`. Raises FailoverError if one is not done within CANARY_SECONDS."""
    left = (job_id for batch in batches for job_id in batch)
    first = list(islice(left, canary))
    dead_letters.requeue(producer.client, queue, iter([first]), who=who, force=force, done=done)
    give_up = time.monotonic() + CANARY_SECONDS
    results = [producer.wait(job_id, max(0.0, give_up - time.monotonic())) for job_id in first]
    failed = [result for result in results if result.status is not JobStatus.DONE]
    if failed:
        ends = "; ".join(f"{result.job_id} is {result.status} ({result.dead_detail})" for result in failed[:5])
        raise FailoverError(
            f"the canary failed, nothing more was requeued: {ends}. First a route must answer again: see the routes"
        )
    return iter(lambda: list(islice(left, dead_letters.PAGE)), [])


@dataclass(frozen=True)
class Progress:
    """The latest requeue that a page began. `ended`: how, as text; "" while it runs. `at`: Unix seconds of these counts."""

    who: str
    of: int
    requeued: int = 0
    refused: int = 0
    gone: int = 0
    ended: str = ""
    at: float = 0.0


def progress(client: redis.Redis) -> Progress | None:
    """The latest requeue, for KEPT_SECONDS after its end; None without one."""
    (raw,) = ask(client, [("GET", keyspace.REQUEUING)])
    if raw is None:
        return None
    known = Progress(**json.loads(raw))
    if not known.ended and time.time() - known.at > ALIVE_SECONDS:
        return Progress(**{**asdict(known), "ended": "its web process ended; requeue again for the rest"})
    return known


class Run:
    """One requeue: `counts` are written to Redis every RENEW_SECONDS, also while the canary is waited for."""

    def __init__(self, producer: Producer, who: str, of: int) -> None:
        self._producer, self._who, self._of = producer, who, of
        self._counts, self._over = Requeued(), threading.Event()

    def start(self, queue: str, batches: Iterator[list[str]], *, canary: int, rate: float | None, force: bool) -> None:
        """Begin. Raises BadRequest while another one runs."""
        running = progress(self._producer.client)
        if running is not None and not running.ended:
            raise BadRequest(
                f"{running.who} requeues {running.of:,} jobs now: wait for its end, on the page Dead letters"
            )
        self._write("")
        work: dict[str, Any] = {"canary": canary, "rate": rate, "force": force}
        threading.Thread(target=self._work, args=(queue, batches), kwargs=work, daemon=True).start()
        threading.Thread(target=self._renew, daemon=True).start()

    def _work(self, queue: str, batches: Iterator[list[str]], *, canary: int, rate: float | None, force: bool) -> None:
        producer, who, done = self._producer, self._who, self._counts
        try:
            if canary:
                batches = after_canary(producer, queue, batches, canary, who=who, force=force, done=done)
            dead_letters.requeue(producer.client, queue, batches, who=who, force=force, rate=rate, done=done)
            ended = "done"
        except (FailoverError, redis.RedisError) as error:
            ended = str(error)
        except Exception:
            log.exception("a requeue failed in our own code")
            ended = "failed in our own code: the log of the web process says why"
        self._over.set()
        self._write(ended)
        log.info("a requeue ended", extra={"by": who, "of": self._of, **asdict(done), "how": ended})

    def _renew(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            try:
                self._write("")
            except redis.RedisError:
                continue

    def _write(self, ended: str) -> None:
        if not ended and self._over.is_set():
            return
        now = Progress(self._who, self._of, **asdict(self._counts), ended=ended, at=time.time())
        ask(
            self._producer.client,
            [although_full(("SET", keyspace.REQUEUING, json.dumps(asdict(now)), "EX", KEPT_SECONDS))],
        )
