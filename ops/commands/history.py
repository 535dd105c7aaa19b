"""`failover history ...`: what happened, by minute and hour; and the ledger rows that have left Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from ops.local import session
from ops.options import Group, as_json
from producer.environment import Environment
from producer.errors import FailoverError, UsageError
from worker.control.pause import utc
from worker.history.archive import VARIABLE, archive_of
from worker.history.document import ALL, COST, DIMENSIONS, PEAK, Facts, together
from worker.history.read import facts_of, slices
from worker.history.rows_file import read_rows
from worker.humanize import many, money, took
from worker.queue.dead_letters import now_ms
from worker.routes.prices import dollars

BARS = "▁▂▃▄▅▆▇█"
COLUMNS = 60  # of a sparkline
LISTED = 10  # names in a table
QUANTILES = (0.5, 0.95, 0.99)


@click.group("history", cls=Group)
def group() -> None:
    """What happened in the last minutes, days and months."""


@group.command()
@click.option(
    "--since", default="24h", show_default=True, metavar="AGE", help="What happened in the last 90m, 24h, 7d."
)
@click.option("--feature", help="Only of this feature.")
@click.option("--tenant", help="Only of this tenant.")
@click.option("--route", help="Only of this route.")
@click.option("--provider", help="Only of this provider.")
@as_json
@click.pass_obj
def show(environment: Environment, /, since: str, as_json: bool, **names: str | None) -> None:
    """Show jobs, times, costs and failures of a period, in all or of one feature, tenant, route or provider."""
    chosen = [(dimension, name) for dimension, name in names.items() if name is not None]
    if len(chosen) > 1:
        raise UsageError("give only one of --feature, --tenant, --route and --provider: they are counted apart")
    dimension, name = chosen[0] if chosen else (ALL, "")
    with session.reached(environment) as (_, client):
        now = now_ms(client)
        found = list(slices(client, now - session.age_seconds("--since", since) * 1000, now))
    facts, whole = facts_of(found, dimension, name), together(each.document for each in found)
    total = whole.facts[dimension].get(name) or Facts()
    if as_json:
        data = [{"begin_ms": each.begin_ms, **_data(part)} for each, part in zip(found, facts, strict=True)]
        happened = [each for each in data if each["counters"]]
        click.echo(json.dumps({"of": name or ALL, "since": since, "total": _data(total), "slices": happened}))
        return
    if not total.counters:
        click.echo(f"nothing happened in the last {since}" + (f" for {dimension} {name}" if name else ""))
        return
    end = found[-1].begin_ms + found[-1].length_ms
    click.echo(f"{utc(found[0].begin_ms / 1000)} to {utc(end / 1000)}" + (f", {dimension} {name}" if name else ""))
    for line in _lines(facts, total):
        click.echo(line)
    if not name:
        for by in DIMENSIONS[1:]:
            _print_table(by, whole.facts[by])


@group.command()
@click.option(
    "--since", default="24h", show_default=True, metavar="AGE", help="What happened in the last 90m, 24h, 7d."
)
@click.option("--month", metavar="YYYY-MM", help="Instead: the ledger rows of a month that have left Redis.")
@click.pass_obj
def export(environment: Environment, since: str, month: str | None) -> None:
    """Write JSON lines: one for each minute or hour and name; or the ledger rows that were written to HISTORY_URL."""
    lines = _left_rows(environment, month) if month else _exported(environment, since)
    for line in lines:
        click.echo(line)


def _exported(environment: Environment, since: str) -> Iterator[str]:
    with session.reached(environment) as (_, client):
        now = now_ms(client)
        for each in slices(client, now - session.age_seconds("--since", since) * 1000, now):
            for dimension, names in each.document.facts.items():
                for name, facts in names.items():
                    where = {"begin_ms": each.begin_ms, "length_ms": each.length_ms, "of": dimension, "name": name}
                    yield json.dumps({**where, **_data(facts)})


def _left_rows(environment: Environment, month: str) -> Iterator[str]:
    archive = archive_of(environment)
    if archive is None:
        raise UsageError(f"{VARIABLE} is not set, so no rows were written; `failover budget ledger` has those in Redis")
    try:
        yield from read_rows(archive, f"ledger/{month}/")
    except OSError as error:
        raise FailoverError(f"{VARIABLE} cannot be read: {error}") from None


def _data(facts: Facts) -> dict[str, Any]:
    """For programs: counters, and quantiles in milliseconds."""
    times = {
        name: {f"p{100 * share:g}": round(histogram.quantile(share) or 0, 1) for share in QUANTILES}
        for name, histogram in facts.times.items()
    }
    return {"counters": facts.counters, "times": times}


def _lines(facts: Sequence[Facts], total: Facts) -> Iterator[str]:
    counters = total.counters
    dead = ", ".join(f"{name} {count:,}" for name, count in islice(total.starting("dead ").items(), LISTED))
    more = [f"{counters[flag]:,} {words}" for flag, words in _FLAGS.items() if counters.get(flag)]
    done = f"{counters.get('done', 0):,} done, {counters.get('dead', 0):,} dead" + (f" ({dead})" if dead else "")
    yield f"jobs        {spark([each.counters.get('done', 0) for each in facts])}  {'; '.join([done, *more])}"
    for name, title in (("answer", "to answer"), ("run", "run time"), ("first token", "first token")):
        if histogram := total.times.get(name):
            told = " / ".join(took(histogram.quantile(share)) for share in QUANTILES)
            p95 = [each.times[name].quantile(0.95) or 0 if name in each.times else 0 for each in facts]
            yield f"{title:12}{spark(p95)}  p50 / p95 / p99: {told}"
    cost, tokens = [each.counters.get("micros", 0) for each in facts], counters.get("prompt_tokens", 0)
    spent = f"{money(dollars(counters.get('micros', 0)))} for {many(counters.get('calls', 0), 'paid call')}"
    tokens_told = f"{tokens:,} tokens in, {counters.get('completion_tokens', 0):,} out"
    yield f"cost        {spark(cost)}  {spent}, {tokens_told}"
    if histogram := total.times.get(COST):
        told = " / ".join(money(dollars(round(histogram.quantile(share) or 0))) for share in QUANTILES)
        yield f"cost a job  p50 / p95 / p99: {told}"
    if waiting := counters.get(PEAK + "waiting"):
        peaks = [each.counters.get(PEAK + "waiting", 0) for each in facts]
        late = f"{counters.get(PEAK + 'late', 0):,} of them late"
        yield f"waiting     {spark(peaks)}  at most {many(waiting, 'job')} at one time, {late}"
    if failed := total.failures:
        attempts = [sum(each.failures.values()) for each in facts]
        told = ", ".join(f"{name} {count:,}" for name, count in islice(failed.items(), LISTED))
        share = f"{sum(failed.values()):,} of {many(counters['attempts'], 'call')}"
        yield f"failures    {spark(attempts)}  {share}: {told}"


_FLAGS = {
    "late": "late",
    "saved": "answered by another route than the first",
    "degraded": "degraded",
    "cached": "from the cache",
    "retried": "executions tried again",
    "parked": "times parked",
    "resolved": "answered by people",
    "cancelled": "cancelled",
    "discarded": "dead letters discarded",
}


def _print_table(dimension: str, names: Mapping[str, Facts]) -> None:
    if not names:
        return
    table = Table(dimension, "done", "dead", "p95 to answer", "cost", "paid calls", box=None)
    for name in sorted(names, key=lambda name: -names[name].weight)[:LISTED]:
        facts = names[name]
        p95 = took(facts.times["answer"].quantile(0.95)) if "answer" in facts.times else "-"
        numbers = [f"{facts.counters.get(counter, 0):,}" for counter in ("done", "dead")]
        cost = money(dollars(facts.counters.get("micros", 0)))
        table.add_row(escape(name), *numbers, p95, cost, f"{facts.counters.get('calls', 0):,}")
    if len(names) > LISTED:
        table.add_row(f"({len(names) - LISTED} more: `failover history export` has all)")
    session.console().print("")
    session.console().print(table)


def spark(values: Sequence[float]) -> str:
    """A line of bars: the highest of each group of values, against the highest of all."""
    size = -(-len(values) // COLUMNS)
    groups = [max(values[begin : begin + size]) for begin in range(0, len(values), size)]
    top = max(groups, default=0)
    if not top:
        return " " * len(groups)
    return "".join(BARS[min(7, int(8 * value / top))] if value else " " for value in groups)
