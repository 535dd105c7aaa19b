"""The input file of a batch, line by line and in chunks: jobs, or what is wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from ops.web.batches.batch_records import Batch
from ops.web.openai.wanted import OURS, aim
from producer.batch import BadLine, Line, Reader
from producer.job import LLMJob
from producer.policy import Policies

DEFAULT = "batch"  # the job type of a model that is neither a job type nor a route
MOST_LINES = 50_000
MOST_WITH_BLANK_ONES = 10 * MOST_LINES
LONGEST_LINE = 4 * 1024 * 1024
CHUNK = 50  # lines that are read at once


class TooManyLines(Exception):
    """A file has more than MOST_LINES lines, or MOST_WITH_BLANK_ONES."""


@dataclass(frozen=True)
class Target:
    """What the models of a batch's lines mean."""

    policies: Policies
    routes: Collection[str]

    def job(self, line: Line, expires_after_seconds: float) -> LLMJob:
        """The job of a line: its model is a job type, a route or neither, as at the other doors."""
        body = dict(line.job.body)
        otherwise = DEFAULT if DEFAULT in self.policies.job_types else "default"
        job_type, route = aim(str(body.get("model") or ""), self.policies, self.routes, otherwise)
        seconds = min(expires_after_seconds, self.policies.of_known(job_type).expires_after_seconds)
        sent = {name: value for name, value in body.items() if name not in (*OURS, "metadata")}
        changed = {"body": sent, "job_type": job_type, "route": route, "expires_after_seconds": seconds}
        return line.job.model_copy(update={**changed, "idempotency_key": None})


async def chunks_of(content: AsyncIterator[bytes], batch: Batch) -> AsyncIterator[list[Line | BadLine]]:
    """The lines that are not blank, in order. They are read in a thread, because much JSON takes the loop's time. Raises
    TooManyLines."""
    reader = Reader(job_type="default", tenant_id=batch.tenant, feature=batch.fields.get("feature", ""))
    count = 0
    async for raw in _raw_lines(content):
        read = await run_in_threadpool(list, map(reader.line, raw))
        lines = [each for each in read if each is not None]
        count += len(lines)
        if count > MOST_LINES:
            raise TooManyLines
        yield lines


async def _raw_lines(content: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Up to CHUNK lines at once. What is longer than LONGEST_LINE is cut, so that it is no JSON."""
    rest, lines, count = b"", list[bytes](), 0
    async for part in content:
        *whole, rest = (rest + part).split(b"\n")
        rest = rest[: LONGEST_LINE + 1]
        count += len(whole)
        if count > MOST_WITH_BLANK_ONES:
            raise TooManyLines
        lines += whole
        while len(lines) >= CHUNK:
            yield lines[:CHUNK]
            lines = lines[CHUNK:]
    yield [*lines, rest]
