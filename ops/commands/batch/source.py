"""The input of a batch: lines in OpenAI's form, a prompt on each line, or a CSV with a column of prompts."""

from __future__ import annotations

import codecs
import csv
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO

from producer.batch import LONGEST_LINE, BadLine, Line, Reader, WrongFile, not_text
from producer.errors import UsageError

STANDARD = Path("-")  # input and output
PROMPT = "prompt"  # the column of a list of prompts
DELIMITERS = (",", ";", "\t", "|")
LIKE_BYTES = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}  # what is not UTF-8 is written as it was


@dataclass
class Table:
    """The rows of the input as they were read, in a file without a name: standard input is read once, and a file may change
    while its jobs run."""

    header: list[str]
    delimiter: str = ","
    marked: bool = False  # it begins with a byte order mark, without which Excel reads no UTF-8
    line_end: str = "\n"

    def __post_init__(self) -> None:
        csv.field_size_limit(LONGEST_LINE)
        self._rows: IO[str] = tempfile.TemporaryFile("w+", **LIKE_BYTES)  # type: ignore[call-overload]  # noqa: SIM115 - it ends with the table

    def add(self, row: list[str]) -> None:
        csv.writer(self._rows).writerow(row)

    def rows(self) -> Iterator[list[str]]:
        self._rows.seek(0)
        return csv.reader(self._rows)


@dataclass
class Source:
    """The input. `prompts`: each line is a prompt. `column`: it is a CSV, and this column has the prompts. Neither: OpenAI's
    form. `table`: the rows, once they are read, if each of them is to be written again with its answer."""

    path: Path
    prompts: bool = False
    column: str | None = None
    table: Table | None = None

    @property
    def name(self) -> str:
        return "standard input" if self.path == STANDARD else str(self.path)

    def lines(self, reader: Reader) -> Iterator[Line | BadLine]:
        """Every line that is not blank, in order. Raises UsageError for a file of another form or one that cannot be read."""
        try:
            with _opened(self.path) as file:
                if self.column is not None:
                    yield from self._of_column(file, reader, self.column)
                elif self.prompts:
                    yield from self._of_prompts(file, reader)
                else:
                    yield from (line for raw in _bounded(file) if (line := reader.line(raw)) is not None)
        except WrongFile as wrong:
            raise WrongFile(f"{self.name}: {wrong}") from None

    def _of_prompts(self, file: BufferedReader, reader: Reader) -> Iterator[Line | BadLine]:
        self.table = Table([PROMPT])
        _check_text(file.peek(1))
        for number, raw in enumerate(_bounded(file), start=1):
            if text := _text(raw).strip():
                self.table.add([text])
                yield reader.prompt(number, text)

    def _of_column(self, file: BufferedReader, reader: Reader, column: str) -> Iterator[Line | BadLine]:
        lines = _bounded(file)
        _check_text(file.peek(1))
        first = next(lines, b"")
        header, delimiter = _header(_text(first), column)
        place = header.index(column)
        line_end = "\r\n" if first.endswith(b"\r\n") else "\n"
        self.table = Table(header, delimiter, first.startswith(codecs.BOM_UTF8), line_end)
        texts = map(_text, lines)
        rows = csv.reader(texts, delimiter=delimiter)
        number = 2
        try:
            for row in rows:
                if any(map(str.strip, row)):
                    self.table.add(row)
                    yield reader.prompt(number, row[place] if place < len(row) else "", column)
                number = rows.line_num + 2  # a field may have several lines
        except csv.Error as error:
            raise WrongFile(f"line {number}: {error}") from None


def _header(line: str, column: str) -> tuple[list[str], str]:
    """The names of the columns, and what separates them. Raises WrongFile without the wanted one."""
    if not line.strip():
        raise WrongFile("is empty")
    headers = [(next(csv.reader([line], delimiter=each), []), each) for each in DELIMITERS]
    named = [([name.strip() for name in names], each) for names, each in headers]
    for names, delimiter in named:
        if column in names:
            return names, delimiter
    names, _ = max(named, key=lambda pair: len(pair[0]))
    raise WrongFile(f"has no column {column!r}; its first line names {', '.join(map(repr, names)) or 'none'}")


def _text(raw: bytes) -> str:
    """A line; its byte order mark is dropped, and what is not UTF-8 is kept as surrogates."""
    return raw.decode("utf-8-sig", "surrogateescape")


def _check_text(head: bytes) -> None:
    if what := not_text(head):
        raise WrongFile(f"it is {what}")


def _bounded(file: BufferedReader) -> Iterator[bytes]:
    """The lines of the file. One that is longer than LONGEST_LINE is cut one byte behind it, so that memory is bounded."""
    while raw := file.readline(LONGEST_LINE + 1):
        rest = raw
        while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
            rest = file.readline(LONGEST_LINE + 1)
        yield raw


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    if path == STANDARD:
        yield open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115 - nothing to close
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    with file:
        yield file
