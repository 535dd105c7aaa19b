"""Each bound that producer/keyspace.py names, filled beyond by our own scripts: how long a key gets, and how long it lives."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import redis

from ops.simulators.provider import Control
from producer import Producer, keyspace
from producer.intake.rates import RATE
from producer.job import DeadReason
from producer.policy import Policies
from producer.scripts import ask
from tests.support import filling
from tests.support.jobs import chat, results
from tests.support.ledger import MONTH, retained, spend
from tests.support.polling import until
from tests.support.replies import texts
from tests.support.transitions import Q, claim, settle
from tests.support.workshop import Workshop
from worker.breakers.registry import CALLS_KEPT
from worker.control import tokens
from worker.history.collector import Collector
from worker.history.document import NAMES_KEPT, Document
from worker.history.leader import HistoryLeader
from worker.history.policy import HistoryPolicy, LedgerKept
from worker.money.billing_alerts import BillingReport, Guardrail, observe
from worker.notify.incidents import Incidents
from worker.queue import audit, dead_letters
from worker.queue.outcomes import Dead
from worker.schedules.leader import ScheduleLeader
from worker.schedules.policy import Schedule, Schedules

DAY = 86_400
MARGIN = 100  # entries that a stream may have over its MAXLEN, which Redis keeps about
KINDS = "string|hash|list|set|zset|stream|pubsub"


def documented() -> dict[str, str]:
    """Each key of the table in keyspace.py that holds something, and its type."""
    cells = (
        re.split(r" +\| +", line.strip("| ")) for line in (keyspace.__doc__ or "").splitlines() if line[:2] == "| "
    )
    rows = {cell[0]: cell[1] for cell in cells if re.fullmatch(KINDS, cell[1])}
    return {key: kind for keys, kind in rows.items() if kind != "pubsub" for key in re.split(r", (?=rq:)", keys)}


Fill = Callable[[redis.Redis, str, Path], None]
BOUNDS: dict[str, tuple[Fill, str, int]] = {  # by key of the table: what fills it, the key itself, its bound
    "failover:happened": (filling.happened, keyspace.HAPPENED, 200_000),
    "failover:audit": (filling.audited, keyspace.AUDIT, 100_000),
    "failover:outbox:{subscriber}": (filling.outbox, keyspace.outbox("*"), 100_000),
    "failover:quarantine": (filling.lost, keyspace.LOST, 10_001),
    "failover:news:{queue}": (filling.news, keyspace.news(Q), 2_002),
    "failover:news:{queue}:first": (filling.news, keyspace.first_news(Q), 10),
    "failover:incident:{id}": (filling.incident, keyspace.incident("1"), 2_010),
    "failover:incident:{id}:story": (filling.story, keyspace.story("1"), 2_000),
    "failover:wakes:{queue}": (filling.wakes, "failover:wakes:" + Q, 100),
    "failover:tokens": (filling.create_tokens, keyspace.TOKENS, tokens.MOST_TOKENS + 1),
    "failover:spend": (filling.budget_reports, keyspace.SPEND, 1_000),
    "failover:calls:{route}": (filling.calls, keyspace.calls("r"), CALLS_KEPT),
    "failover:ledger:{month}": (filling.ledger, keyspace.LEDGER + MONTH, 1_100),
    "failover:ambiguous:{month}": (filling.ambiguous, keyspace.AMBIGUOUS + MONTH, 100),
    "failover:spent:{month}": (filling.sums, keyspace.SPENT + MONTH, 20_010),
}
SIZES = {"stream": "XLEN", "hash": "HLEN", "list": "LLEN", "zset": "ZCARD", "set": "SCARD"}
TTLS: dict[str, float] = {  # by key of the table, what a run leaves lives at most so long (s)
    "rq:execution:{job}:{exec}": DAY,
    "rq:executions:{job}": DAY,
    "rq:worker:{name}": 60,
    "failover:rate:{tenant}": 60,
    "failover:spend-message:{hash}": 7 * DAY,
    "failover:ambiguous:{month}": 400 * DAY,
    "failover:ledger:folded:{month}": 400 * DAY,
    "failover:spent:{month}": 400 * DAY,
    "failover:history:minute:{n}": 2 * DAY,
    "failover:history:hour:{n}": 400 * DAY,
    "failover:history:leader": 60,
    "failover:schedules:leader": 20,
    "failover:booked:{worker}": 3600,
    "failover:limit:{route or provider}": 3600,
    "failover:limit:{...}:open": DAY,
    "failover:claim:{token}": 60,
    "failover:routes:{worker}": 30,
    "failover:breaker:{route}": 7 * DAY,
    "failover:calls:{route}": 7 * DAY,
    "failover:recorded:{worker}": 3600,
    "failover:audit-turn:{queue}": 300,
    "failover:wakes:{queue}": DAY,
    "failover:outbox:{subscriber}": 2 * DAY,
    "failover:notifier": 6,
    "failover:incident:{id}": 400 * DAY,
    "failover:incident:{id}:story": 400 * DAY,
    "failover:silence:{incident key}": 60,
    "failover:idempotency:{hash}": 7 * DAY,
    "rq:job:{id}": 30 * DAY,
    "rq:results:{id}": 30 * DAY,
}
SCHEDULED = Schedules(schedules={"costs": Schedule(cron="0 * * * *", run="budget poll")})
RUNNING = {
    "rq:execution:{job}:{exec}", "rq:executions:{job}", "failover:claim:{token}", "failover:limit:{...}:open",
}  # fmt: skip
EMPTIED = {  # open work alone: nothing is left when it has ended
    "rq:queue:{queue}", "rq:wip:{queue}", "rq:scheduled:{queue}", "failover:leases:{queue}", "failover:accepted:{queue}",
    "failover:accepted:{queue}:promised", "failover:lanes:{queue}", "failover:lane:{queue}|{tenant}",
    "failover:first:{queue}", "failover:reservations", "failover:reservations:ages", "failover:history:writing",
    "failover:dead:{queue}", "failover:dead:{queue}:*:*", "failover:dead:{queue}:indexes", "failover:scratch",
    "failover:doctor:{name}",
}  # fmt: skip
TRIMMED = {  # entries past their time are removed
    "rq:finished:{queue}": keyspace.finished(Q),
    "rq:failed:{queue}": keyspace.failed(Q),
    "rq:canceled:{queue}": keyspace.canceled(Q),
    "failover:incidents:all": keyspace.ALL_INCIDENTS,
}
REASONS = {  # by key: why nothing fills it
    "rq:queues": "a field for each queue, and who deploys names the queues",
    "rq:workers": "workers that vanished are removed (tests/test_notify_kinds.py)",
    "rq:workers:{q}": "the same",
    "rq:suspended": "one value",
    "pause_ai_tasks": "one value",
    "pause_ai_tasks:{queue}": "one value a queue",
    "failover:paused-provider:{p}": "one value a provider, set by operators",
    "failover:paused-tenant:{t}": "one value a tenant, set by operators",
    "failover:disabled:{route}": "one value a route, set by operators",
    "failover:pause": "a field for each of those flags that is set",
    "failover:stopped:{queue}": "three numbers a queue",
    "failover:stopped-tenant:{t}": "three numbers a tenant that operators paused",
    "failover:filler:{queue}": "one name a queue",
    "failover:spent:{month}:recount": "as failover:spent:{month}; an hour (tests/test_ledger_retention.py)",
    "failover:spent:{month}:recount:{kind}": "a copy of the rows as they are; an hour",
    "failover:file:{id}": "named once (tests/test_openai_batches.py); 30 days",
    "failover:file:{id}:parts": "50 MB of content in all, or names at FILES_URL; 30 days",
    "failover:files:of:{tenant}": "10,000 by ZREMRANGEBYRANK; 30 days",
    "failover:files:kept": "a file with content in Redis, of which there are 50 MB; past ones leave with each upload",
    "failover:files:sizes": "as failover:files:kept",
    "failover:batch:{id}": "some 25 fields, of them 100 errors; 30 days after its end",
    "failover:batch:{id}:runner": "one token; 12 seconds",
    "failover:batches:of:{tenant}": "10,000 by ZREMRANGEBYRANK; 60 days",
    "failover:batches:open": "a batch leaves with its end, a week after it was created at the latest",
    "failover:response:{id}": "a request's body; lives as its job may (tests/test_openai_responses.py)",
    "failover:retry:{hash}": "one job id; an hour",
    "failover:live:{id}": "20 pieces a second until the deadline; 15 minutes (tests/test_openai_chat.py)",
    "failover:history:maintenance:{n}": "as an hour of the history; 400 days (tests/test_objectives_history.py)",
    "failover:followed:{what}": "one value a route (tests/test_objective_incidents.py)",
    "failover:freeze": "one value; 120 s (tests/test_objective_incidents.py)",
    "failover:history:cursor": "the ids of three months and the last outcome",
    "failover:ladder:{month}": "a field for each scope with a cap, of budgets.yaml or set by operators; 45 days",
    "failover:budgets": "a field for each cap that operators set",
    "failover:batches:running": "a field for each command that waits; the next one removes those of killed ones",
    "failover:schedules": "a field for each line of schedules.yaml, at most 1,000 (tests/test_schedules.py)",
    "failover:memory": "one number",
    "failover:reduce": "one value, set by operators",
    "failover:cache:{tenant}:{feature}:{hash}": "lives as cache.yaml says (tests/test_cache.py)",
    "failover:subscribers": "a field for each webhook of the configuration",
    "failover:gone": "vanished workers; a day (tests/test_notify_kinds.py)",
    "failover:trouble": "a field for each channel of the configuration",
    "failover:incidents": "a field for each open problem",
    "failover:incidents:untold": "resolved ones; given up after a day (tests/test_notify.py)",
    "failover:incidents:number": "one number",
    "failover:web:key": "32 bytes",
    "failover:drills": "100 by LTRIM (tests/test_drills.py)",
    "failover:drill": "one note; 10 s unless renewed (tests/test_drill_on_feature.py)",
    "failover:web:requeuing": "the counts of the latest requeue; an hour (tests/test_pages.py)",
}


def test_each_key_is_filled_here_or_named_with_its_reason() -> None:
    here = [*BOUNDS, *TTLS, *EMPTIED, *TRIMMED]
    assert set(documented()) == {*here, *REASONS}
    assert not set(here) & set(REASONS)


@pytest.mark.parametrize("key", BOUNDS)
def test_a_key_stays_within_its_bound(url: str, client: redis.Redis, tmp_path: Path, key: str) -> None:
    fill, name, most = BOUNDS[key]
    fill(client, url, tmp_path)
    kind = documented()[key]
    (size,) = ask(client, [(SIZES[kind], name)])
    assert most * 0.9 <= size <= most + (MARGIN if kind == "stream" else 0), "filled, and not beyond"


def test_a_document_of_the_history_keeps_few_names(url: str, client: redis.Redis, tmp_path: Path) -> None:
    filling.history(client, url, tmp_path)
    keys = [*client.keys("failover:history:minute:*"), *client.keys("failover:history:hour:*")]
    assert len(keys) >= 2
    for key in keys:
        (raw,) = ask(client, [("GET", key)])
        names = Document.unpacked(raw).facts.values()
        assert max(map(len, names)) == NAMES_KEPT + 1 and len(raw) < 20_000


def test_the_ledger_stays_within_its_bytes(url: str, client: redis.Redis) -> None:
    spend(url, range(1, 1300))
    assert retained(url, None, LedgerKept(rows=2000, megabytes=0.05, days=400)) == ""
    (used, length) = ask(client, [("MEMORY", "USAGE", keyspace.LEDGER + MONTH), ("XLEN", keyspace.LEDGER + MONTH)])
    assert used <= 50_000 + 200 * used / length, "a tenth of the rows may be beyond it"


def patterns() -> list[tuple[str, str]]:
    """(the key of the table, its glob pattern), the most exact first."""
    found = [(key, re.sub(r"\{[^}]*\}", "*", key)) for key in documented()]
    return sorted(found, key=lambda each: -len(each[1].replace("*", "")))


def look(client: redis.Redis, seen: dict[str, float]) -> dict[str, float]:
    """Note the longest life (s) of each key of the table that is in Redis; infinity for one that lives for good."""
    for raw in client.scan_iter():
        name = raw.decode()
        key = next((key for key, glob in patterns() if fnmatchcase(name, glob)), None)
        ms = client.pttl(name)
        if ms == -2:
            continue
        assert key is not None, f"{name} is not in the table of keyspace.py"
        assert texts([client.type(name)])[0] in (documented()[key], "none")
        seen[key] = max(seen.get(key, 0), ms / 1000 if ms >= 0 else float("inf"))
    return seen


def test_what_a_run_leaves_is_in_the_table_and_does_not_live_longer(
    workshop: Workshop, producer: Producer, client: redis.Redis, providers: Control, tmp_path: Path
) -> None:
    seen: dict[str, float] = {}
    running: dict[str, float] = {}
    producer.enqueue(chat("dead"), job_id="dead")
    (held,) = claim(client)
    settle(client, held, Dead(DeadReason.EXHAUSTED, "no", (), 100))
    dead_letters.discard(client, Q, ["dead"], who="ana")
    workshop.routes(hot=[{"upstream": "a", "rpm": 1000, "maxConcurrency": 9, "price": {"input": 3, "output": 15}}])
    providers.behave("a", latency=(0.2, 0.3))
    workshop.worker("--concurrency", "4")
    jobs = [chat(str(n), tenant_id=f"t{n % 3}", feature="f", idempotency_key=f"k{n}") for n in range(30)]
    ids = [receipt.job_id for receipt in producer.enqueue_many(jobs)]
    until(lambda: set(look(client, running)) >= RUNNING, "all keys of running jobs are seen")
    results(producer, ids)
    until(lambda: client.exists(keyspace.NOTIFIER), "a worker is the notifier")
    filling.story(client, workshop.url, tmp_path)
    filling.shared(
        client, tmp_path, "clock event", f"redis.call('HSET', '{keyspace.SUBSCRIBERS}', '*', 1) event('x', 'i', 'j')"
    )
    filling.shared(client, tmp_path, "clock accepted_order wake_parked", "keep('failover:wakes:q', 'c', '1 0')")
    Incidents(client).silence(Incidents(client).named(["1"])[0], 60, who="sam", why="known")
    observe(client, BillingReport("google", 10.0, message_id="m"), Guardrail())
    ask(client, [RATE.call([keyspace.rate("acme")], [60_000, 1])])
    filling.ambiguous(client, workshop.url, tmp_path)
    filling.with_async(workshop.url, lambda each: HistoryLeader(each, "me", HistoryPolicy, None).step())
    filling.with_async(workshop.url, lambda each: Collector(each).step())
    filling.with_async(workshop.url, lambda each: ScheduleLeader(each, "me", lambda: SCHEDULED, Policies).step())
    filling.with_async(workshop.url, lambda each: audit.audit(each, [Q]))
    until(lambda: not client.exists(keyspace.RESERVATIONS), "no call is open")
    look(client, seen)
    assert not EMPTIED & set(seen)
    seen |= {key: running[key] for key in RUNNING}
    assert set(TTLS) <= set(seen)
    assert {key: life for key, life in seen.items() if life > TTLS.get(key, float("inf"))} == {}


def test_what_is_past_its_time_is_removed(url: str, client: redis.Redis) -> None:
    for name in TRIMMED.values():
        client.zadd(name, {f"j{n}": 1 for n in range(2000)})
    filling.with_async(url, lambda each: audit.audit(each, [Q]))
    Incidents(client).trim(int(client.time()[0]) * 1000)
    assert client.exists(*TRIMMED.values()) == 0
