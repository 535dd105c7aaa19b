"""One of the workers starts what policies/schedules.yaml has, at its times.

The record of a schedule says up to which time its times are handled. A job's idempotency key is made from the schedule's name
and the time, so a job is submitted once, also when two workers lead for a moment or a worker dies in the middle. Times that
passed while no worker ran are started once together, or skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import redis
import redis.asyncio

from producer import keyspace
from producer.client import AsyncProducer
from producer.errors import FailoverError, IdempotencyConflict
from producer.policy import Policies
from producer.scripts import Command, although_full, ask_async, hold
from worker.schedules.policy import Schedule, Schedules

log = logging.getLogger("failover.worker")

STEP_SECONDS = 2.0
LEADS_MS = 20_000  # after its last step
ON_TIME_SECONDS = 60.0  # a time that is handled later was missed
MOST_MISSED = 1000  # times that are counted
COMMAND_SECONDS = 120.0
LONGEST_TOLD = 300  # characters of a command's last line
FAILOVER = (sys.executable, "-c", "from failover_worker.commands import failover; failover()")


@dataclass(frozen=True)
class Record:
    """What is known of a schedule. Times in Unix seconds. `until`: its times up to then are handled. `time`: the last one that
    was started, `started` when, `result` what came of it: the id of a job, or a command's last line. `missed`: how many times
    passed without a start before that; `skipped`: so did the last ones."""

    definition: str
    until: float
    time: float | None = None
    started: float | None = None
    result: str = ""
    missed: int = 0
    skipped: bool = False


def read_records(fields: Mapping[bytes, bytes]) -> dict[str, Record]:
    """The records in the hash keyspace.SCHEDULES; one that cannot be read is left out, and so begins anew."""
    found = {}
    for name, text in fields.items():
        with contextlib.suppress(ValueError, TypeError):
            found[name.decode(errors="replace")] = Record(**json.loads(text))
    return found


class ScheduleLeader:
    """The part of a worker that may start scheduled jobs. `schedules` and `policies`: those in force."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        worker_name: str,
        schedules: Callable[[], Schedules],
        policies: Callable[[], Policies],
    ) -> None:
        self._client, self._name = client, worker_name
        self._schedules, self._policies = schedules, policies
        self._commands: set[asyncio.Task[None]] = set()
        self._refused: set[str] = set()  # schedules whose job Redis does not accept now

    async def step(self) -> None:
        """Start what is due, if this worker leads. Without a schedule it asks Redis nothing. Raises RedisError."""
        enabled = {name: each for name, each in self._schedules().schedules.items() if each.enabled}
        if not enabled:
            return
        commands: list[Command] = [
            hold(keyspace.SCHEDULES_LEADER, self._name, LEADS_MS),
            ("TIME",),
            ("HGETALL", keyspace.SCHEDULES),
        ]
        ours, (seconds, micros), fields = await ask_async(self._client, commands)
        if not ours:
            return
        now, records = int(seconds) + int(micros) / 1e6, read_records(fields)
        for name, schedule in enabled.items():
            record = records.get(name)
            if record is None or record.definition != schedule.definition:
                await self._write(name, Record(schedule.definition, now))  # its first time is the next one
            elif due := schedule.due(record.until, now, MOST_MISSED):
                await self._handle(name, schedule, record, due, now)
        if gone := [name for name in fields if name.decode(errors="replace") not in enabled]:
            await ask_async(self._client, [although_full(("HDEL", keyspace.SCHEDULES, *gone))])

    async def _handle(self, name: str, schedule: Schedule, record: Record, due: list[float], now: float) -> None:
        at, missed = due[-1], len(due) - 1
        facts = {"schedule": name, "time": _utc(at)}
        if now - at > ON_TIME_SECONDS and schedule.missed == "skip":
            log.warning("missed times of a schedule are skipped", extra={**facts, "missed": len(due)})
            await self._write(name, replace(record, until=now, missed=len(due), skipped=True))
            return
        late = missed + (now - at > ON_TIME_SECONDS)
        started = Record(schedule.definition, now, at, now, "", missed, skipped=False)
        if schedule.job is None:
            _say_late(late, facts)
            await self._write(name, started)  # first: if this worker dies in it, no other runs it again
            task = asyncio.create_task(self._command(name, started, (schedule.run or "").split()))
            self._commands.add(task)
            task.add_done_callback(self._commands.discard)
            return
        job = schedule.job.model_copy(update={"idempotency_key": f"schedule:{name}:{int(at)}"})
        try:
            job_id = await AsyncProducer(self._client, self._policies()).enqueue(job)
        except IdempotencyConflict as before:  # the file has changed since this time was started
            job_id = before.job_id
        except FailoverError as error:  # a full Redis, for example: it stays due
            if name not in self._refused:
                log.warning("a scheduled job is not accepted, it is tried again", extra={**facts, "why": str(error)})
            self._refused.add(name)
            return
        self._refused.discard(name)
        _say_late(late, facts)
        log.info("scheduled job submitted", extra={**facts, "job_id": job_id})
        await self._write(name, replace(started, result=job_id))

    async def _command(self, name: str, started: Record, words: list[str]) -> None:
        """Run a command of ours to its end, and record its last line."""
        began = time.monotonic()
        code, told = await _run(words)
        facts = {"schedule": name, "exit": code, "seconds": round(time.monotonic() - began, 1), "output": told}
        log.log(logging.WARNING if code else logging.INFO, "scheduled command ended", extra=facts)
        with contextlib.suppress(redis.RedisError):  # the log has it
            await self.record(name, started, f"exit {code}: {told}" if code else told or "done")

    async def record(self, name: str, started: Record, result: str) -> None:
        """Record what came of a start, unless a later one has begun meanwhile. Raises RedisError."""
        (text,) = await ask_async(self._client, [("HGET", keyspace.SCHEDULES, name)])
        now = read_records({name.encode(): text}).get(name) if text else None
        if now is not None and now.time == started.time:
            await self._write(name, replace(now, result=result))

    async def _write(self, name: str, record: Record) -> None:
        fields = ("HSET", keyspace.SCHEDULES, name, json.dumps(asdict(record)))
        await ask_async(self._client, [although_full(fields)])


def _say_late(late: int, facts: dict[str, str]) -> None:
    if late:
        log.warning("missed times of a schedule are started once", extra={**facts, "missed": late})


async def _run(words: list[str]) -> tuple[int, str]:
    """The exit code and the last line of a command of ours, which is killed after COMMAND_SECONDS."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *FAILOVER, *words, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        return 1, f"no end within {COMMAND_SECONDS:.0f} s"
    finally:
        if process.returncode is None:
            process.kill()
    lines = output.decode(errors="replace").strip().splitlines()
    return process.returncode or 0, lines[-1][:LONGEST_TOLD] if lines else ""


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
