"""Log formats: one JSON object per line, or text on a terminal. The facts of a log line are in `extra`, not in its text."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO

from worker.humanize import printable

_encode = json.JSONEncoder(default=str).encode
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(stream: TextIO = sys.stderr, level: int = logging.INFO) -> None:
    """Write all logs to `stream`: `failover.*` from `level`, all others from WARNING."""
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
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {"at": _at(record), "level": record.levelname.lower(), "event": record.getMessage()}
        line |= _facts(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = "  ".join(f"{key}={value}" for key, value in _facts(record).items() if value is not None)
        text = f"{_at(record)[11:19]} {record.levelname:7} {record.getMessage()}"
        text += f"  {facts}" if facts else ""
        return printable(text + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""))
