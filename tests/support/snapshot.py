"""What a Redis holds, as JSON, and the same in another one at a later time: how an upgrade is tested.

Times are stored as they were. When a snapshot is restored, every number that is a time of those days, in seconds or
milliseconds, is moved to now; else all jobs would have expired.
"""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from typing import Any

import redis

NEAR_SECONDS = 100 * 86400  # a number within it of the snapshot's time is a time
NUMBER = re.compile(rb"(?<![\w.-])\d{10}(?:\d{3})?(?![\w])")


def take(client: redis.Redis, path: Path) -> None:
    """Write everything that a Redis holds to a file."""
    keys = [_taken(client, key) for key in sorted(client.scan_iter())]
    path.write_text(json.dumps({"at": time.time(), "keys": keys}, indent=0))


def restore(client: redis.Redis, path: Path) -> None:
    """Fill an empty Redis with what was taken, as if it had been taken now."""
    data = json.loads(path.read_text())
    clock = _Clock(data["at"])
    for kind, key, ttl_ms, words in data["keys"]:
        name, values = _bytes(key), [clock.moved(_bytes(word)) for word in words]
        match kind:
            case "string":
                client.set(name, values[0])
            case "hash":
                client.hset(name, mapping=dict(zip(values[::2], values[1::2], strict=True)))
            case "list":
                client.rpush(name, *values)
            case "set":
                client.sadd(name, *values)
            case "zset":
                client.zadd(
                    name, {member: float(score) for member, score in zip(values[::2], values[1::2], strict=True)}
                )
            case "stream":
                for entry in map(json.loads, values):
                    fields: Any = {_bytes(field): clock.moved(_bytes(value)) for field, value in entry[1]}
                    client.xadd(name, fields, id=clock.moved(entry[0].encode()))
        if ttl_ms > 0:
            client.pexpire(name, ttl_ms)


def _taken(redis_client: redis.Redis, key: bytes) -> tuple[str, str, int, list[str]]:
    client: Any = redis_client
    kind, words = client.type(key), list[bytes]()
    match kind:
        case b"string":
            words = [client.get(key)]
        case b"hash":
            words = [word for pair in client.hgetall(key).items() for word in pair]
        case b"list":
            words = list(client.lrange(key, 0, -1))
        case b"set":
            words = sorted(client.smembers(key))
        case b"zset":
            found = client.zrange(key, 0, -1, withscores=True)
            words = [
                word for member, score in found for word in (member, f"{score:.6f}".rstrip("0").rstrip(".").encode())
            ]
        case b"stream":
            entries = client.xrange(key)
            told = (
                [entry_id.decode(), [(_text(f), _text(v)) for f, v in fields.items()]] for entry_id, fields in entries
            )
            words = [json.dumps(each).encode() for each in told]
    return kind.decode(), _text(key), client.pttl(key), [_text(word) for word in words]


class _Clock:
    """Moves times from those of the snapshot to now."""

    def __init__(self, at: float) -> None:
        self._at, self._later = at, time.time() - at

    def moved(self, text: bytes) -> bytes:
        return NUMBER.sub(self._moved, text)

    def _moved(self, found: re.Match[bytes]) -> bytes:
        number, unit = int(found[0]), 1000 if len(found[0]) == 13 else 1
        is_time = abs(number / unit - self._at) < NEAR_SECONDS
        return str(number + int(self._later * unit)).encode() if is_time else found[0]


def _text(word: bytes) -> str:
    """Bytes as text; what is no text, in base64."""
    try:
        text = word.decode()
        return text if not text.startswith("base64:") else "base64:" + base64.b64encode(word).decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(word).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text[7:]) if text.startswith("base64:") else text.encode()
