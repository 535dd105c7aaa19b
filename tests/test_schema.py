"""The served OpenAPI document is kept to: schemathesis tries what it allows and what it does not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.web import TOKEN, served, tenants
from tests.support.workshop import BIN, Workshop


@pytest.mark.timeout(300)  # a minute alone
def test_schemathesis_finds_nothing(workshop: Workshop, tmp_path: Path) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy(max_time_to_answer_seconds=0.02, when_late="accept")
    workshop.worker()
    tenants(workshop, jobs_per_minute=1e6, burst=100_000)
    with served(workshop) as web:
        command = [
            str(BIN / "schemathesis"),
            "run",
            f"{web.base_url}/openapi.json",
            "--header",
            f"Authorization: Bearer {TOKEN}",
        ]
        limits = ["--max-examples", "4", "--seed", "1", "--generation-deterministic", "--no-color"]
        found = subprocess.run(
            [*command, *limits], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=110
        )
        assert found.returncode == 0, found.stdout
        assert httpx.get(f"{web.base_url}/healthz", trust_env=False).status_code == 200
        assert not [line for line in workshop.log(workshop.processes[-1]).splitlines() if '"level": "error"' in line]
