"""The gate on the tests: with a safeguard taken out, they must fail. Each mutation is made in a copy of the code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.server  # whole runs of the suite, in processes of their own

MUTATIONS = {
    # name: (file, what stands there, what the mutant has instead, tests that must notice)
    "fence": (
        "worker/queue/lua/fence.lua",
        "if redis.call('ZREM', at.leases, id .. ':' .. execution) == 0 then",
        "redis.call('ZREM', at.leases, id .. ':' .. execution) if false then",
        "tests/test_transitions.py",
    ),
    "lease check of the heartbeat": (
        "worker/queue/lua/extend.lua",
        "if redis.call('ZSCORE', KEYS[1], ARGV[i]) then",
        "if redis.call('ZADD', KEYS[1], 1, ARGV[i]) then",
        "tests/test_transitions.py",
    ),
    "only a suspect that ran alone is charged": (
        "worker/queue/lua/reap.lua",
        "local alone = facts[4] == execution .. ':alone'",
        "local alone = suspect > 0",
        "tests/test_suspects.py",
    ),
    "lease check of the reaper": (
        "worker/queue/lua/reap.lua",
        "ZRANGEBYSCORE', KEYS[1], '-inf', now_ms,",
        "ZRANGEBYSCORE', KEYS[1], '-inf', '+inf',",
        "tests/test_transitions.py",
    ),
    "idempotency record": (
        "producer/lua/enqueue.lua",
        "if type(status) == 'string' and",
        "if false and",
        "tests/test_transitions.py",
    ),
    "resend of a claim": (
        "worker/queue/lua/claim.lua",
        "if before then",
        "if false then",
        "tests/test_transitions.py",
    ),
    "pause flag": (
        "worker/queue/lua/claim.lua",
        "if all or closed then return reply end",
        "if closed then return reply end",
        "tests/test_transitions.py",
    ),
    "a dead letter is requeued once": (
        "worker/queue/lua/requeue.lua",
        "if not redis.call('ZSCORE', KEYS[1], id) or",
        "if false or",
        "tests/test_dead_letters.py",
    ),
    "cancel takes the lease": (
        "producer/lua/shared/withdraw.lua",
        "redis.call('ZREM', KEYS[4], member)",
        "",
        "tests/test_dead_letters.py",
    ),
    "promote only what is scheduled": (
        "worker/queue/lua/promote.lua",
        "if redis.pcall('HGET', job, 'status') == 'scheduled' then",
        "if true then",
        "tests/test_transitions.py",
    ),
    "one probe at a time": (
        "worker/breakers/local.py",
        "if self._probing or self._cools_for() > 0:",
        "if self._cools_for() > 0:",
        "tests/test_breaker.py",
    ),
    "results from before the opening": (
        "worker/breakers/local.py",
        "if permit.epoch != self._epoch:",
        "if False:",
        "tests/test_breaker.py",
    ),
    "hard cap of attempts": (
        "worker/routing/router.py",
        "spend.attempts_left -= not permit.probe",
        "pass",
        "tests/test_router.py",
    ),
    "reservation": (
        "worker/money/lua/ledger.lua",
        "spent + held + row.micros > cap[1]",
        "spent + row.micros > cap[1]",
        "tests/test_ledger.py",
    ),
    "a batch of rows counts once": (
        "worker/money/lua/ledger.lua",
        "if number == ARGV[7] then return reply end",
        "",
        "tests/test_ledger.py",
    ),
    "lost sums are counted anew": (
        "worker/money/lua/ledger_sums.lua",
        "there[month] = redis.call('HEXISTS', SPENT .. month, 'since') == 1 or",
        "there[month] = true or",
        "tests/test_ledger.py",
    ),
    "a row that ends while sums are counted is not counted twice": (
        "worker/money/lua/ledger_sums.lua",
        "(sign < 0 and redis.call('HDEL', uncounted(row.month, kind), row.id) == 1)",
        "false",
        "tests/test_ledger_retention.py",
    ),
    "what has left Redis still counts": (
        "worker/money/lua/fold_rows.lua",
        "write()\n",
        "",
        "tests/test_ledger_retention.py",
    ),
    "what is counted is not counted again": (
        "worker/history/lua/collect.lua",
        "redis.call('SET', KEYS[1], ARGV[2])",
        "redis.call('SET', KEYS[1], ARGV[1])",
        "tests/test_history.py::test_two_that_count_at_once_count_once",
    ),
    "a row of a living execution stays": (
        "worker/money/lua/sweep.lua",
        "elseif redis.call('ZSCORE', ARGV[7] .. row.queue, row.lease) then",
        "elseif false then",
        "tests/test_ledger.py",
    ),
    "tenants take turns": (
        "producer/lua/shared/fair_queue.lua",
        "local lane, id = lane_of(list, tenant), false",
        "local lane, id = list, false",
        "tests/test_line.py",
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutants")
    for name in ("producer", "worker", "ops", "failover_worker", "tests", "policies", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    for name in ("pyproject.toml", "routes.json"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def suite(copy: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_suite_notices(copy: Path, name: str) -> None:
    file, original, mutant, tests = MUTATIONS[name]
    path = copy / file
    text = path.read_text()
    assert text.count(original) == 1, f"{file} has changed: fix the mutation"
    path.write_text(text.replace(original, mutant))
    try:
        mutated = suite(copy, tests)
    finally:
        path.write_text(text)
    assert mutated.returncode == 1, mutated.stdout[-2000:]
    assert "FAILURES" in mutated.stdout


def test_the_copy_passes_as_it_is(copy: Path) -> None:
    """A tenth of each file's tests, as all of them run outside of the copy."""
    files = sorted({tests.partition("::")[0] for *_, tests in MUTATIONS.values()})
    listed = suite(copy, "--collect-only", "-v", *files).stdout.splitlines()
    some = [each for file in files for each in [line for line in listed if line.startswith(f"{file}::")][::10]]
    assert len({each.partition("::")[0] for each in some}) == len(files)
    whole = suite(copy, *some)
    assert whole.returncode == 0, whole.stdout
    where = "import worker; print(worker.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    used = subprocess.run(
        [sys.executable, "-c", where], cwd=copy, env=environment, capture_output=True, text=True, check=True
    )
    assert used.stdout.strip().startswith(str(copy))
