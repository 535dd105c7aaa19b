"""Node programs with the npm packages of an example's package-lock.json. The packages are installed once on a machine."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from tests.support.documents import ROOT

INSTALL = (
    *("npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"),
    *("--fetch-retries=1", "--fetch-timeout=20000"),
)
UNREACHABLE = (
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ENETUNREACH",
    "ETIMEDOUT",
    "ERR_SOCKET_TIMEOUT",
)  # npm's codes


@dataclass(frozen=True)
class Node:
    """A folder with one example and its packages. `environment`: what its programs find there besides the test's own."""

    folder: Path
    environment: dict[str, str]

    def start(self, program: str, **environment: str) -> subprocess.Popen[str]:
        """One of the example's files, running."""
        return subprocess.Popen(
            ["node", program],
            cwd=self.folder,
            env=self._environment(environment),
            stdout=subprocess.PIPE,
            text=True,
        )

    def printed(self, *arguments: str) -> str:
        """What a program prints. It ends well."""
        done = subprocess.run(
            ["node", *arguments],
            cwd=self.folder,
            env=self._environment({}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def value(self, source: str) -> Any:
        """The value of a program: what it gives to `out`, once."""
        out = "const out = (value) => console.log(JSON.stringify(value));\n"
        return json.loads(self.printed("--input-type=module", "--eval", out + source))

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        return {**os.environ, **self.environment, **more}


def example(name: str, folder: Path, **environment: str) -> Node:
    """A copy of examples/{name} in `folder`, with its packages. Skips the test where there is no Node, or no registry."""
    for command in ("node", "npm"):
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed: it runs the examples in examples/{name}")
    shutil.copytree(ROOT / "examples" / name, folder, ignore=shutil.ignore_patterns("node_modules"), dirs_exist_ok=True)
    installed = _installed(ROOT / "examples" / name)
    if isinstance(installed, str):
        pytest.skip(f"npm reaches no registry: {installed}")
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(installed / "node_modules")
    return Node(folder, environment)


@functools.cache
def _installed(source: Path) -> Path | str:
    """A folder with the packages of the lock file, kept for all runs; without a network, what npm says. Only a whole
    installation gets its name."""
    lock = source / "package-lock.json"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "failover-worker"
    place = cache / f"{source.name}-{sha256(version.encode() + lock.read_bytes()).hexdigest()[:16]}"
    if place.is_dir():
        return place
    cache.mkdir(parents=True, exist_ok=True)
    part = Path(mkdtemp(dir=cache, prefix="part-"))
    try:
        for file in (lock, source / "package.json"):
            shutil.copy(file, part)
        done = subprocess.run(INSTALL, cwd=part, capture_output=True, text=True, timeout=100, check=False)
        if any(code in done.stderr for code in UNREACHABLE):
            return done.stderr[:200]
        assert done.returncode == 0, done.stderr
        try:
            part.rename(place)
        except OSError:  # another process was faster
            if not place.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return place
