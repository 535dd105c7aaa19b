"""The session of a command: the Redis of REDIS_URL, or an embedded Valkey under .failover/ with a worker of its own.

Without REDIS_URL, a command that waits for results also executes the jobs, so a first real run on a laptop needs only one
provider key in the environment. The worker is a thread of the command, so it ends with the command.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import getpass
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import redis

from ops.local import embedded
from producer import Producer, keyspace, telemetry
from producer.client import DEFAULT_QUEUE, REPLY_TIMEOUT_SECONDS
from producer.connection import check_reachable, connect, redis_url
from producer.environment import Environment
from producer.errors import ServiceUnavailable, UsageError
from producer.policy import load_policies
from producer.scripts import Call, Command, ask
from worker.control import worker_registry
from worker.humanize import many
from worker.network import Network
from worker.queue.fair_queue import length_call

if TYPE_CHECKING:
    from rich.console import Console

    from worker.breakers.local import Rules
    from worker.configuration import Configuration, Stamp
    from worker.notify.settings import Settings
    from worker.routes.route import Routes
    from worker.worker import FailoverWorker

FOLDER = Path(".failover")
OWN_WORKER_SLOTS = 100
OWN_QUEUE = "ai-tasks-own"  # of `submit --wait`, whose worker executes nothing else
PIPE_WIDTH = 400
PROGRESS_SECONDS = 2.0  # between two lines of progress in a pipe


@dataclass(frozen=True)
class Session:
    """The Redis and the producer of a running command. `embedded`: it is the embedded Valkey."""

    url: str
    producer: Producer
    embedded: bool


@contextlib.contextmanager
def reached(environment: Environment) -> Iterator[tuple[str, redis.Redis]]:
    """(URL, client) of a Redis that answers. It reads no policy files, so it works while they are broken.

    Raises ServiceUnavailable.
    """
    with contextlib.ExitStack() as stack:
        url = redis_url(environment)
        if not url:
            note("REDIS_URL is not set: an embedded Valkey under .failover/ is used (laptop only)")
            url = stack.enter_context(embedded.running(FOLDER / "valkey"))
        client = stack.enter_context(connect(url, reply_timeout=REPLY_TIMEOUT_SECONDS))
        check_reachable(client, url)
        yield url, client


@contextlib.contextmanager
def existing(environment: Environment) -> Iterator[redis.Redis | None]:
    """A client of the Redis of REDIS_URL, or of the embedded one; None if neither exists yet. Raises ServiceUnavailable."""
    if redis_url(environment) is None and not (FOLDER / "valkey").exists():
        yield None
        return
    with reached(environment) as (_, client):
        yield client


@contextlib.contextmanager
def opened(environment: Environment, queue: str = DEFAULT_QUEUE) -> Iterator[Session]:
    """A session on a Redis that answers; its jobs go to `queue`. Raises ConfigurationError, ServiceUnavailable."""
    policies = load_policies(environment)
    telemetry.start(environment, "failover", lambda url: Network.of(environment).options(url), note)
    with reached(environment) as (url, client):
        yield Session(url, Producer(client, policies, queue), embedded=not environment.get("REDIS_URL"))


@contextlib.contextmanager
def executing(environment: Environment, own_queue: str | None = None) -> Iterator[Session]:
    """Like `opened`, with a worker: our own on the embedded server; on another Redis, a note if no worker listens.

    `own_queue`: on the embedded server, the only queue whose jobs our worker executes.
    """
    if environment.get("REDIS_URL"):
        with opened(environment) as active:
            warn_without_worker(active)
            yield active
        return
    from worker.configuration import Configuration, stamp  # reads every policy, which most commands do not need
    from worker.notify.settings import load_settings

    reloads = stamp()
    configuration = Configuration.load(environment)  # errors come before a server is started
    routes = configuration.routes
    note_routes(routes)
    with opened(environment, own_queue or DEFAULT_QUEUE) as active:
        settings = load_settings(environment, routes.cold.notify, active.producer.policies.tenants)
        queues = [own_queue] if own_queue else routes.queues
        note_unfinished(active.producer.client, queues)
        with own_worker(active.url, configuration, settings=settings, reloads=reloads, queues=queues):
            yield active


@contextlib.contextmanager
def own_worker(
    url: str,
    configuration: Configuration,
    *,
    slots: int = OWN_WORKER_SLOTS,
    rules: Rules | None = None,
    settings: Settings | None = None,
    reloads: Stamp | None = None,
    queues: list[str] | None = None,
) -> Iterator[FailoverWorker]:
    """A FailoverWorker in a thread until the end of the block; jobs that run then go back to the queue."""
    from worker.worker import FailoverWorker  # as above

    worker = FailoverWorker(
        url,
        queues or configuration.routes.queues,
        configuration,
        concurrency=slots,
        rules=rules,
        settings=settings,
        reloads=reloads,
    )
    logging.getLogger("failover").addHandler(logging.NullHandler())
    broken: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(worker.run())
        except BaseException as error:  # noqa: BLE001 - raised below, in the main thread
            broken.append(error)
            _thread.interrupt_main()

    thread = threading.Thread(target=work, name="failover-worker")
    thread.start()
    try:
        yield worker
    except KeyboardInterrupt:
        if broken:
            raise ServiceUnavailable(f"the worker of this command stopped: {broken[0]}") from broken[0]
        raise
    finally:
        worker.drain(hurry=True)
        thread.join()


def warn_without_worker(active: Session) -> None:
    """Note on stderr that no worker would execute a job now, if so."""
    if worker_registry.alive(active.producer.client, active.producer.queue):
        return
    starts = "`failover up`" if active.embedded else "`failover-worker`"
    note(f"no worker listens on {active.producer.queue}: jobs wait until you start {starts}")


def note_routes(routes: Routes) -> None:
    """Note on stderr which routes are used, where no file says so, and which cannot be used."""
    if routes.built_in:
        note(routes.built_in_words)
    for out in routes.left_out:
        note(f"route {out.name} is left out: {out.why}")


def note_unfinished(client: redis.Redis, queues: list[str]) -> None:
    """Note on stderr how many jobs of earlier commands a worker that starts now on these queues also executes, if any."""
    if count := unfinished(client, queues):
        note(f"also executed now: {many(count, 'unfinished job')} of earlier commands")


def unfinished(client: redis.Redis, queues: list[str]) -> int:
    """How many jobs of these queues are queued, running, or wait for a later time."""
    commands: list[Call | Command] = [length_call(queue) for queue in queues]
    commands += [("ZCARD", key(queue)) for queue in queues for key in (keyspace.scheduled, keyspace.leases)]
    replies = ask(client, commands)
    queued: list[int] = [length for length, _ in replies[: len(queues)]]
    return sum(queued, start=sum(replies[len(queues) :]))


def note_others(active: Session, job_id: str) -> None:
    """Note on stderr which jobs of the embedded server the worker of this command does not execute, or executes too."""
    producer = active.producer
    if not active.embedded or producer.queue == DEFAULT_QUEUE:
        return
    ((others, _), origin) = ask(producer.client, [length_call(DEFAULT_QUEUE), ("HGET", keyspace.job(job_id), "origin")])
    if origin != producer.queue.encode() and not producer.ended([job_id])[0]:
        note(
            f"job {job_id} was submitted before, and waits with {many(others, 'job')} of earlier commands: --all executes it"
        )
    elif others:
        note(f"not executed now: {many(others, 'job')} of earlier commands; --all executes them")


def age_seconds(option: str, age: str) -> int:
    """The seconds of an age such as 90s, 90m, 12h or 7d. Raises UsageError that names `option`."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", age)
    if not found or not int(found[1]):
        raise UsageError(f"{option} {age}: use a number and s, m, h or d, such as 90m")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def console() -> Console:
    """For tables: as wide as the terminal; in a pipe PIPE_WIDTH, so that nothing is cut."""
    from ops.console import PrintableConsole

    return PrintableConsole(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


@contextlib.contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """A function that counts finished work: a progress bar on a terminal, else a line on stderr every PROGRESS_SECONDS."""
    if sys.stderr.isatty():
        from rich.progress import Progress

        from ops.console import PrintableConsole

        with Progress(console=PrintableConsole(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=total)
            yield lambda more: bar.advance(task, more)
        return
    due, done = paced(PROGRESS_SECONDS), 0

    def report(more: int) -> None:
        nonlocal done
        done += more
        if due():
            note(f"{done:,} of {total:,}")

    yield report


def note(text: str) -> None:
    """Print a message for the person on stderr, separate from the output."""
    click.echo(text, err=True)


def paced(seconds: float) -> Callable[[], bool]:
    """A function that returns True at most every `seconds`, the first time after `seconds`."""
    last = time.monotonic()

    def due() -> bool:
        nonlocal last
        if time.monotonic() - last < seconds:
            return False
        last = time.monotonic()
        return True

    return due


def who() -> str:
    """user@host for the audit; `uid N@host` in a container whose user has no name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
