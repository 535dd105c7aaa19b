"""Counts what happened into documents by minute and hour. One of the workers does it for all.

It reads two streams: the outcomes, which the settling scripts write, and the ledger's closed rows. What was counted and
up to where is stored in one script: so each entry is counted once, also when this worker is killed or another one counts
at the same time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import redis.asyncio
from pydantic_core import from_json, to_json

from producer import keyspace
from producer.scripts import Command, Script, ask_async
from worker.history.document import ALL, COST, DIMENSIONS, PEAK, Document, Facts, bucket_of
from worker.money.budget_state import month_of

log = logging.getLogger("failover.worker")

COLLECT = Script.load(Path(__file__).parent / "lua", "collect")
PAGE = 500  # entries that are read at once, because counting them takes the event loop some 10 ms
MINUTES_KEPT_SECONDS = 48 * 3600
HOURS_KEPT_SECONDS = 400 * 86400
OUTCOMES = "outcomes"
OPTIONAL = ("first token", COST)  # of an outcome: its route streams, its cost is known
MINUTE_MS, HOUR_MS = 60_000, 3_600_000


class Collector:
    """The collector of one worker. `queues` are looked at, too: how many jobs were accepted and not ended, and how many of
    them late. `open_routes` returns the routes whose breaker is open now; `maintained`, whether a minute (Unix time / 60) is
    in a maintenance window: such minutes are kept apart in their hour, too, because objectives leave them out."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        queues: Sequence[str] = (),
        open_routes: Callable[[], Collection[str]] = tuple,
        maintained: Callable[[int], bool] = lambda minute: False,
    ) -> None:
        self._client, self._queues, self._open_routes, self._maintained = client, queues, open_routes, maintained

    async def step(self, seconds: float = 0.0) -> None:
        """Count all that has happened since the last step of any worker; `seconds`: how long ago that usually is. Raises
        RedisError."""
        seen = await self._look(seconds)
        while await self._collect(seen):
            seen = {}

    async def _look(self, seconds: float) -> dict[int, Document]:
        """The queues and breakers as they are now, as a document of this minute; none if there is nothing to say."""
        if not self._queues:
            return {}
        ((now, _),) = await self._ask(("TIME",))
        sizes = [("ZCARD", keyspace.accepted(queue)) for queue in self._queues]
        late = [("ZCOUNT", keyspace.promised(queue), "-inf", int(now) * 1000) for queue in self._queues]
        counts = await self._ask(*sizes, *late)
        document = Document()
        everything = document.of(ALL, "")
        everything.count(PEAK + "waiting", sum(counts[: len(sizes)]))
        everything.count(PEAK + "late", sum(counts[len(sizes) :]))
        for route in self._open_routes():
            document.of("route", route).count("open_seconds", round(seconds))
        said = bool(everything.counters) or bool(document.facts["route"])
        return {int(now) * 1000 // MINUTE_MS: document} if said else {}

    async def _ask(self, *commands: Command) -> list[Any]:
        return await ask_async(self._client, commands)

    async def _collect(self, minutes: dict[int, Document]) -> bool:
        """Add one page of each stream to `minutes`, and store them. Returns whether there may be more."""
        months = _months_now()
        raw, outcomes = await self._ask(
            ("GET", keyspace.HISTORY_CURSOR), ("XRANGE", keyspace.HAPPENED, "-", "+", "COUNT", PAGE)
        )
        cursor = _cursor(raw)
        wanted = [("XRANGE", keyspace.LEDGER + m, f"({cursor.get(m, '0-0')}", "+", "COUNT", PAGE) for m in months]
        ledgers = dict(zip(months, await self._ask(*wanted), strict=True))
        if not minutes and not outcomes and not any(ledgers.values()):
            return False
        for entry_id, fields in outcomes:
            count_outcome(_minute(minutes, entry_id), fields.get(b"e", b""))
        for rows in ledgers.values():
            for entry_id, fields in rows:
                count_row(_minute(minutes, entry_id), fields)
        counted = outcomes[-1][0].decode() if outcomes else ""
        last = {month: rows[-1][0].decode() for month, rows in ledgers.items() if rows}
        last |= {OUTCOMES: counted} if counted else {}  # it makes the cursor another one, also where no row closed
        new = {of: at for of, at in {**cursor, **last}.items() if of in (OUTCOMES, *months)}
        stored = await self._store(raw or b"", new, counted, minutes)
        return stored and (len(outcomes) == PAGE or any(len(rows) == PAGE for rows in ledgers.values()))

    async def _store(
        self, before: bytes, cursor: Mapping[str, str], counted: str, minutes: Mapping[int, Document]
    ) -> bool:
        hours: dict[str, Document] = {}
        for minute, document in minutes.items():
            hours.setdefault(keyspace.hour(minute // 60), Document()).add(document)
            if self._maintained(minute):
                hours.setdefault(keyspace.maintained_hour(minute // 60), Document()).add(document)
        new = {keyspace.minute(each): (document, MINUTES_KEPT_SECONDS) for each, document in minutes.items()}
        new |= {key: (document, HOURS_KEPT_SECONDS) for key, document in hours.items()}
        (known,) = await self._ask(("MGET", *new))
        words: list[Any] = [before, to_json(cursor), counted]
        for raw, (document, seconds) in zip(known, new.values(), strict=True):
            whole = Document.unpacked(raw)
            whole.add(document)
            words += [whole.packed(), seconds]
        (stored,) = await self._ask(COLLECT.call([keyspace.HISTORY_CURSOR, keyspace.HAPPENED, *new], words))
        return bool(stored)


def count_outcome(document: Document, raw: bytes) -> None:
    """Count one outcome, as worker/queue/outcome_events.py records it; one that cannot be read is left out."""
    try:
        record = from_json(raw)
        counters, times = _counted(record)
        for facts in _everywhere(document, record):
            for counter in counters:
                facts.count(counter)
            for name, bucket in times:
                facts.time(name, bucket)
        for route, outcome, ms in record.get("attempts", ()):
            bucket = bucket_of(ms)
            for facts in (document.of(ALL, ""), document.of("route", str(route))):
                facts.count("attempts")
                facts.count(f"attempts {outcome}")
                facts.time("attempt", bucket)
    except (ValueError, TypeError, KeyError, AttributeError):
        log.warning("an entry of the history cannot be read", extra={"entry": raw[:200].decode(errors="replace")})


def _counted(record: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, int]]]:
    """The counters of an outcome, and the buckets of its times."""
    kind = str(record["kind"])
    if kind == "dead":
        return [kind, f"dead {record.get('reason', '')}"], []
    if kind != "done":
        return [kind], []
    told = {"answer": "answer_ms", "run": "run_ms", "first token": "first_token_ms", COST: "cost_micros"}
    times = [(name, bucket_of(record[at])) for name, at in told.items() if name not in OPTIONAL or at in record]
    return [kind, *map(str, record.get("flags", ()))], times


def _everywhere(document: Document, names: Mapping[str, Any]) -> list[Facts]:
    """The facts in all, and of each name."""
    found = [document.of(ALL, "")]
    for dimension in DIMENSIONS[1:]:
        if name := names.get(dimension):
            found.append(document.of(dimension, str(name)))
    return found


def count_row(document: Document, row: Mapping[bytes, bytes]) -> None:
    """Count one closed row of the ledger."""
    micros, prompt, completion = (int(row.get(name, b"") or 0) for name in (b"micros", b"prompt", b"completion"))
    settled = int(row.get(b"state") == b"settled")
    names = {dimension: row.get(dimension.encode(), b"").decode(errors="replace") for dimension in DIMENSIONS[1:]}
    for facts in _everywhere(document, names):
        facts.count("calls", settled)
        facts.count("micros", micros)
        facts.count("prompt_tokens", prompt)
        facts.count("completion_tokens", completion)


def _minute(minutes: dict[int, Document], entry_id: bytes) -> Document:
    return minutes.setdefault(int(entry_id.partition(b"-")[0]) // MINUTE_MS, Document())


def _months_now() -> list[str]:
    """The months in which rows may close now: this one, and its neighbours, because Redis has a clock of its own."""
    now = datetime.now(UTC)
    return sorted({month_of(now + timedelta(days=days)) for days in (-3, 0, 1)})


def _cursor(raw: bytes | None) -> dict[str, str]:
    """The last outcome that is counted, and by month the last row of the ledger."""
    try:
        found = from_json(raw or b"{}")
        return {str(month): str(at) for month, at in found.items()}
    except (ValueError, AttributeError):
        return {}
