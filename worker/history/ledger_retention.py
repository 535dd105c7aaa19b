"""Takes old ledger rows out of Redis. Two workers that do it at once do no harm.

The oldest closed rows are written to the archive (rows_file.py), and only then folded into sums (lua/fold_rows.lua), which
stay exact to the micro-dollar. What is about to be written is noted first, so that the next worker finishes it when this
one is killed. Without an archive, rows beyond the bounds are folded and not kept.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from heapq import nsmallest
from pathlib import Path
from typing import Any

import redis.asyncio
from pydantic_core import from_json, to_json

from producer import keyspace
from producer.scripts import Command, Script, ask_async
from worker.history.archive import Archive
from worker.history.policy import LedgerKept
from worker.history.rows_file import write_rows
from worker.money.ledger import drop_names, fold_ambiguous, fold_rows
from worker.money.rows import closed_row, json_object

log = logging.getLogger("failover.worker")

NOTE_PORTION = Script.load(Path(__file__).parent / "lua", "note_portion")
SCAN_SECONDS = 600.0  # between two looks through all names or ambiguous rows of a month
MONTHS = 14  # as long as sums are kept
FILE_ROWS = 5_000
PAGE = 500  # rows that are read at once, because reading them takes the event loop 5 ms
FOLDED_AT_ONCE = 250  # rows; takes about 5 ms of Redis
SETTLED_LATE_MS = 3_600_000  # an ambiguous row that is younger may still be settled by its worker
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True)
class Portion:
    """The rows of one file: those of a month up to a stream id. `first`, `last`: stream ids."""

    month: str
    first: str
    last: str
    rows: int

    @property
    def stem(self) -> str:
        """The name of its file, without the end that says its form."""
        return f"ledger/{self.month}/{self.first}_{self.last}"


class LedgerRetention:
    """The retention of one worker. `kept` returns the bounds in force. `archive`: None to keep nothing."""

    def __init__(self, client: redis.asyncio.Redis, kept: Callable[[], LedgerKept], archive: Archive | None) -> None:
        self._client, self._kept, self._archive = client, kept, archive
        self._trouble = ""
        self._looked: dict[str, float] = {}

    async def step(self) -> None:
        """Bring the ledger within its bounds. Raises RedisError."""
        months = _months(datetime.now(UTC))
        wanted = [(word, key + month) for month in months for word, key in _LENGTHS]
        writing, *lengths = await self._ask(("GET", keyspace.HISTORY_WRITING), *wanted)
        try:
            if writing:  # a killed worker had begun it
                await self._write(Portion(**from_json(writing)))
            newer = sum(lengths[:: len(_LENGTHS)])
            for number, month in enumerate(months):
                rows, ambiguous, sums = lengths[len(_LENGTHS) * number :][: len(_LENGTHS)]
                newer -= rows
                if rows:
                    await self._fold_rows(month, newer)
                if ambiguous and (ambiguous > self._kept().ambiguous_rows or self._due(f"ambiguous {month}")):
                    await self._fold_ambiguous(month)
                if sums > 2 * self._kept().names and self._due(f"names {month}"):
                    await self._drop_names(month)
        except OSError as error:
            self._tell(str(error))
        else:
            self._tell("")

    def _due(self, what: str) -> bool:
        """Whether the last look at it is long ago."""
        now = time.monotonic()
        due = now - self._looked.get(what, -SCAN_SECONDS) >= SCAN_SECONDS
        if due:
            self._looked[what] = now
        return due

    @property
    def trouble(self) -> str:
        """Why the archive takes no rows; "" if it does."""
        return self._trouble

    def _tell(self, trouble: str) -> None:
        if trouble and not self._trouble:
            log.error("ledger rows cannot be written to HISTORY_URL, they stay in Redis", extra={"error": trouble})
        elif self._trouble and not trouble:
            log.info("ledger rows are written to HISTORY_URL again")
        self._trouble = trouble

    async def _ask(self, *commands: Command) -> list[Any]:
        return await ask_async(self._client, commands)

    async def _fold_rows(self, month: str, newer: int) -> None:
        """Bring the rows of a month within the bounds. `newer`: how many rows later months have."""
        while (rows := await self._rows_beyond(month, newer)) > 0:
            first, last, found = "", "", 0
            async for page in self._pages(month, "+", rows):
                first, last, found = first or page[0][0].decode(), page[-1][0].decode(), found + len(page)
            if not found:
                return
            if self._archive is None:
                if not await self._fold(month, last):
                    return
                continue
            portion = Portion(month, first, last, found)
            keys = [keyspace.HISTORY_WRITING, keyspace.LEDGER + month]
            (noted,) = await self._ask(NOTE_PORTION.call(keys, [to_json(vars(portion)), first]))
            if not noted or not await self._write(portion):
                return

    async def _rows_beyond(self, month: str, newer: int) -> int:
        """How many of the oldest rows leave now, at most FILE_ROWS. Fewer than a tenth of what is kept do not."""
        key, kept = keyspace.LEDGER + month, self._kept()
        asked = (("XLEN", key), ("MEMORY", "USAGE", key), ("XRANGE", key, "-", "+", "COUNT", 1), ("TIME",))
        length, used, oldest, (seconds, _) = await self._ask(*asked)
        if not length:
            return 0
        beyond = max(
            length + min(newer, kept.rows) - kept.rows, int(length * (1 - kept.megabytes * 1e6 / max(1, int(used))))
        )
        if beyond >= min(FILE_ROWS, max(1, kept.rows // 10)):
            return int(min(beyond, FILE_ROWS))
        hour = (int(seconds) * 1000 - kept.days * DAY_MS) // HOUR_MS * HOUR_MS  # whole hours make fewer files
        if int(oldest[0][0].partition(b"-")[0]) >= hour:
            return 0
        (old,) = await self._ask(("XRANGE", key, "-", f"({hour}", "COUNT", FILE_ROWS))
        return len(old)

    async def _pages(self, month: str, to: str, at_most: int) -> AsyncIterator[list[Any]]:
        begin = "-"
        while at_most > 0:
            count = min(PAGE, at_most)
            (page,) = await self._ask(("XRANGE", keyspace.LEDGER + month, begin, to, "COUNT", count))
            if not page:
                return
            yield page
            begin, at_most = f"({page[-1][0].decode()}", at_most - len(page)

    async def _write(self, portion: Portion) -> bool:
        """Write a portion and fold it. Returns False if it has to wait. If rows of it are missing, it was written before
        and another worker has begun to fold it."""
        rows: list[dict[str, Any]] = []
        async for page in self._pages(portion.month, portion.last, portion.rows):
            rows += [closed_row(fields) for _, fields in page]
        if len(rows) == portion.rows and self._archive is not None:
            await asyncio.to_thread(write_rows, self._archive, portion.stem, rows, self._kept().format)
        if not await self._fold(portion.month, portion.last):
            return False
        await self._ask(("DEL", keyspace.HISTORY_WRITING))
        log.info("old ledger rows left Redis", extra={"rows": len(rows), "file": portion.stem})
        return True

    async def _fold(self, month: str, last: str) -> bool:
        """Fold the rows up to `last`. Returns False if it has to wait until lost sums are counted again."""
        while (await self._ask(fold_rows(month, last, FOLDED_AT_ONCE)))[0] > 0:
            pass
        (left,) = await self._ask(fold_rows(month, last, 1))
        return bool(left == 0)

    async def _fold_ambiguous(self, month: str) -> None:
        """Fold what may have been billed and is beyond its number or age: nobody will find out about it any more."""
        kept, ((seconds, _),) = self._kept(), await self._ask(("TIME",))
        rows = [row async for row in self._ambiguous(month)]
        too_many = nsmallest(max(0, len(rows) - kept.ambiguous_rows), rows, key=lambda row: int(row["at"]))
        aged = [row for row in rows if row["at"] < int(seconds) * 1000 - kept.days * DAY_MS]
        late = int(seconds) * 1000 - SETTLED_LATE_MS
        leave = {str(row["id"]): row for row in (*too_many, *aged) if row["at"] < late}
        for some in _cut(list(leave), FOLDED_AT_ONCE):
            if self._archive is not None:
                stem = f"ledger/{month}/ambiguous_{sha256(to_json(some)).hexdigest()[:16]}"
                await asyncio.to_thread(
                    write_rows, self._archive, stem, [leave[row_id] for row_id in some], kept.format
                )
            if (await self._ask(fold_ambiguous(month, some)))[0] < 0:
                return

    async def _ambiguous(self, month: str) -> AsyncIterator[dict[str, Any]]:
        async for _, raw in self._client.hscan_iter(keyspace.AMBIGUOUS + month, count=PAGE):
            row = json_object(raw)
            if isinstance(row.get("at"), int) and "id" in row:
                yield row

    async def _drop_names(self, month: str) -> None:
        """Keep the users and features with the highest spending, once there are twice as many names as are kept."""
        names = self._kept().names
        found: dict[str, dict[str, int]] = {"user": {}, "feature": {}}
        async for field, amount in self._client.hscan_iter(keyspace.SPENT + month, count=PAGE):
            kind, _, scope = field.decode(errors="replace").partition(":")
            of = found.get(scope.partition(":")[0])
            if of is not None and kind in ("spent", "tokens", "ambiguous"):
                of[scope] = of.get(scope, 0) + (_whole(amount) if kind != "tokens" else 0)
        for of in found.values():
            if len(of) > 2 * names:
                for some in _cut(nsmallest(len(of) - names, of, key=lambda scope: of[scope]), FOLDED_AT_ONCE):
                    await self._ask(drop_names(month, some))


_LENGTHS = (("XLEN", keyspace.LEDGER), ("HLEN", keyspace.AMBIGUOUS), ("HLEN", keyspace.SPENT))


def _months(now: datetime) -> list[str]:
    """The months that may have rows, the oldest first: also the next one, which Redis may have begun."""
    number = now.year * 12 + now.month
    return [f"{each // 12:04}-{each % 12 + 1:02}" for each in range(number - MONTHS + 1, number + 1)]


def _cut(names: Sequence[str], size: int) -> list[Sequence[str]]:
    return [names[i : i + size] for i in range(0, len(names), size)]


def _whole(amount: bytes) -> int:
    return int(amount) if amount.lstrip(b"-").isdigit() else 0
