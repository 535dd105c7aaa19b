"""Log formats: one JSON object per line, or text on a terminal. The facts of a log line are in `extra`, not in its text."""

from __future__ import annotations

import logging
import sys
import time
from functools import lru_cache
from typing import TextIO

from pydantic_core import to_json

from worker.humanize import printable

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(stream: TextIO = sys.stderr, level: int = logging.INFO) -> None:
    """Write all logs to `stream`: `failover.*` from `level`, all others from WARNING. What no line shows is not looked up."""
    logging._srcfile = None  # this and the next as in "Optimization" of the library's own page
    logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Text() if stream.isatty() else _Json())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("failover").setLevel(level)
    logging.getLogger("rq").setLevel(logging.WARNING)


def _facts(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _at(record: logging.LogRecord) -> str:
    return f"{_second(int(record.created))}.{int(record.msecs):03d}Z"


@lru_cache(maxsize=2)
def _second(unix: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {"at": _at(record), "level": record.levelname.lower(), "event": record.getMessage()}
        line |= _facts(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return to_json(line, fallback=str, ensure_ascii=True).decode()
        except ValueError:  # half of a character, or a circle
            return to_json({name: _plain(value) for name, value in line.items()}).decode()


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and value.isascii()):
        return value
    return ascii(value)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = "  ".join(f"{key}={value}" for key, value in _facts(record).items() if value is not None)
        text = f"{_at(record)[11:19]} {record.levelname:7} {record.getMessage()}"
        text += f"  {facts}" if facts else ""
        return printable(text + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""))
