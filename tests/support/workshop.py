"""A folder with a routing map and policies, and the real processes that run in it."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.simulators import provider
from producer.connection import connect
from producer.policy import Policies, read_policies
from tests.support.polling import until
from tests.support.prepared import Prepared

BIN = Path(sys.executable).parent
LONGEST_SECONDS = 100.0  # of a command that is run to its end
PREPARED = Prepared()


@dataclass
class Workshop:
    """A folder with a routing map and policies, and the processes that run in it."""

    folder: Path
    url: str
    providers: provider.Control
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    descriptors: int | None = None  # the limit of open files of every process that is started

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
        argv = [str(BIN / command[0]), *command[1:]]
        env = {**self._inherited(), "REDIS_URL": self.url, **self.environment, **environment}
        with log.open("wb") as sink, Path(os.devnull).open("rb") as nothing:
            streams = [nothing.fileno(), sink.fileno(), sink.fileno()]
            lasting = command[0] == "failover-worker" or command[:2] == ("failover", "serve")
            if lasting and self._may_fork(environment):
                process: subprocess.Popen[bytes] = PREPARED.start(argv, self.folder, env, streams)
            else:
                process = subprocess.Popen(argv, cwd=self.folder, env=env, stdin=nothing, stdout=sink, stderr=sink)
        if self.descriptors is not None:
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (self.descriptors, self.descriptors))
        self.processes.append(process)
        return process

    def run(self, *command: str, stdin: str | bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        """The same, to its end."""
        argv = [str(BIN / command[0]), *command[1:]]
        env = {**self._inherited(), "REDIS_URL": self.url, **self.environment, **environment}
        given = stdin.encode() if isinstance(stdin, str) else stdin
        if command[0] == "failover" and self._may_fork(environment):
            code, out, err = PREPARED.run(argv, self.folder, env, given, LONGEST_SECONDS)
            return subprocess.CompletedProcess(argv, code, out.decode(), err.decode())
        done = subprocess.run(
            argv, cwd=self.folder, env=env, input=given, capture_output=True, timeout=LONGEST_SECONDS, check=False
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    @staticmethod
    def _may_fork(environment: dict[str, str]) -> bool:
        """Whether nothing of it is read before a command begins."""
        return not any(name.startswith(("PYTHON", "L", "OTEL", "MALLOC")) for name in environment)

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
        ours = (
            "REDIS_URL",
            "ROUTES_FILE",
            "POLICIES_DIR",
            "ANTHROPIC",
            "OPENAI",
            "GEMINI",
            "HTTP_PROXY",
            "HTTPS_PROXY",
        )
        return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@contextlib.contextmanager
def workshop_in(folder: Path, url: str, providers: provider.Control) -> Iterator[Workshop]:
    """A workshop whose processes end with it."""
    place = Workshop(folder, url, providers)
    try:
        yield place
    finally:
        for process in place.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
