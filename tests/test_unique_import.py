"""`failover_worker`: the public API and the two commands, beside an application's own modules of our names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import failover_worker
import producer

pytestmark = pytest.mark.server  # processes of their own

FOREIGN = "MINE = True\n"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A folder with an application's own producer.py, worker.py and ops.py."""
    for name in ("producer", "worker", "ops"):
        (tmp_path / f"{name}.py").write_text(FOREIGN)
    return tmp_path


def run(app: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{app}:{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.run(command, cwd=app, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["failover-worker", "failover"])
def test_both_commands_run_beside_foreign_modules(app: Path, command: str) -> None:
    shown = run(app, str(Path(sys.executable).parent / command), "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Usage:" in shown.stdout


@pytest.mark.parametrize(
    "script",
    [
        "from failover_worker import LLMJob; import producer, worker, ops; assert producer.MINE and worker.MINE and ops.MINE",
        "import producer; from failover_worker import LLMJob; import worker; assert producer.MINE and worker.MINE",
    ],
    ids=["ours first", "theirs first"],
)
def test_the_api_and_an_applications_own_modules_live_side_by_side(app: Path, script: str) -> None:
    use = "; LLMJob(body={'messages': [{'role': 'user', 'content': 'x'}]}).fingerprint()"
    used = run(app, sys.executable, "-c", script + use)
    assert (used.returncode, used.stderr) == (0, "")


def test_it_is_the_same_api() -> None:
    assert failover_worker.__all__ == producer.__all__
    assert all(getattr(failover_worker, name) is getattr(producer, name) for name in producer.__all__)
