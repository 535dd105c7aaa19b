"""`failover up`: a worker and a web process on this machine until Ctrl-C, with a live view.

Both are processes of their own, as in production. Each uses the embedded Valkey itself, so whoever ends last stops it, also
when this process is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from ops.commands.setup.live_view import Show, live_view
from ops.local import session
from ops.local.child_process import ChildProcess, end_with_parent
from ops.options import port_option
from producer.environment import Environment
from producer.errors import UsageError
from worker.configuration import Configuration
from worker.humanize import many

STOPPING = "stopping: running jobs end first; Ctrl-C again puts them back into the queue"
READY = {"worker": "worker started", "web": "serving"}  # the name of a part -> the event of its log
LOOK_SECONDS = 1.0
DRAIN_SECONDS = 25
KILL_SECONDS = DRAIN_SECONDS + 10  # a part that has not ended by then is killed; its jobs go back to the queue


@click.command()
@port_option(0)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the web process listens.")
@click.option("--part", type=click.Choice(list(READY)), hidden=True, help="Be this part; used by the command itself.")
@click.pass_obj
def up(environment: Environment, port: int, host: str, part: str | None) -> None:
    """Run worker and web process here, with a live view, until Ctrl-C. Without REDIS_URL: on an embedded Valkey.

    For a laptop. Running jobs end before it does; a second Ctrl-C gives them back to the queue at once.
    """
    if part:
        _be(part, environment, host, port)
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's shell ignores it for what it starts with &
    port = port or _free_port(host)
    routes = Configuration.load(environment).routes  # what is wrong is said before anything starts
    session.note_routes(routes)
    queues = _queues(environment, routes.queues)
    with session.reached(environment) as (_, client):
        session.note_unfinished(client, queues)
        with live_view(client, _title(environment, host, port)) as show, _parts(host, port, show) as parts:
            with contextlib.suppress(KeyboardInterrupt):
                _watch(parts, show)
            session.note(STOPPING)
        left = session.unfinished(client, queues)
    session.note(f"stopped; left for the next start: {many(left, 'unfinished job')}")


def _free_port(host: str) -> int:
    """One that no process listens on. Raises UsageError."""
    try:
        with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            return int(listener.getsockname()[1])
    except OSError as error:
        raise UsageError(f"--host {host} cannot be listened on: {error.strerror}") from None


def _be(part: str, environment: Environment, host: str, port: int) -> None:
    """Be the worker or the web process, until a signal or the end of the parent."""
    end_with_parent()
    with session.reached(environment) as (url, _):
        if part == "web":
            from ops.web.serve import serve  # imports the web framework

            serve(environment, url, host, port)
            return
        from worker.cli import command

        os.environ["REDIS_URL"] = url
        queues = _queues(environment, Configuration.load(environment).routes.queues)
        words = [word for queue in queues for word in ("--queue", queue)]
        command.main([*words, "--drain-seconds", str(DRAIN_SECONDS)], standalone_mode=False)


def _queues(environment: Environment, queues: list[str]) -> list[str]:
    """The queues of the worker: also what `submit --wait` has left in the embedded Valkey."""
    return queues if environment.get("REDIS_URL") else [*queues, session.OWN_QUEUE]


def _log(part: str) -> Path:
    return session.FOLDER / f"up-{part}.log"


def _title(environment: Environment, host: str, port: int) -> str:
    where = "the Redis of REDIS_URL" if environment.get("REDIS_URL") else f"an embedded Valkey under {session.FOLDER}/"
    key = "FAILOVER_API_TOKEN" + ("" if environment.get("FAILOVER_API_TOKEN") else " (not set)")
    address = f"[{host}]" if ":" in host else host
    return (
        f"failover up, on {where}; Ctrl-C stops it\n"
        f"page: http://{address}:{port}/\n"
        f"apps: http://{address}:{port}/v1, api key: {key}\n"
        f"logs: {', '.join(str(_log(part)) for part in READY)}"
    )


@contextlib.contextmanager
def _parts(host: str, port: int, show: Show) -> Iterator[list[ChildProcess]]:
    """The processes; they drain at the end of the block."""
    options = ("--host", host, "--port", str(port))
    parts: list[ChildProcess] = []
    try:
        for name, ready in READY.items():
            parts.append(ChildProcess(name, ("up", "--part", name, *options), _log(name), ready))
        yield parts
    finally:
        _stop(parts, show)


def _watch(parts: Sequence[ChildProcess], show: Show) -> None:
    """Show the status, and keep the processes alive, until Ctrl-C."""
    ready = False
    while True:
        for part in parts:
            part.keep()
        if not ready and all(part.ready for part in parts):
            ready = True
            session.note("ready: in another terminal, `failover submit 'Say hello' --wait`")
        show("" if ready else "starting")
        time.sleep(LOOK_SECONDS)


def _stop(parts: Sequence[ChildProcess], show: Show) -> None:
    """Drain all; another Ctrl-C hurries them."""
    give_up = time.monotonic() + KILL_SECONDS
    due, interrupted = session.paced(LOOK_SECONDS), True
    while any(part.runs for part in parts):
        killed = time.monotonic() > give_up
        try:
            if interrupted or killed:
                for part in parts:
                    part.signal(signal.SIGKILL if killed else signal.SIGINT)
            interrupted = False
            if due():
                show(STOPPING)
            time.sleep(0.1)
        except KeyboardInterrupt:
            interrupted = True
    show("stopped")
