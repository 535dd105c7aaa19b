"""What a command imports before it does anything: each module is a delay for a person at a terminal."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIBRARIES = frozenset(
    {"aiohttp", "fastapi", "httpx", "pydantic", "redis", "rich", "rq", "slack_sdk", "tenacity", "yaml"}
)


def imported(statement: str) -> list[str]:
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    ("statement", "most", "libraries"),
    [
        ("import ops.cli", 180, set()),  # `failover --help`
        ("import failover_worker.commands", 110, set()),  # Python 3.13 has some more of its own
        ("from ops.local import session; from ops.reports import status", 600, {"pydantic", "redis", "rich", "yaml"}),
        ("import worker.cli", 740, {"aiohttp", "pydantic", "redis", "rq", "tenacity", "yaml"}),
    ],
)
def test_a_command_imports_what_it_uses(statement: str, most: int, libraries: set[str]) -> None:
    modules = imported(statement)
    assert {name.partition(".")[0] for name in modules} & LIBRARIES == libraries
    assert len(modules) <= most
