"""A process that has imported every command, and forks one for each call: a command then starts in milliseconds.
(A worker that imports everything itself takes more than a second of CPU, and the tests start hundreds.)

A forked command is a process of its own, with its own folder, environment and streams, and ends as any interpreter does. What
an import costs, and that each command imports what it needs, is for tests/test_start.py and the tests that start processes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

ROOT = Path(__file__).parents[2]
SKIPPED = ("worker.telemetry", "producer.telemetry", "ops.demo")  # settings of their own, or seldom needed


class Forked(subprocess.Popen[bytes]):
    """A command that was forked elsewhere: it is waited for through the process between."""

    def __init__(self, connection: socket.socket, argv: list[str]) -> None:
        self._child_created = False  # no child of this process: nothing to wait for here
        self.args, self.stdin, self.stdout, self.stderr = argv, None, None, None
        self._connection = connection
        self.pid = int.from_bytes(connection.recv(4))
        self.returncode: int | Any = None

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                self.returncode = int.from_bytes(self._connection.recv(4), signed=True)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
            self._connection.close()
        return int(self.returncode)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class Prepared:
    """The side of the tests. Started with the first call, and ended with the tests."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = f"{self._folder.name}/socket"
        self._server: subprocess.Popen[bytes] | None = None

    def run(
        self, argv: list[str], cwd: Path, env: dict[str, str], given: bytes, timeout: float
    ) -> tuple[int, bytes, bytes]:
        """Run a command to its end. Returns (exit code, stdout, stderr). Raises subprocess.TimeoutExpired."""
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
            streams[0].write(given)
            streams[0].seek(0)
            process = self.start(argv, cwd, env, [stream.fileno() for stream in streams])
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            for stream in streams[1:]:
                stream.seek(0)
            return code, streams[1].read(), streams[2].read()

    def start(self, argv: list[str], cwd: Path, env: dict[str, str], streams: list[int]) -> Forked:
        """Start a command with these descriptors as its standard streams."""
        connection = self._connected()
        request = json.dumps({"argv": argv, "cwd": str(cwd), "env": env}).encode()
        socket.send_fds(connection, [len(request).to_bytes(4)], streams)
        connection.sendall(request)
        return Forked(connection, argv)

    def _connected(self) -> socket.socket:
        if self._server is None:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.support.prepared", self._path], env=environment, cwd=ROOT
            )
        give_up = time.monotonic() + 60
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self._path)
            except OSError:
                connection.close()
                if time.monotonic() > give_up or self._server.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return connection


def serve(path: str) -> None:
    """Fork a command for each connection; in the command, return when it has ended."""
    from failover_worker.own_modules import claim_names

    claim_names()
    for name in ("producer", "worker", "ops"):
        package = import_module(name)
        for module in walk_packages(package.__path__, f"{name}."):
            if not module.name.startswith(SKIPPED):
                import_module(module.name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    parent = os.getppid()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(1)
        while os.getppid() == parent:  # the tests still run
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                if not os.fork():
                    break
                connection.close()
        else:
            return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _watched(connection)


def _watched(connection: socket.socket) -> None:
    """The process between: it forks the command, and tells its id and its exit code."""
    connection.settimeout(None)
    head, fds, _, _ = socket.recv_fds(connection, 4, 3)
    length, request = int.from_bytes(head), b""
    while len(request) < length:
        request += connection.recv(length - len(request))
    if child := os.fork():
        connection.sendall(child.to_bytes(4))
        _, status = os.waitpid(child, 0)
        connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, signed=True))
        os._exit(0)
    connection.close()
    _become(json.loads(request), fds)


def _become(request: dict[str, Any], fds: list[int]) -> None:
    from failover_worker.commands import failover, worker

    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = request["argv"]
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8", "surrogateescape")
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
        errors = "backslashreplace" if number == 2 else "strict"
        setattr(sys, name, io.TextIOWrapper(stream, "utf-8", errors, line_buffering=number == 2))
    (worker if sys.argv[0].endswith("failover-worker") else failover)()


if __name__ == "__main__":
    serve(sys.argv[1])
