"""A real Valkey, a real HTTP provider that misbehaves on request, real worker processes. Nothing of ours is mocked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from ops.local import embedded
from ops.simulators import provider, slack_api
from ops.simulators.slack_api import Slack
from producer import LLMJob, Producer
from producer.connection import connect
from producer.policy import Policies, load_policies, read_policies

BIN = Path(sys.executable).parent


def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """Poll until `condition` is true; its value. Never sleeps for a guess."""
    give_up = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return value


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded.running(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """An empty server."""
    with connect(server) as client:
        client.flushall()
    return server


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with connect(url) as client:
        yield client


@pytest.fixture(scope="session")
def provider_server() -> Iterator[provider.Control]:
    with provider.running() as control:
        yield control


@pytest.fixture
def providers(provider_server: provider.Control) -> provider.Control:
    """The simulator, with everything forgotten."""
    provider_server.forget()
    return provider_server


@pytest.fixture
def policies() -> Policies:
    return load_policies({})


@pytest.fixture
def producer(client: redis.Redis, policies: Policies) -> Producer:
    return Producer(client, policies)


def chat(content: str = "hello", **fields: Any) -> LLMJob:
    return LLMJob(body={"messages": [{"role": "user", "content": content}]}, **fields)


@dataclass
class Workshop:
    """A folder with a routing map and policies, and the processes that run in it."""

    folder: Path
    url: str
    providers: provider.Control
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def routes(self, **tiers: list[dict[str, Any]]) -> None:
        """`routes(hot=[{"upstream": "a"}])`; other fields of a route as in routes.json."""

        def entry(fields: dict[str, Any]) -> dict[str, Any]:
            fields = dict(fields)
            upstream = fields.pop("upstream")
            base = {"provider": upstream, "model": f"{upstream}-1", "apiKeyEnv": ""}
            return {**base, "baseUrl": self.providers.base_url(upstream), **fields}

        path = self.folder / "routes.json"
        path.write_text(json.dumps({tier: [entry(fields) for fields in entries] for tier, entries in tiers.items()}))
        self.environment["ROUTES_FILE"] = str(path)

    def policy(self, **fields: Any) -> Policies:
        """One job type, `default`, with these fields."""
        (self.folder / "policies").mkdir(exist_ok=True)
        path = self.folder / "policies" / "jobs.yaml"
        path.write_text(json.dumps({"version": 1, "job_types": {"default": fields, "batch": fields}}))
        self.environment["POLICIES_DIR"] = str(path.parent)
        return read_policies(path)

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """One of our commands, in this folder; its output goes to {command}-{n}.log."""
        log = self.folder / f"{command[0]}-{len(self.processes)}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                cwd=self.folder,
                env={**self._inherited(), "REDIS_URL": self.url, **self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        self.processes.append(process)
        return process

    def run(self, *command: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        """The same, to its end."""
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            cwd=self.folder,
            env={**self._inherited(), "REDIS_URL": self.url, **self.environment, **environment},
            input=stdin,
            capture_output=True,
            timeout=100,
            check=False,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def worker(self, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        """A `failover-worker` that is listening."""
        with connect(self.url) as client:
            before = client.scard("rq:workers")
            process = self.start("failover-worker", *options, **environment)
            until(lambda: client.scard("rq:workers") > before or process.poll() is not None, "a worker registers")
        assert process.poll() is None, self.log(process)
        return process

    def log(self, process: subprocess.Popen[bytes]) -> str:
        number = self.processes.index(process)
        return "".join(path.read_text() for path in self.folder.glob(f"*-{number}.log"))

    def events(self, process: subprocess.Popen[bytes], event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log(process).splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def _inherited(self) -> dict[str, str]:
        ours = ("REDIS_URL", "ROUTES_FILE", "POLICIES_DIR", "ANTHROPIC", "OPENAI", "GEMINI")
        return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture
def workshop(tmp_path: Path, url: str, providers: provider.Control) -> Iterator[Workshop]:
    place = Workshop(tmp_path, url, providers)
    yield place
    for process in place.processes:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait()


@pytest.fixture
def slack() -> Iterator[Slack]:
    with slack_api.running() as slack:
        yield slack
