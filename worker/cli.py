"""The `failover-worker` command."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

import click
from redis.exceptions import RedisError

from producer import telemetry
from producer.connection import connect, redis_url, require_safe, wait_until_reachable, without_secret
from producer.environment import flag, load_environment
from producer.errors import FailoverError, ServiceUnavailable
from worker.configuration import Configuration, stamp
from worker.logs import configure
from worker.machine import DEFAULT_SLOTS, Machine
from worker.memory import collect_rarely, return_freed_memory
from worker.notify.settings import load_settings
from worker.processes import DRAINS, Supervisor
from worker.worker import FailoverWorker, log


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="failover-worker")
@click.option(
    "--concurrency", default=DEFAULT_SLOTS, show_default=True, type=click.IntRange(1, 5000), help="Jobs at once."
)
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Worker processes, with so many jobs at once each: one for each core.",
)
@click.option("--queue", "queues", multiple=True, help="Queue to work, highest first; repeatable.  [default: ai-tasks]")
@click.option("--burst", is_flag=True, help="Stop once nothing runs and nothing can be claimed.")
@click.option(
    "--drain-seconds",
    default=25.0,
    show_default=True,
    type=click.FloatRange(0, 3600),
    help="After SIGTERM: how long running jobs may take to end, before they go back to the queue.",
)
@click.option(
    "--allow-unsafe-redis",
    is_flag=True,
    help="Start even on a Redis that can lose jobs; a warning is logged. Or ALLOW_UNSAFE_REDIS=true.",
)
@click.option(
    "--redis-wait-seconds",
    default=lambda: load_environment().get("REDIS_WAIT_SECONDS") or 60.0,
    type=click.FloatRange(0, 86400),
    help="At the start: how long to wait for a Redis that starts, loads its data or fails over. Or REDIS_WAIT_SECONDS.  "
    "[default: 60]",
)
def command(
    concurrency: int,
    processes: int,
    queues: tuple[str, ...],
    burst: bool,
    drain_seconds: float,
    allow_unsafe_redis: bool,
    redis_wait_seconds: float,
) -> None:
    """Execute LLM jobs from Redis, many at once. Redis, routes and policies: REDIS_URL, ROUTES_FILE, POLICIES_DIR.

    SIGTERM drains, and so do SIGHUP, SIGQUIT and SIGUSR1: no new job starts, running ones end or go back to the head of the
    queue, exit 0.
    """
    environment = load_environment()
    reloads = stamp()  # before the files are read, so that later changes are noticed
    configuration = Configuration.load(environment)
    routes = configuration.routes
    url = redis_url(environment)
    if not url:
        raise ServiceUnavailable("REDIS_URL is not set — point it at the Redis that the producers use")
    settings = load_settings(environment, routes.cold.notify, configuration.policies.tenants)
    configure()
    machine = Machine.of(environment).shared_by(processes)
    slots, why = machine.slots(concurrency)
    if why:
        log.warning("fewer jobs at once than asked for", extra={"asked": concurrency, "slots": slots, "why": why})
    log.info("limits of this machine", extra={"memory": machine.told(), "open_files": machine.descriptors})
    return_freed_memory()
    log.info("routing map", extra={"map": routes.origin, "routes": [route.name for route in routes.routes]})
    for out in routes.left_out:
        log.warning("route left out", extra={"route": out.name, "why": out.why})
    try:
        with connect(url) as client:
            wait_until_reachable(
                client,
                url,
                seconds=redis_wait_seconds,
                tell=lambda why: log.warning("redis is away, the start waits", extra={"error": why}),
            )
            allowed = allow_unsafe_redis or flag(environment, "ALLOW_UNSAFE_REDIS", default=False)
            for danger in require_safe(client, allowed=allowed):
                log.warning("redis is not safe", extra={"danger": danger})
    except RedisError as error:
        raise ServiceUnavailable(f"Redis at {without_secret(url)} cannot be used: {error}") from None

    def work(parent: int | None = None) -> None:
        telemetry.start(environment, "failover-worker", configuration.network.options)
        worker = FailoverWorker(
            url,
            list(queues) or routes.queues,
            configuration,
            concurrency=slots,
            drain_seconds=drain_seconds,
            burst=burst,
            settings=settings,
            reloads=reloads,
            memory=machine.memory,
        )
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(_run(worker, parent))
        except RedisError as error:
            raise ServiceUnavailable(f"Redis at {without_secret(url)} cannot be used: {error}") from None
        finally:
            telemetry.stop()

    collect_rarely()
    if processes == 1:
        work()
    else:
        log.info("worker processes", extra={"processes": processes})
        sys.exit(Supervisor(processes, lambda parent: _told(lambda: work(parent)), once=burst).run())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where `failover-worker[fast]` is installed; else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _run(worker: FailoverWorker, parent: int | None) -> None:
    """`parent`: a descriptor that becomes readable when the parent process is gone; None if there is none."""
    loop = asyncio.get_running_loop()
    interrupts = 0

    def interrupted() -> None:
        nonlocal interrupts
        interrupts += 1
        worker.drain(hurry=interrupts > 1)

    for terminates in DRAINS:
        loop.add_signal_handler(terminates, worker.drain)
    loop.add_signal_handler(signal.SIGINT, interrupted)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*DRAINS, signal.SIGINT))  # as they are after a fork
    if parent is not None:
        loop.add_reader(parent, worker.drain)
    await worker.run()


def main() -> None:
    """Entry point: an error becomes one sentence on stderr and its exit code."""
    sys.exit(_told(lambda: command.main(standalone_mode=False)))


def _told(run: Callable[[], object]) -> int:
    """Run it, say what went wrong, and return the exit code."""
    try:
        run()
    except FailoverError as error:
        click.echo(f"failover-worker: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    return 0
