"""`make bench-door`: what the OpenAI-compatible surface adds to a provider, beside LiteLLM's proxy, in interleaved rounds.

    python -m bench.door.compare [--rounds 3] [--seconds 30] [--parts latency rate steady waiting] [--only NAME ...]

`failover serve` and one worker share one core, and LiteLLM's proxy has the same one. Valkey with its AOF, the provider and the
clients are on another one. Requests come at a fixed rate, whatever is answered; a request's time is without the provider's own
100 ms. CPU is that of the processes (user + system, from the kernel). `the provider` gets the same requests without a door: that
is what the clients and the provider themselves add.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median

from bench.door.doors import LITELLM, OURS, Door, Open, doors
from bench.door.load import Load, Times
from bench.peers.compare import Place, Profile, place_of, until_quiet
from worker.control.descriptors import raise_descriptor_limit

PARTS = ("latency", "rate", "steady", "waiting")
PROVIDER = "the provider"
CONCURRENCY = 100  # of the worker, as it comes
PROVIDER_SECONDS, WAITING_SECONDS = 0.1, 20.0
RATE = 20.0  # requests a second
WARM_UP = Load(RATE, 3.0, PROVIDER_SECONDS)
BOUND_MS = 60.0  # p99 of a rate that is held
STEP, MOST = 10, 500  # requests a second: between two rates that are tried, and the highest
STEP_SECONDS, SETTLING_SECONDS = 8.0, 2.0
RATES = (20, 30, 40, 60, 80, 120, 160, 200, 250, 300)  # requests a second, tried in turn
STEADY_MS = 100.0  # ... while the median is at most so much
WAITING, SENDING_SECONDS = 1000, 12.0
# What is wanted of ours.
MEDIAN_MS, P99_MS, HELD, WAITING_MB, TIMES_THE_PEER = 8.0, 20.0, 250.0, 150.0, 2.5


@dataclass
class Figures:
    """Of one door in one round; NaN: not measured. CPU in milliseconds a request and RSS in MB, by part."""

    median: float = float("nan")
    p99: float = float("nan")
    unanswered: int = 0
    held: float = float("nan")
    steady: float = float("nan")
    cpu: dict[str, float] = field(default_factory=dict)
    cpu_held: dict[str, float] = field(default_factory=dict)
    rss: dict[str, float] = field(default_factory=dict)


def answered(load: Load, url: str, figures: Figures) -> Times:
    """The times of a whole load. Ends the benchmark if nothing is answered."""
    times = load.run(url)
    if times is None or not times.beyond:
        raise SystemExit(f"bench: {url} did not answer: {times.failed[:3] if times else 'late'}")
    for failure in times.failed[:3]:
        print(f"  no answer: {failure}", file=sys.stderr, flush=True)
    figures.unanswered += len(times.failed)
    return times


def latency(door: Door, seconds: float, figures: Figures) -> None:
    """At RATE."""
    before = door.cpu()
    times = answered(load := Load(RATE, seconds, PROVIDER_SECONDS), door.url, figures)
    figures.median, figures.p99, figures.cpu = times.median, times.p99, _a_request(door, before, load)


def held(door: Door, figures: Figures) -> None:
    """The highest rate with a p99 below BOUND_MS, by bisection. What fails is tried twice: others use the machine, too."""
    low, high = 0, MOST // STEP + 1  # in steps; `low` is held, `high` is not
    while high - low > 1:
        middle = (low + high) // 2
        load = Load(middle * STEP, STEP_SECONDS, PROVIDER_SECONDS, SETTLING_SECONDS, BOUND_MS)
        if (cpu := _holds(door, load)) or (cpu := _holds(door, load)):
            low, figures.cpu_held = middle, cpu
        else:
            high = middle
    figures.held = low * STEP


def _holds(door: Door, load: Load) -> dict[str, float] | None:
    """CPU a request; None if the rate is not held."""
    before = door.cpu()
    times = load.run(door.url)
    used = _a_request(door, before, load)
    until_quiet(*door.parts.values())
    found = f"p99 {times.p99:.0f} ms" if times else "not held"
    print(f"  {load.rate:.0f}/s: {found}", file=sys.stderr, flush=True)
    return used if times else None


def steady(door: Door, figures: Figures) -> None:
    """The highest rate at which no queue grows, which the median shows: single hiccups of the machine do not count."""
    figures.steady = 0.0
    for rate in RATES:
        times = answered(Load(rate, STEP_SECONDS, PROVIDER_SECONDS, SETTLING_SECONDS), door.url, figures)
        until_quiet(*door.parts.values())
        print(f"  {rate}/s: median {times.median:.0f} ms, p99 {times.p99:.0f} ms", file=sys.stderr, flush=True)
        if times.median > STEADY_MS:
            return
        figures.steady = rate


def _a_request(door: Door, before: dict[str, float], load: Load) -> dict[str, float]:
    return {name: 1000 * (now - before[name]) / load.requests for name, now in door.cpu().items()}


def waiting(door: Door, place: Place, figures: Figures) -> None:
    """RSS while WAITING requests wait for a provider of WAITING_SECONDS."""
    place.provider("reset")
    load = Load(WAITING / SENDING_SECONDS, SENDING_SECONDS, WAITING_SECONDS)
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(answered, load, door.url, figures)
        while not answers.done() and place.provider("stats")["most"] < WAITING:
            time.sleep(0.2)
        if not answers.done():
            figures.rss = door.rss()
        answers.result()


def one_round(opened: Mapping[str, Open], parts: Sequence[str], seconds: float) -> dict[str, Figures]:
    found = {name: Figures() for name in opened}
    if {"latency", "rate", "steady"}.intersection(parts):
        with place_of(Profile(CONCURRENCY, (PROVIDER_SECONDS, PROVIDER_SECONDS), 0)) as place:
            for name, door_of in opened.items():
                with door_of(place) as door:
                    answered(WARM_UP, door.url, found[name])
                    if "latency" in parts:
                        latency(door, seconds, found[name])
                    if "rate" in parts and door.parts:
                        held(door, found[name])
                    if "steady" in parts and door.parts:
                        steady(door, found[name])
    if "waiting" in parts:
        with place_of(Profile(WAITING, (WAITING_SECONDS, WAITING_SECONDS), 0)) as place:
            for name, door_of in opened.items():
                with door_of(place) as door:
                    if door.parts:
                        waiting(door, place, found[name])
    return found


@contextlib.contextmanager
def provider(place: Place) -> Iterator[Door]:
    """The provider itself, as a door that adds nothing."""
    yield Door(f"{place.provider_url}/v1/chat/completions", {})


def table(rounds: list[dict[str, Figures]]) -> str:
    """Medians of the rounds, with the least and the most if there are several."""

    def cell(values: list[float], digits: int) -> str:
        values = [each for each in values if not math.isnan(each)]
        if not values:
            return "-"
        several = f" ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else ""
        return f"{median(values):.{digits}f}{several}"

    def split(of: list[dict[str, float]], digits: int) -> str:
        """By part, as in `web 2.10 + worker 1.80`."""
        names = of[0] if of else ()
        return " + ".join(f"{name} {cell([each.get(name, math.nan) for each in of], digits)}" for name in names) or "-"

    columns = (
        *("", f"ms at {RATE:.0f}/s, median", "p99", "CPU ms/request", f"most/s, p99 <= {BOUND_MS:.0f} ms"),
        *("CPU ms/request then", f"most/s, median <= {STEADY_MS:.0f} ms", f"RSS MB, {WAITING} wait", "unanswered"),
    )
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name in rounds[0]:
        of = [each[name] for each in rounds]
        cells = (
            name,
            cell([each.median for each in of], 1),
            cell([each.p99 for each in of], 1),
            split([each.cpu for each in of], 2),
            cell([each.held for each in of], 0),
            split([each.cpu_held for each in of], 2),
            cell([each.steady for each in of], 0),
            split([each.rss for each in of], 0),
            str(sum(each.unanswered for each in of)),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdicts(rounds: list[dict[str, Figures]]) -> list[tuple[bool, str]]:
    """Of what was measured: by the median round, the ratios to LiteLLM's by the median of the ratios."""

    def of(value: Callable[[dict[str, Figures]], float]) -> float:
        return median(map(value, rounds))

    def ratio(name: str) -> float:
        return of(lambda each: getattr(each[OURS], name) / (getattr(each[LITELLM], name) or math.nan))

    at_median, p99 = of(lambda each: each[OURS].median), of(lambda each: each[OURS].p99)
    most, web = of(lambda each: each[OURS].held), of(lambda each: each[OURS].rss.get("web", math.nan))
    unanswered = sum(each[OURS].unanswered for each in rounds)
    found: list[tuple[float, bool, str]] = [
        (unanswered, unanswered == 0, f"{unanswered} requests without an answer"),
        (
            at_median,
            at_median <= MEDIAN_MS,
            f"{at_median:.1f} ms at the median with {RATE:.0f}/s, at most {MEDIAN_MS:.0f}",
        ),
        (p99, p99 <= P99_MS, f"{p99:.1f} ms at p99 with {RATE:.0f}/s, at most {P99_MS:.0f}"),
        (most, most >= HELD, f"{most:.0f}/s with p99 <= {BOUND_MS:.0f} ms, at least {HELD:.0f}"),
        (web, web <= WAITING_MB, f"{web:.0f} MB with {WAITING} requests waiting, at most {WAITING_MB:.0f}"),
    ]
    if LITELLM in rounds[0]:
        median_ratio, p99_ratio, rate_ratio = map(ratio, ("median", "p99", "steady"))
        found += [
            (median_ratio, median_ratio < 1, f"{median_ratio:.2f} of {LITELLM}'s median, below 1"),
            (p99_ratio, p99_ratio < 1, f"{p99_ratio:.2f} of its p99, below 1"),
            (rate_ratio, rate_ratio >= TIMES_THE_PEER, f"{rate_ratio:.1f} times its rate, at least {TIMES_THE_PEER}"),
        ]
    return [(good, words) for value, good, words in found if not math.isnan(value)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30, help=f"at {RATE:.0f}/s")
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--only", choices=[OURS, LITELLM], nargs="+", default=[OURS, LITELLM])
    chosen = parser.parse_args()
    raise_descriptor_limit()
    opened = {PROVIDER: provider} | doors(chosen.only)
    rounds = [one_round(opened, chosen.parts, chosen.seconds) for _ in range(chosen.rounds)]
    print(f"one core, {chosen.rounds} rounds, a provider of {PROVIDER_SECONDS * 1000:.0f} ms\n\n{table(rounds)}\n")
    judged = verdicts(rounds) if OURS in opened else []
    for good, words in judged:
        print(f"{'passed' if good else 'FAILED'}  {words}")
    return 0 if all(good for good, _ in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
