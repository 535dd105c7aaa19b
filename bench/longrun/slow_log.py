"""The longest commands of Redis, by its slow log, with the names of our scripts.

The slow log has the time that passed, also while other processes had the core. So beside it is an estimate of what Redis
computed itself: by the kernel's count of how long its main thread ran, and how long it waited for a core.
"""

from __future__ import annotations

from pathlib import Path

import redis

from producer.scripts import Script

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = 1024  # kept by Redis between two looks
NOTED_MS = 2.0


class SlowLog:
    """The slow log of a server on this machine, from now on. `ms`, `name`: of the longest command that `look` has found;
    `computed_ms`: about how much of it was Redis's own work."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._thread = Path("/proc/{0}/task/{0}/schedstat".format(client.info("server")["process_id"]))
        client.config_set("slowlog-log-slower-than", int(NOTED_MS * 1000))
        client.config_set("slowlog-max-len", ENTRIES)
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._client.slowlog_reset()
        self.ms, self.computed_ms, self.name = 0.0, 0.0, "none"
        self._before = self._ran_and_waited()

    def look(self) -> None:
        """Read what is new; must be called before ENTRIES commands are noted."""
        entries = self._client.slowlog_get(ENTRIES)
        self._client.slowlog_reset()
        before, (ran, waited) = self._before, self._ran_and_waited()
        self._before = (ran, waited)
        ran, waited = ran - before[0], waited - before[1]
        longest = max(entries, key=lambda entry: entry["duration"], default=None)
        if longest is not None and longest["duration"] / 1000 > self.ms:
            self.ms, self.name = longest["duration"] / 1000, _name(bytes(longest["command"]))
            self.computed_ms = self.ms * ran / max(1, ran + waited)

    def __str__(self) -> str:
        return f"{self.ms:.1f} ms, about {self.computed_ms:.1f} ms of them computed ({self.name})"

    @property
    def computed_seconds(self) -> float:
        """CPU of the server's main thread so far."""
        return self._ran_and_waited()[0] / 1e9

    def _ran_and_waited(self) -> tuple[int, int]:
        """Nanoseconds of the server's main thread so far."""
        ran, waited, _ = self._thread.read_text().split()
        return int(ran), int(waited)


def _name(command: bytes) -> str:
    words = command.decode(errors="replace").split()
    return SCRIPTS.get(words[1], words[1]) if words[0].upper() == "EVALSHA" else " ".join(words[:2])


def _scripts() -> dict[str, str]:
    """Every script of the project by its SHA-1; preludes have one too, which nobody calls."""
    files = [path for package in ("producer", "worker", "ops") for path in (ROOT / package).glob("**/lua/*.lua")]
    return {Script.load(path.parent, path.stem).sha: path.stem for path in files}


SCRIPTS = _scripts()
