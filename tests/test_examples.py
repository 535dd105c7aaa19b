"""The examples in Python run as they are, and a wheel has of all examples only what the demo reads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.documents import ROOT
from tests.support.openai_door import door
from tests.support.workshop import Workshop


@pytest.fixture
def environment(workshop: Workshop) -> Iterator[dict[str, str]]:
    """What an app needs to talk to a web process with a worker."""
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    with door(workshop) as client:
        yield {**os.environ, "FAILOVER_URL": str(client.base_url), "FAILOVER_API_TOKEN": client.api_key}


def test_the_examples_in_python(environment: dict[str, str]) -> None:
    said = {"chat.py": "You said: Ping\n", "stream.py": "You said: Write two sentences about Lisbon.\n"}
    programs = sorted((ROOT / "examples" / "python").glob("*.py"))
    assert {program.name for program in programs} == set(said)
    for program in programs:
        done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
        assert (done.stdout, done.returncode) == (said[program.name], 0), done.stderr


def test_a_wheel_has_of_the_examples_what_the_demo_reads(tmp_path: Path) -> None:
    for name in ("producer", "worker", "ops", "failover_worker", "policies", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    for name in ("pyproject.toml", "routes.json", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    installed = tmp_path / "examples" / "node" / "node_modules" / "openai" / "index.js"
    installed.parent.mkdir(parents=True)
    installed.touch()
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    packed = [name for name in zipfile.ZipFile(wheel).namelist() if "examples" in name or "node_modules" in name]
    assert packed == ["producer/packaged/examples/batch.jsonl"]
