"""What people should know of, as tables: routes that are open or refused, pause flags, and one incident for one trouble."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import redis

from worker.breakers.health import Health
from worker.control.pause import BUDGET, RQ, Paused
from worker.money.billing_alerts import ProviderSpend
from worker.money.budget_state import CapStatus
from worker.notify.condition import Condition, Snapshot
from worker.notify.conditions import ConditionReader, _pauses, _readable
from worker.notify.incidents import Incident
from worker.notify.kinds import Kind
from worker.notify.oncall import OnCall
from worker.notify.provider_conditions import of_routes
from worker.notify.reconcile import AFTER_COLD_MS, Reconciler, _with_late

NOW = 1_795_000_000_000
NO_SERVER = cast(redis.Redis, None)  # the functions under test ask nothing of it
ON_CALL = OnCall.model_validate({"on_call": [{"name": "Kira"}]})


def health(route: str, breaker: str = "closed", rests_for: str | None = None, reopens: float | None = None) -> Health:
    probe_ms = NOW + int(reopens * 1000) if reopens else 0
    return Health(route, breaker, reopens, rests_for, (), 0, None, None, None, probe_ms=probe_ms)


def told(*standing: Health, held: frozenset[str] = frozenset()) -> list[tuple[Kind, str]]:
    return [(each.kind, each.subject) for each in conditions(*standing, held=held)]


def conditions(*standing: Health, held: frozenset[str] = frozenset()) -> list[Condition]:
    """A route's provider stands before its slash. Twelve jobs wait."""
    usable = {each.route: {"provider": each.route.partition("/")[0]} for each in standing}
    return list(of_routes(usable, {each.route: each for each in standing}, set(held), lambda: 12))


WELL = health("mistral/m")
OPEN, HALF_OPEN = health("openai/o", "open", None, 7.5), health("openai/o", "half-open")
BAD_KEY = health("anthropic/c", "closed", "unauthorized", 60.0)
UNPAID = health("openai/o", "closed", "billing", 300.0)


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        ([], []),
        ([WELL], []),
        ([WELL, OPEN], [(Kind.ROUTE_OPEN, "openai")]),
        ([OPEN], [(Kind.ROUTE_OPEN, "openai"), (Kind.COLD, "")]),
        ([WELL, HALF_OPEN], []),  # nobody knows yet
        ([HALF_OPEN], [(Kind.COLD, "")]),
        ([WELL, UNPAID], [(Kind.CREDENTIALS, "openai")]),
        ([UNPAID], [(Kind.CREDENTIALS, "openai"), (Kind.REFUSED, "")]),  # it does not end by itself
        ([UNPAID, BAD_KEY], [(Kind.CREDENTIALS, "anthropic"), (Kind.CREDENTIALS, "openai"), (Kind.REFUSED, "")]),
        ([OPEN, BAD_KEY], [(Kind.CREDENTIALS, "anthropic"), (Kind.ROUTE_OPEN, "openai"), (Kind.COLD, "")]),
        ([WELL, replace(OPEN, rests_for="billing")], [(Kind.ROUTE_OPEN, "openai"), (Kind.CREDENTIALS, "openai")]),
        ([health("openai/o", "closed", "rate_limited", 60.0)], []),  # a rate limit's rest is no matter for people
        ([health("openai/o", "closed", "rate_limited", 61.0)], [(Kind.COLD, "")]),
        ([WELL, health("gemini/g", "open"), health("google/h", "open")], [(Kind.ROUTE_OPEN, "google")]),
        ([health("b/x", "open"), health("a/x", "open"), WELL], [(Kind.ROUTE_OPEN, "a"), (Kind.ROUTE_OPEN, "b")]),
    ],
)
def test_routes_that_do_not_serve(standing: list[Health], expected: list[tuple[Kind, str]]) -> None:
    assert told(*standing) == expected


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({"openai/o"}, []),  # operators know of it
        ({"mistral/m"}, [(Kind.ROUTE_OPEN, "openai"), (Kind.COLD, "")]),  # what is left is open
        ({"openai/o", "mistral/m"}, []),
    ],
)
def test_routes_that_are_paused_count_for_nothing(held: set[str], expected: list[tuple[Kind, str]]) -> None:
    assert told(WELL, OPEN, held=frozenset(held)) == expected


def test_an_outage_says_how_many_wait_and_when_the_first_route_is_tried_again() -> None:
    *_, cold = conditions(OPEN, replace(UNPAID, route="gemini/g"))
    assert cold.lines[:3] == ("12 jobs in the queue.", "openai/o: fails", "gemini/g: asks for payment")
    assert cold.lines[3].startswith("Fix google: add credit, or pay, on google's billing page. Then at once:")
    assert cold.size == "12 jobs wait"
    assert cold.marks == {
        "openai/o fails": "openai/o may be called again",
        "gemini/g asks for payment": "gemini/g may be called again",
    }
    assert cold.until_ms == NOW + 7500


@pytest.mark.parametrize(
    ("standing", "title"),
    [
        ([BAD_KEY], "Every provider refuses our key: anthropic"),
        (
            [BAD_KEY, health("openai/o", "closed", "forbidden", 60.0)],
            "Every provider refuses our key: anthropic, openai",
        ),
        ([UNPAID], "Our credit is used up at every provider: openai"),
        ([health("openai/o", "closed", "quota", 300.0)], "Our credit is used up at every provider: openai"),
        ([health("openai/o", "closed", "no_such_model", 60.0)], "No provider knows our model: openai"),
        ([BAD_KEY, UNPAID], "Every provider refuses us: our key (anthropic), our credit (openai)"),
    ],
)
def test_every_provider_that_refuses_is_named_with_what_it_refuses(standing: list[Health], title: str) -> None:
    *_, refused = conditions(*standing)
    assert (refused.kind, refused.title, refused.size) == (Kind.REFUSED, title, "12 jobs wait")


def test_the_fix_of_a_refused_key_names_its_variable_and_what_starts_the_jobs_at_once() -> None:
    usable = {
        "anthropic/c": {"provider": "anthropic", "key": "ANTHROPIC_API_KEY"},
        "mistral/m": {"provider": "mistral"},
    }
    standing = {"anthropic/c": BAD_KEY, "mistral/m": WELL}
    (found,) = of_routes(usable, standing, set(), lambda: 12)
    assert found.title == "anthropic refuses our key"
    assert found.lines[-1] == (
        "Fix anthropic: make a new key on anthropic's page of API keys, and set ANTHROPIC_API_KEY where the workers run. "
        "Then at once: failover routes enable anthropic/c"
    )


def test_nobody_counts_the_queue_while_a_route_serves() -> None:
    def counted() -> int:
        raise AssertionError("thousands of jobs cost milliseconds")

    usable = {"mistral/m": {"provider": "mistral"}, "openai/o": {"provider": "openai"}}
    standing = {"mistral/m": WELL, "openai/o": OPEN}
    assert len(list(of_routes(usable, standing, set(), counted))) == 1


SAM = Paused(None, who="sam", why="a test", until=2000.0)
BY_BUDGET = Paused(None, provider="google", who=BUDGET, until=1000.0)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], []),
        ([SAM], [(Kind.PAUSED, "everything", 2_000_000)]),
        ([Paused("q", who="sam")], [(Kind.PAUSED, "queue q", None)]),
        ([Paused(None, route="a/m", who="sam")], []),  # `failover status` tells of it
        ([SAM, Paused("q")], [(Kind.PAUSED, "everything", 2_000_000), (Kind.PAUSED, "queue q", None)]),
        ([BY_BUDGET, replace(BY_BUDGET, provider="openai", until=3000.0)], [(Kind.BUDGET, "", 3_000_000)]),
        ([BY_BUDGET, replace(BY_BUDGET, provider="openai", until=None)], [(Kind.BUDGET, "", None)]),
        ([SAM, BY_BUDGET], [(Kind.BUDGET, "", 1_000_000), (Kind.PAUSED, "everything", 2_000_000)]),
    ],
)
def test_flags(flags: list[Paused], expected: list[tuple[Kind, str, int | None]]) -> None:
    assert [(each.kind, each.subject, each.until_ms) for each in _pauses(flags, lambda: 12, list)] == expected


@pytest.mark.parametrize(
    ("flag", "lines", "mark", "end"),
    [
        (SAM, (f"{SAM}", "12 jobs in the queue."), f"paused: {SAM}", "everything goes on"),
        (BY_BUDGET, (f"{BY_BUDGET}",), f"paused: {BY_BUDGET}", "provider google goes on"),  # others serve
    ],
)
def test_what_a_flag_says(flag: Paused, lines: tuple[str, ...], mark: str, end: str) -> None:
    (found,) = _pauses([flag], lambda: 12, list)
    assert (found.lines, found.marks) == (lines, {mark: end})


GOOGLE, OPENAI = ProviderSpend("google", 97.2, 0, "billing"), ProviderSpend("openai", 81.0, 0, "billing")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([SAM], ["failover resume --dry-run", "failover resume"]),
        ([Paused("q", who="sam")], ["failover resume --queue q --dry-run", "failover resume --queue q"]),
        ([Paused(None, tenant="a b")], ["failover resume --tenant 'a b' --dry-run", "failover resume --tenant 'a b'"]),
        ([Paused(None, who=RQ)], ['rq resume --url "$REDIS_URL"']),
        (
            [Paused(None, who=BUDGET), BY_BUDGET],
            ["failover resume --dry-run", "failover resume --pause-again-at 100"],
        ),
        (
            [BY_BUDGET, replace(BY_BUDGET, provider="openai")],
            [
                "failover resume --provider google --dry-run",
                "failover resume --provider google --pause-again-at 100",
                "failover resume --provider openai --dry-run",
                "failover resume --provider openai --pause-again-at 95",
            ],
        ),
    ],
)
def test_a_pause_names_the_commands_that_end_it(flags: list[Paused], expected: list[str]) -> None:
    (found,) = _pauses(flags, lambda: 12, lambda: [GOOGLE, OPENAI])
    assert list(found.commands) == expected


@pytest.mark.parametrize(
    ("step", "full", "expected"),
    [
        (59.0, False, []),
        (60.0, False, [(Kind.SPEND, "total: 60%", 1)]),
        (94.0, False, [(Kind.SPEND, "total: 85%", 1)]),
        (95.0, False, [(Kind.SPEND, "total: 95%", 2)]),  # and what is done about it
        (100.0, True, [(Kind.SPEND, "total: 95%", 2), (Kind.CAPPED, "total", 1)]),
        (0.0, True, [(Kind.CAPPED, "total", 1)]),
    ],
)
def test_a_cap_that_comes_to_its_end(step: float, full: bool, expected: list[tuple[Kind, str, int]]) -> None:
    reader = ConditionReader(NO_SERVER, ON_CALL, (60.0, 85.0, 95.0))
    found = list(reader._cap_status(CapStatus("total", step, full, 10, 10, -1, 9)))
    assert [(each.kind, each.subject, len(each.lines)) for each in found] == expected
    assert all(each.marks for each in found if each.kind is Kind.CAPPED)  # without one it would seem to be over


@pytest.mark.parametrize("error", [ValueError, TypeError, KeyError, AttributeError])
def test_a_source_that_cannot_be_read_silences_no_other(
    error: Callable[[str], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> tuple[Condition, ...]:
        raise error("of a wrong type")

    with caplog.at_level(logging.ERROR, "failover.worker"):
        assert _readable(broken) == []
    assert [record.message for record in caplog.records] == ["a condition cannot be read"]
    assert _readable(lambda: (Condition(Kind.COLD),)) == [Condition(Kind.COLD)]


COLD, BUDGETED, SPEND = Condition(Kind.COLD), Condition(Kind.BUDGET), Condition(Kind.SPEND, "total: 95%")
REFUSED, NO_WORKERS, GONE = (Condition(kind) for kind in (Kind.REFUSED, Kind.NO_WORKERS, Kind.WORKER_GONE))
ROUTE, KEYS = Condition(Kind.ROUTE_OPEN, "openai"), Condition(Kind.CREDENTIALS, "openai")
LATE = Condition(Kind.LATE, "", "q", ("3 late",), {"acme waits": "acme waits no more"}, {"acme": 3}, 3, ("j1",))


def opened(condition: Condition, **fields: Any) -> Incident:
    return Incident("7", condition.kind, condition.subject, condition.queue, NOW, None, NOW, **fields)


def joined(sight: list[Condition], *incidents: Incident) -> list[Condition]:
    return list(Reconciler(NO_SERVER, ON_CALL)._joined(Snapshot(NOW, tuple(sight)), incidents))


WITH_LATE = _with_late(COLD, [LATE])


@pytest.mark.parametrize(
    ("sight", "incidents", "expected"),
    [
        ([LATE, SPEND], [], [LATE, SPEND]),
        ([ROUTE, LATE, SPEND], [], [_with_late(ROUTE, [LATE]), SPEND]),
        ([BUDGETED, ROUTE, LATE], [], [BUDGETED, _with_late(ROUTE, [LATE])]),  # to the one that weighs most
        ([COLD, LATE], [], [WITH_LATE]),  # they are late for the outage
        ([COLD, LATE], [opened(LATE)], [COLD, LATE]),  # told before it
        ([LATE], [opened(COLD)], []),  # ... for an outage that is just over
        ([ROUTE, KEYS, COLD], [], [COLD]),
        ([ROUTE, KEYS, COLD], [opened(ROUTE)], [ROUTE, COLD]),
        ([KEYS, REFUSED], [], [REFUSED]),  # one fix, one incident
        ([KEYS], [opened(REFUSED)], []),
        ([GONE, NO_WORKERS], [], [NO_WORKERS]),
        ([GONE, NO_WORKERS], [opened(GONE)], [GONE, NO_WORKERS]),
        ([ROUTE], [opened(COLD)], []),  # what is left of it
        ([BUDGETED, SPEND], [], [BUDGETED]),  # the pause says it
        ([BUDGETED, SPEND], [opened(SPEND)], [BUDGETED, SPEND]),
        ([SPEND], [opened(BUDGETED)], []),
    ],
)
def test_one_trouble_is_one_incident(
    sight: list[Condition], incidents: list[Incident], expected: list[Condition]
) -> None:
    assert joined(sight, *incidents) == expected


@pytest.mark.parametrize(("passed", "expected"), [(AFTER_COLD_MS - 1, []), (AFTER_COLD_MS, [ROUTE])])
def test_a_route_that_is_open_long_after_an_outage_is_news(passed: int, expected: list[Condition]) -> None:
    reconciler = Reconciler(NO_SERVER, ON_CALL)
    assert list(reconciler._joined(Snapshot(NOW, (COLD,)), ())) == [COLD]
    assert list(reconciler._joined(Snapshot(NOW + passed, (ROUTE,)), ())) == expected


def test_late_jobs_are_told_also_where_the_route_that_makes_them_late_is_no_news() -> None:
    reconciler = Reconciler(NO_SERVER, ON_CALL)
    assert list(reconciler._joined(Snapshot(NOW, (COLD,)), ())) == [COLD]
    assert list(reconciler._joined(Snapshot(NOW + 1000, (ROUTE, LATE)), ())) == [LATE]


def test_late_jobs_of_all_queues_are_told_with_their_outage() -> None:
    other = replace(LATE, queue="r", lines=("2 late",), tenants={"acme": 1, "globex": 1}, late=2, jobs=("j2",))
    found = _with_late(replace(COLD, lines=("down",)), [LATE, other])
    assert (found.lines, found.late, found.jobs) == (("down", "3 late", "2 late"), 5, ("j1", "j2"))
    assert found.tenants == {"acme": 4, "globex": 1}
    assert found.marks == {"acme waits": "acme waits no more"}
