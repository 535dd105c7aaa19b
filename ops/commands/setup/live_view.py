"""What `failover up` shows while it runs: the status, drawn again each second; in a pipe a line when a number changes."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator

import redis
from redis.exceptions import RedisError

from ops.local import session
from ops.reports import status as status_view
from ops.reports.status import Status
from producer.client import DEFAULT_QUEUE

Show = Callable[[str], None]  # its argument: a line that stands above all, "" for none


@contextlib.contextmanager
def live_view(client: redis.Redis, title: str) -> Iterator[Show]:
    """A function that shows the status of now; a Redis that is away for a moment is said, and raises nothing."""
    if sys.stdout.isatty():
        with _screen(client, title) as show:
            yield show
    else:
        print(title, flush=True)
        yield _lines(client)


@contextlib.contextmanager
def _screen(client: redis.Redis, title: str) -> Iterator[Show]:
    from rich.live import Live
    from rich.text import Text

    from ops.console import PrintableConsole

    console = session.console()
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(above: str) -> None:
            page = PrintableConsole(file=io.StringIO(), force_terminal=True, width=console.width, highlight=False)
            with page.capture() as drawn:
                if above:
                    page.print(above, markup=False, style="bold")
                page.print(title, markup=False)
                try:
                    status_view.render(status_view.gather(client, DEFAULT_QUEUE), page)
                except RedisError as error:
                    page.print(f"Redis is away: {error}", markup=False)
            live.update(Text.from_ansi(drawn.get()), refresh=True)

        yield show


def _lines(client: redis.Redis) -> Show:
    last = ""

    def show(above: str) -> None:  # in a pipe the line was printed once, by who stops
        nonlocal last
        try:
            line = _line(status_view.gather(client, DEFAULT_QUEUE))
        except RedisError as error:
            line = f"Redis is away: {error}"
        if line != last:
            print(line, flush=True)
            last = line

    return show


def _line(status: Status) -> str:
    fields = ("queued", "in_flight", "waiting", "done", "dead")
    counts = {name: sum(getattr(queue, name) for queue in status.queues) for name in fields}
    line = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())
    return "; ".join([line, *(f"PAUSED: {flag}" for flag in status.paused), *status.incidents])
