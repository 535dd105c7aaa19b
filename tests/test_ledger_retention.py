"""Old ledger rows leave Redis: written first, once each, with sums that stay exact whatever is killed."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from pathlib import Path

import pytest
import redis

from producer import keyspace
from producer.errors import ConfigurationError
from producer.scripts import ask
from tests.support.ledger import KEPT, MONTH, booked, reservation, retained, rows, spend, sums
from worker.history.archive import Folder
from worker.history.policy import Format, LedgerKept, load_history_policy
from worker.history.rows_file import read_rows, write_rows
from worker.money.budget_state import standing
from worker.money.caps import Budgets
from worker.money.ledger import BUSY_SECONDS, Ledger, Refusal, RefusalReason, Reservation, month_sums
from worker.reports import statement

BUSY = Refusal(RefusalReason.BUSY, "tenant:acme", BUSY_SECONDS)


def written(folder: Path) -> Counter[str]:
    """How often each row is in the archive, by id."""
    return Counter(json.loads(line)["id"] for line in read_rows(Folder(folder), "ledger/"))


def counted_again(client: redis.Redis) -> dict[str, int]:
    client.delete(keyspace.SPENT + MONTH)
    while ask(client, [month_sums("")]) == [0]:
        pass
    return sums(client)


class Killed(Exception):
    """The worker is killed at this point."""


class Mortal(Folder):
    """A folder whose worker is killed before or after a file is written."""

    def __init__(self, path: Path, *, before: bool) -> None:
        super().__init__(path)
        self._before = before

    def write(self, name: str, content: bytes) -> None:
        if not self._before:
            super().write(name, content)
        raise Killed


def test_rows_beyond_the_bound_are_written_once_and_the_sums_stay(
    url: str, client: redis.Redis, tmp_path: Path
) -> None:
    spend(url, range(1, 401))
    before = sums(client)
    assert retained(url, Folder(tmp_path)) == ""
    left = {row["id"] for row in rows(client)}
    assert 100 <= len(left) < 110
    assert sums(client) == before
    assert written(tmp_path) == Counter(f"job{n}:e:1" for n in range(1, 401) if f"job{n}:e:1" not in left)
    line = next(read_rows(Folder(tmp_path), "ledger/"))
    assert json.loads(line) | {"at": 0} == {
        "id": "job1:e:1", "state": "settled", "at": 0, "micros": 1, "prompt": 7, "completion": 3, "job": "job1",
        "tenant": "acme", "user": "u1", "feature": "notes", "provider": "openai", "route": "openai/m", "model": "m",
        "price": "routes.json 1/2", "own": "",
    }  # fmt: skip
    assert counted_again(client) == before
    spend(url, range(401, 601))
    later = sums(client)
    assert retained(url, Folder(tmp_path)) == ""
    assert counted_again(client) == later
    assert max(written(tmp_path).values()) == 1


@pytest.mark.parametrize("before", [True, False])
def test_the_next_worker_finishes_what_a_killed_one_began(
    url: str, client: redis.Redis, tmp_path: Path, before: bool
) -> None:
    spend(url, range(1, 301))
    told = sums(client)
    with pytest.raises(Killed):
        retained(url, Mortal(tmp_path, before=before))
    assert len(rows(client)) == 300
    spend(url, range(301, 401))
    assert retained(url, Folder(tmp_path)) == ""
    found = written(tmp_path) + Counter(row["id"] for row in rows(client))
    assert found == Counter(f"job{n}:e:1" for n in range(1, 401))
    assert client.get(keyspace.HISTORY_WRITING) is None
    assert counted_again(client)["spent:total"] == told["spent:total"] + sum(range(301, 401))


def test_while_the_archive_takes_nothing_the_rows_stay(url: str, client: redis.Redis, tmp_path: Path) -> None:
    spend(url, range(1, 301))
    (tmp_path / "file").write_text("in the way")
    assert "directory" in retained(url, Folder(tmp_path / "file")).lower()
    assert len(rows(client)) == 300
    assert retained(url, Folder(tmp_path / "folder")) == ""
    assert len(rows(client)) < 110


def test_without_an_archive_old_rows_are_folded_and_not_kept(url: str, client: redis.Redis) -> None:
    spend(url, range(1, 301))
    before = sums(client)
    retained(url, None)
    assert len(rows(client)) < 110 and counted_again(client) == before


def test_lost_sums_are_counted_in_steps_while_rows_close_and_open(
    url: str, client: redis.Redis, tmp_path: Path
) -> None:
    spend(url, range(1, 1301))
    spend(url, range(2001, 2011), "ambiguous")
    retained(url, Folder(tmp_path), LedgerKept(rows=1200, days=400))
    before = sums(client)
    client.delete(keyspace.SPENT + MONTH)

    async def capped(ledgers: list[Ledger]) -> None:
        assert await ledgers[0].reserve(reservation(3001, 1, hard=10**12)) == BUSY  # nobody knows yet how much is left

    booked(url, capped)
    spend(url, range(1301, 1304))
    assert client.exists(keyspace.SPENT + MONTH) == 0  # each batch counts some of the rows
    retained(url, Folder(tmp_path), LedgerKept(rows=100, days=400))  # what is not counted yet cannot leave
    after = statement.sums(client)["total"]
    assert after.spent == before["spent:total"] + 1301 + 1302 + 1303
    assert after.ambiguous == before["ambiguous:total"]
    assert counted_again(client)["spent:total"] == after.spent


def test_rows_that_change_while_lost_sums_are_counted_are_counted_once(url: str, client: redis.Redis) -> None:
    async def run(ledgers: list[Ledger]) -> None:
        async def opened(number: int) -> Reservation:
            each = reservation(number, number)
            assert await ledgers[0].reserve(each) is None
            return each

        calls = list(await asyncio.gather(*map(opened, range(1, 1501))))
        for call in calls[:700]:
            ledgers[0].close(call, "ambiguous", call.micros, 0, 0)
        calls.append(await opened(2000))
        client.delete(keyspace.SPENT + MONTH)
        chance = random.Random(7)
        while not client.exists(keyspace.SPENT + MONTH):  # each round trip counts a step; meanwhile anything happens
            late, early = chance.sample(range(700), 20), chance.sample(range(700, len(calls)), 20)
            for n in late:
                ledgers[0].close(calls[n], "settled", calls[n].micros, 7, 3)
            for n in early:
                ledgers[0].close(calls[n], chance.choice(["settled", "ambiguous", "released"]), calls[n].micros, 7, 3)
            calls.append(await opened(2000 + len(calls)))

    booked(url, run)
    found = sums(client)
    assert {name.partition(":")[0] for name in found} >= {"spent", "ambiguous", "held"}
    assert counted_again(client) == found


def test_free_names_of_features_are_bounded_and_what_is_capped_stays(url: str, client: redis.Redis) -> None:
    spend(url, range(1, 51), feature="capped{}", cap=10**9)
    spend(url, range(100, 400), feature="free{}")
    before = sums(client)
    retained(url, None, LedgerKept(names=100, days=400))
    after = sums(client)
    features = {name for name in after if name.startswith("spent:feature:")}
    assert {f"spent:feature:capped{n}" for n in range(1, 51)} <= features
    assert {f"spent:feature:free{n}" for n in range(300, 400)} <= features and len(features) <= 150
    assert after["spent:rest:feature"] == sum(before[n] for n in before if n.startswith("spent:feature:")) - sum(
        after[name] for name in features
    )
    assert after["spent:total"] == before["spent:total"]
    lines = statement.balances(statement.sums(client), Budgets(), standing(client), {})
    listed, rest = statement.shortened(lines, ())
    apart = sum(line.spent_usd for line in listed if line.scope.startswith("feature:"))
    assert apart + rest["feature"][1].spent_usd == pytest.approx(before["spent:total"] / 1e6)


def test_what_may_have_been_billed_leaves_too_and_still_counts(url: str, client: redis.Redis, tmp_path: Path) -> None:
    spend(url, range(1, 151), "ambiguous")
    for row_id, raw in client.hgetall(keyspace.AMBIGUOUS + MONTH).items():
        row = json.loads(raw)
        client.hset(keyspace.AMBIGUOUS + MONTH, row_id, json.dumps(row | {"at": row["at"] - 7_200_000}))
    before = sums(client)
    retained(url, Folder(tmp_path), LedgerKept(ambiguous_rows=100, days=400))
    assert client.hlen(keyspace.AMBIGUOUS + MONTH) == 100
    assert sum(written(tmp_path).values()) == 50
    assert counted_again(client) == before


def test_a_file_is_parquet_or_json_lines_and_both_are_read(url: str, client: redis.Redis, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'failover-worker[parquet]'")
    from pyarrow import parquet

    forms: tuple[tuple[Format, str], ...] = (("jsonl", ".jsonl.gz"), ("parquet", ".parquet"), ("auto", ".parquet"))
    for number, (wanted, ending) in enumerate(forms):
        spend(url, range(1 + 200 * number, 201 + 200 * number), feature="\u00e9{}")
        before = set(tmp_path.rglob("*.*"))
        retained(url, Folder(tmp_path), KEPT.model_copy(update={"format": wanted}))
        assert {"".join(path.suffixes) for path in set(tmp_path.rglob("*.*")) - before} == {ending}
    kept = [row["id"] for row in rows(client)]
    found = [json.loads(line) for line in read_rows(Folder(tmp_path), "ledger/")]
    assert Counter(row["id"] for row in found) == Counter(f"job{n}:e:1" for n in range(1, 601)) - Counter(kept)
    assert all(
        (row["micros"], row["feature"]) == (n, f"\u00e9{n}") for n, row in ((int(r["id"][3:-4]), r) for r in found)
    )
    assert len({tuple(sorted(row)) for row in found}) == 1
    table = parquet.read_table(next(tmp_path.rglob("*.parquet")))
    assert {table.schema.field(name).type for name in ("at", "micros", "prompt", "completion")} == {pyarrow.int64()}


def test_rows_of_any_kind_come_back_from_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'failover-worker[parquet]'")
    whole = [{"id": "a", "micros": 1, "text": "x"}, {"id": "b", "micros": 2**62, "more": "\u20ac"}]
    odd = [{"id": "c", "micros": 2**70, "caps": {"a": [1]}}, {"id": "d", "micros": "many", "caps": 1.5}]
    for form in ("jsonl", "parquet"):
        write_rows(Folder(tmp_path / form), "ledger/1", whole, form)
        assert [json.loads(line) for line in read_rows(Folder(tmp_path / form), "ledger/")] == whole
    write_rows(Folder(tmp_path), "odd/1", odd, "parquet")
    told = [json.loads(line) for line in read_rows(Folder(tmp_path), "odd/")]
    assert told == [
        {"id": "c", "micros": str(2**70), "caps": '{"a":[1]}'},
        {"id": "d", "micros": "many", "caps": "1.5"},
    ]
    write_rows(
        Folder(tmp_path), "odd/1", odd, "jsonl"
    )  # as a worker without pyarrow does that goes on for a killed one
    assert len(list(read_rows(Folder(tmp_path), "odd/"))) == 2
    for ending in (".parquet", ".jsonl.gz"):
        (tmp_path / f"broken{ending}").write_bytes(b"\x1f\x8b\x08PAR1")
        with pytest.raises(OSError, match="damaged"):
            list(read_rows(Folder(tmp_path), "broken"))
        (tmp_path / f"broken{ending}").unlink()


def test_without_pyarrow_files_are_json_lines_and_parquet_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert write_rows(Folder(tmp_path), "ledger/1", [{"id": "a"}], "auto") == "ledger/1.jsonl.gz"
    (tmp_path / "history.yaml").write_text("ledger: {format: parquet}")
    with pytest.raises(ConfigurationError, match=r"format.*pip install 'failover-worker\[parquet\]'"):
        load_history_policy({"POLICIES_DIR": str(tmp_path)})
    (tmp_path / "ledger" / "2.parquet").write_bytes(b"PAR1")
    with pytest.raises(OSError, match="pip install"):
        list(read_rows(Folder(tmp_path), "ledger/2"))
