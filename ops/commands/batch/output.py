"""The results of a batch: a line or a row for each line of the input, in its order."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count, repeat
from pathlib import Path
from typing import IO, Any, Protocol

from ops.commands.batch.run import Submission, Submitted
from ops.commands.batch.source import LIKE_BYTES, STANDARD, Table
from producer import Producer
from producer.batch import CHUNK, CHUNK_BYTES, BadLine, error_line, failed, output_line
from producer.errors import UsageError
from producer.job import JobResult, JobStatus

STANDARD_OUTPUT = {STANDARD, Path("/dev/stdout"), Path("/dev/fd/1"), Path("/proc/self/fd/1")}
TABLES = {".csv": None, ".tsv": "\t"}  # suffix -> what separates the columns; None: what separates those of the input
LIKELY_BYTES = 50_000  # of an answer, until some are known


@dataclass
class Written:
    """The counts of a finished batch."""

    done: int = 0
    dead: int = 0
    bad: int = 0
    by_route: dict[str, int] = field(default_factory=dict)
    deaths: dict[str, list[str]] = field(default_factory=dict)  # why -> job ids


class _Sink(Protocol):
    def write(self, line: dict[str, Any], result: JobResult | None, row: list[str]) -> int:
        """Write one result; returns about how many bytes it has."""


class _Lines:
    """Output lines in OpenAI's form."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, line: dict[str, Any], _result: JobResult | None, _row: list[str]) -> int:
        return self._file.write(json.dumps(line, ensure_ascii=False) + "\n")


class _Rows:
    """The rows of the input, with two more columns: the answer, and why there is none."""

    def __init__(self, file: IO[str], table: Table, delimiter: str) -> None:
        file.write("\ufeff" if table.marked else "")
        self._writer = csv.writer(file, delimiter=delimiter, lineterminator=table.line_end)
        self._width = len(table.header)
        self._writer.writerow([*table.header, *(_free(name, table.header) for name in ("answer", "error"))])

    def write(self, line: dict[str, Any], result: JobResult | None, row: list[str]) -> int:
        padded = row + [""] * (self._width - len(row))
        answer = result.text if result is not None and not failed(line) else ""
        self._writer.writerow([*padded[: self._width], answer, _why(line), *padded[self._width :]])
        return len(answer)


def _free(name: str, taken: list[str]) -> str:
    return next(each for number in count(1) if (each := name if number == 1 else f"{name}_{number}") not in taken)


def _why(line: dict[str, Any]) -> str:
    """Why an output line has no answer; "" if it has one."""
    if not failed(line):
        return ""
    error = line["error"] or line["response"]["body"]["error"]
    return str(error["message"])


def check_writable(source: Path, *paths: Path | None) -> None:
    """Check, before any job is paid for, that each result file can be written. Raises UsageError."""
    taken = {source.resolve()}
    for path in paths:
        if path is None or path in STANDARD_OUTPUT:
            continue
        where = path.resolve()
        if where in taken:
            raise UsageError(f"{path}: is the input or the other output already")
        taken.add(where)
        if not path.exists() and not where.parent.is_dir():
            raise UsageError(f"{path}: the folder {path.parent} does not exist")
        if path.is_dir() or not os.access(path if path.exists() else where.parent, os.W_OK):
            raise UsageError(f"{path}: cannot be written")


def write(
    producer: Producer, submitted: Submitted, output: Path, errors: Path | None, table: Table | None = None
) -> Written:
    """Write the results in input order. Failed lines go to `errors` if given. A file appears only when it is complete.
    `table`: the rows of the input, where there are any; a .csv or .tsv file then gets them, with the answers."""
    written = Written(bad=len(submitted.bad))
    with ExitStack() as stack:
        sink = _sink(stack.enter_context(_replacing(output)), output, table)
        error_sink = _sink(stack.enter_context(_replacing(errors)), errors, table) if errors else sink
        answers = _Answers(producer, submitted)
        rows = table.rows() if table is not None else repeat([])
        for (line, result), row in zip(answers, rows):  # noqa: B905 - rows without a table do not end
            without = failed(line)
            answers.wrote((error_sink if without else sink).write(line, result, row))
            written.done += not without
            if result is not None and result.status is JobStatus.DEAD:
                written.dead += 1
                written.deaths.setdefault(f"{result.dead_reason}: {result.dead_detail}", []).append(result.job_id)
            if result is not None and result.route:
                written.by_route[result.route] = written.by_route.get(result.route, 0) + 1
    return written


def _sink(file: IO[str], path: Path, table: Table | None) -> _Sink:
    if table is None or path.suffix.lower() not in TABLES:
        return _Lines(file)
    return _Rows(file, table, TABLES[path.suffix.lower()] or table.delimiter)


class _Answers:
    """The output line and the result of each line of the input. So many are read at once as likely fit into CHUNK_BYTES: an
    answer counts as large as its prompt, or as the answers so far."""

    def __init__(self, producer: Producer, submitted: Submitted) -> None:
        self._producer, self._entries = producer, submitted.entries
        self._count, self._bytes = 1, LIKELY_BYTES  # of what was written

    def wrote(self, size: int) -> None:
        self._count += 1
        self._bytes += size

    def __iter__(self) -> Iterator[tuple[dict[str, Any], JobResult | None]]:
        start = 0
        while start < len(self._entries):
            chunk = self._entries[start : start + self._many(start)]
            start += len(chunk)
            results = iter(self._producer.fetch_many([each.job_id for each in chunk if isinstance(each, Submission)]))
            for entry in chunk:
                if isinstance(entry, BadLine):
                    yield error_line(entry), None
                else:
                    result = next(results)
                    yield output_line(entry.custom_id, entry.job_id, result), result

    def _many(self, start: int) -> int:
        """How many lines to read at once from there, at least one."""
        likely, size = self._bytes // self._count, 0
        for number, entry in enumerate(self._entries[start : start + CHUNK]):
            size += max(likely, entry.size if isinstance(entry, Submission) else 0)
            if size > CHUNK_BYTES:
                return max(1, number)
        return CHUNK


@contextmanager
def _replacing(path: Path) -> Iterator[IO[str]]:
    """A text file that replaces `path` only when it is complete; a pipe, a device and standard output are written directly."""
    if path in STANDARD_OUTPUT:
        yield sys.stdout
        sys.stdout.flush()
        return
    if path.exists() and not path.is_file():
        with path.open("w", **LIKE_BYTES) as file:  # type: ignore[call-overload]
            yield file
        return
    path = path.resolve()
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", **LIKE_BYTES) as file:  # type: ignore[call-overload]
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
