"""One batch, step by step: validate its file, submit its lines, collect their answers in order, finish."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ops.web.batches import batch_records, file_records
from ops.web.batches.batch_records import Batch
from ops.web.batches.file_records import UNFINISHED_SECONDS, FileRecord, UnknownFile, new_file_id, now
from ops.web.batches.lines import MOST_LINES, Target, TooManyLines, chunks_of
from ops.web.batches.store import Part, Store
from producer import keyspace
from producer.batch import BadLine, Line, WrongFile, failed, output_line
from producer.client import AsyncProducer
from producer.errors import JobEnded, UnknownJob
from producer.job import JobResult, JobStatus
from producer.results import has_ended
from producer.scripts import Script

COLLECT = Script.load(Path(__file__).parent / "lua", "collect")
PURPOSE = "batch_output"  # of both files
WINDOW = 1000  # jobs of one batch that wait or run at once
AT_ONCE = 200  # answers that are collected at once
SHOWN_ERRORS = 100
KEEP_COLLECTED_SECONDS = 3600  # a job, after its answer is in the output file
LOOK_SECONDS = (0.1, 2.0)
_STOPPED = {"cancelling": "batch_cancelled", "expired": "batch_expired"}


class BatchRun:
    """The run of one batch in this process. `routes`: the names of routes, which a line's model may name. `token`: of the
    process that has the batch, for `held_seconds`."""

    def __init__(
        self,
        producer: AsyncProducer,
        store: Store,
        routes: Callable[[], Awaitable[Collection[str]]],
        batch_id: str,
        token: str,
        held_seconds: int,
    ) -> None:
        self._producer, self._store, self._routes = producer, store, routes
        self._batch_id, self._token, self._held_seconds = batch_id, token, held_seconds
        self._lines: AsyncIterator[list[Line | BadLine]] | None = None
        self._read = 0  # lines of the file that were submitted or collected before
        self._window: deque[tuple[str, str]] = deque()  # (custom_id, job id) in order: submitted, and not collected
        self._shown = (0, 0)  # the counts of answers that wait for an earlier line
        self.pause = LOOK_SECONDS[0]

    async def step(self) -> bool:
        """Take the batch one step on. Returns whether it has ended, or is another process's. Raises FailoverError."""
        (batch,) = await batch_records.read_many(self._producer, [self._batch_id])
        if batch is None:
            await self._producer.send([("SREM", keyspace.OPEN_BATCHES, self._batch_id)])
            return True
        match batch.status:
            case "validating":
                await self._validate(batch)
            case "in_progress" if now() < batch.number("expires_at"):
                await self._submit(batch)
                await self._collect(batch, "")
                if self._lines is None and not self._window:
                    await self._move(batch, "finalizing")
            case "in_progress" | "cancelling":
                await self._stop(batch, "cancelling" if batch.status == "cancelling" else "expired")
                return True
            case "finalizing":
                await self._end(batch, "completed")
                return True
            case _:
                await self._producer.send(batch_records.ending(self._batch_id, {}))
                return True
        return False

    async def _move(self, batch: Batch, status: str, **fields: str | int) -> None:
        at = {"status": status, f"{status}_at": now(), **fields}
        await self._producer.send([batch_records.moving(self._batch_id, [batch.status], at)])

    async def _validate(self, batch: Batch) -> None:
        """Read the whole file: a wrong line fails the batch before anything is paid."""
        errors: list[dict[str, Any]] = []
        total = 0
        try:
            await file_records.read(self._producer, batch.input_file_id, batch.tenant)
            async for chunk in chunks_of(self._store.content(batch.input_file_id), batch):
                total += len(chunk)
                errors += [_error(line) for line in chunk if isinstance(line, BadLine)]
                await self._producer.send([batch_records.holding(self._batch_id, self._token, self._held_seconds)])
        except UnknownFile as gone:
            errors = [_problem("file_not_found", str(gone))]
        except WrongFile as wrong:
            errors = [_problem("invalid_file", str(wrong))]
        except TooManyLines:
            errors = [_problem("too_many_lines", f"the file has more than {MOST_LINES:,} lines")]
        if not total and not errors:
            errors = [_problem("empty_file", "the file has no line")]
        if errors:
            shown = json.dumps(errors[:SHOWN_ERRORS])
            await self._producer.send(
                batch_records.ending(self._batch_id, {"status": "failed", "failed_at": now(), "errors": shown})
            )
            return
        files = {"output_id": new_file_id(), "error_id": new_file_id()}
        await self._move(batch, "in_progress", total=total, collected=0, **files)

    async def _submit(self, batch: Batch) -> None:
        """Fill the window with the next lines."""
        if self._read == 0:
            self._lines = chunks_of(self._store.content(batch.input_file_id), batch)
        target = Target(self._producer.policies, await self._routes())
        collected, left = batch.number("collected"), batch.number("expires_at") - now()
        while self._lines is not None and len(self._window) < WINDOW:
            chunk = await anext(self._lines, None)
            if chunk is None:
                self._lines = None
                return
            if new := self._with_ids(chunk, collected):
                await self._producer.submit_many((target.job(line, max(60, left)), job_id) for line, job_id in new)
                self._window.extend((line.custom_id, job_id) for line, job_id in new)

    def _with_ids(self, chunk: Sequence[Line | BadLine], collected: int) -> list[tuple[Line, str]]:
        """The next lines of the file that are not collected yet, with the ids of their jobs."""
        first, lines = self._read, [line for line in chunk if isinstance(line, Line)]
        self._read += len(lines)
        return [(line, f"{self._batch_id}-{n}") for n, line in enumerate(lines, start=first) if n >= collected]

    async def _collect(self, batch: Batch, stopped: str) -> None:
        """Add the answers of the first jobs of the window that have ended to the files. `stopped`: jobs that have not ended are
        errors of this code."""
        began, moved = time.monotonic(), False
        while self._window:
            ids = [job_id for _, job_id in self._window]
            statuses = await self._producer.send([("HGET", keyspace.job(job_id), "status") for job_id in ids])
            running = (at for at, status in enumerate(statuses) if not has_ended(status))
            ready = len(ids) if stopped else next(running, len(ids))
            if ready == 0:
                ended = [status == b"finished" for status in statuses if has_ended(status)]
                shown = (ended.count(True), ended.count(False))
                moved, self._shown = moved or shown != self._shown, shown
                await self._count(batch, *shown)
                break
            moved, count = True, min(ready, AT_ONCE)
            batch = await self._take(batch, [self._window.popleft() for _ in range(count)], stopped)
        took = time.monotonic() - began
        pause = 4 * took if moved else 1.5 * self.pause  # what does not move is looked at less
        self.pause = max(LOOK_SECONDS[0], min(pause, LOOK_SECONDS[1]))

    async def _count(self, batch: Batch, done: int, failed: int) -> None:
        """Show the counts as they are now, with the answers that wait for an earlier line."""
        counts = ("completed", batch.number("done") + done, "failed", batch.number("dead") + failed)
        await self._producer.send([("HSET", keyspace.batch(self._batch_id), *counts)])

    async def _take(self, batch: Batch, entries: Sequence[tuple[str, str]], stopped: str) -> Batch:
        """Write the answers of the next lines. Returns the batch with its counts."""
        results = await self._producer.fetch_many([job_id for _, job_id in entries])
        lines = [_line(*entry, result, stopped) for entry, result in zip(entries, results, strict=True)]
        good, bad = ([line for line in lines if failed(line) is wanted] for wanted in (False, True))
        collected = batch.number("collected")
        name = f"{collected:06}"
        output = await self._store.keep(batch.fields["output_id"], name, _jsonl(good))
        error = await self._store.keep(batch.fields["error_id"], name, _jsonl(bad))
        numbers = {
            "collected": collected + len(lines),
            "done": batch.number("done") + len(good),
            "dead": batch.number("dead") + len(bad),
            "output_size": batch.number("output_size") + output.size,
            "error_size": batch.number("error_size") + error.size,
        }
        fields = {**numbers, "completed": numbers["done"], "failed": numbers["dead"]}
        done = [result.job_id for result in results if result is not None and result.status is JobStatus.DONE]
        if not await self._write(batch, fields, (output, error), done):  # dead letters stay for people
            raise Taken(self._batch_id)
        return Batch(self._batch_id, {**batch.fields, **{name: str(value) for name, value in fields.items()}})

    async def _write(self, batch: Batch, fields: Mapping[str, int], parts: Sequence[Part], ids: Sequence[str]) -> bool:
        files = [batch.fields[f"{name}_id"] for name in ("output", "error")]
        keys = [
            keyspace.batch(self._batch_id),
            keyspace.batch_runner(self._batch_id),
            keyspace.FILES_KEPT,
            keyspace.FILE_SIZES,
            *(keyspace.file_parts(file_id) for file_id in files),
        ]
        content = [
            word for file_id, part in zip(files, parts, strict=True) for word in (part.entry, file_id, part.stored)
        ]
        flat = [word for pair in fields.items() for word in pair]
        prefixes = (keyspace.JOB, keyspace.RESULTS)
        until = now() + UNFINISHED_SECONDS + batch.number("expires_at") - batch.number("created_at")
        head = (self._token, batch.number("collected"), until, KEEP_COLLECTED_SECONDS, *prefixes, *content, len(flat))
        (written,) = await self._producer.send([COLLECT.call(keys, [*head, *flat, *ids])])
        return bool(written)

    async def _stop(self, batch: Batch, why: str) -> None:
        """Cancel what has not ended; what has is the output. `why`: cancelling or expired."""
        if self._read == 0 and batch.fields.get("output_id"):
            await self._submitted_before(batch)
        for _, job_id in self._window:
            with suppress(JobEnded, UnknownJob):
                await self._producer.cancel(job_id, who="batch")
        if batch.fields.get("output_id"):
            await self._collect(batch, _STOPPED[why])
        (batch_now,) = await batch_records.read_many(self._producer, [self._batch_id])
        await self._end(batch_now or batch, "cancelled" if why == "cancelling" else "expired")

    async def _submitted_before(self, batch: Batch) -> None:
        """The window of the process that ran the batch before: jobs that are there, without submitting more."""
        collected = batch.number("collected")
        async for chunk in chunks_of(self._store.content(batch.input_file_id), batch):
            known = [(line.custom_id, job_id) for line, job_id in self._with_ids(chunk, collected)]
            statuses = await self._producer.send([("HGET", keyspace.job(job_id), "status") for _, job_id in known])
            there = [entry for entry, status in zip(known, statuses, strict=True) if status is not None]
            self._window.extend(there)
            if known and not there:
                return

    async def _end(self, batch: Batch, status: str) -> None:
        """Turn the collected parts into files, and the batch into what it is now."""
        fields: dict[str, str | int] = {"status": status, f"{status}_at": now()}
        for name in ("output", "error"):
            size, created_at = batch.number(f"{name}_size"), now()
            if size:
                file_id, expires_at = batch.fields[f"{name}_id"], created_at + file_records.KEEP_SECONDS
                filename = f"{self._batch_id}_{name}.jsonl"
                record = FileRecord(file_id, batch.tenant, filename, PURPOSE, created_at, expires_at, size)
                await self._producer.send(file_records.writing(record))
                fields[f"{name}_file_id"] = file_id
        await self._producer.send(batch_records.ending(self._batch_id, fields))


class Taken(UnknownJob):
    """Another process runs the batch now."""


def _line(custom_id: str, job_id: str, result: JobResult | None, stopped: str) -> dict[str, Any]:
    line = output_line(custom_id, job_id, result)
    if stopped and (result is None or result.status is not JobStatus.DONE):
        words = (
            "the batch was cancelled" if stopped == "batch_cancelled" else "the completion window of the batch is over"
        )
        line["error"] = {"code": stopped, "message": f"not executed: {words}"}
    return line


def _jsonl(lines: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode(errors="replace")


def _error(bad: BadLine) -> dict[str, Any]:
    return {"code": "invalid_line", "line": bad.number, "message": str(bad), "param": bad.field or None}


def _problem(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "line": None, "message": message, "param": None}
