"""Hooks: who hears what, and that a hook that raises harms nobody and fills no log."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic_core import from_json, to_json

from producer.job import DeadReason
from producer.trail import Attempt
from worker.events import Event, EventKind, Hooks
from worker.queue.claim import Claim
from worker.queue.outcome_events import event_of, executed_event, record_of
from worker.queue.outcomes import Dead, Executed
from worker.queue.trail import trail_of
from worker.queue.transitions import Settled

PHRASE = "a hook failed, its later failures are not logged"


def broken(_event: Event) -> None:
    raise RuntimeError("a bug of somebody else")


def test_a_hook_hears_the_kinds_that_it_subscribed_to_in_order() -> None:
    hooks, heard = Hooks(), list[Event]()
    hooks.subscribe(heard.append, [EventKind.DONE, EventKind.DEAD])
    events = [Event(kind, "j") for kind in (EventKind.DEAD, EventKind.CLAIMED, EventKind.DONE, EventKind.DEAD)]
    for event in events:
        hooks.emit(event)
    assert heard == [events[0], *events[2:]]


def test_without_kinds_a_hook_hears_all() -> None:
    hooks, heard = Hooks(), list[Event]()
    hooks.subscribe(heard.append)
    for kind in EventKind:
        hooks.emit(Event(kind))
    assert [event.kind for event in heard] == list(EventKind)


def test_facts_are_gathered_for_subscribers_alone() -> None:
    hooks = Hooks()
    assert not any(map(hooks.wants, EventKind))
    hooks.subscribe(lambda _: None, [EventKind.SPENT])
    assert [kind for kind in EventKind if hooks.wants(kind)] == [EventKind.SPENT]


def test_a_hook_that_raises_harms_nobody_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    hooks, before, after = Hooks(), list[Event](), list[Event]()
    for hook in (before.append, broken, after.append):
        hooks.subscribe(hook)
    events = [Event(kind) for kind in (*EventKind, *EventKind)]
    for event in events:
        hooks.emit(event)
    assert before == after == events
    (record,) = caplog.records
    assert (record.message, record.levelname, vars(record)["kind"]) == (PHRASE, "ERROR", str(next(iter(EventKind))))
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)


def test_each_broken_hook_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def another(event: Event) -> None:
        broken(event)

    hooks = Hooks()
    hooks.subscribe(broken)
    hooks.subscribe(another)
    for _ in range(3):
        hooks.emit(Event(EventKind.DONE))
    assert [record.message for record in caplog.records] == [PHRASE] * 2


def attempt(route: str) -> Attempt:
    return Attempt(execution=1, route=route, tier="hot", outcome="rate_limited", ms=5)


def test_an_execution_tells_its_own_calls_alone() -> None:
    """A job that was parked is claimed again under the same number: its earlier calls were told already."""
    before, own = attempt("a"), attempt("b")
    trail = to_json([before.model_dump()])
    claim = Claim("j", "e-2", "q", 2_000, b"", 1_000, 10**9, 0, 0, 1, 0, 1, 5, trail)
    executed = Executed(Dead(DeadReason.EXHAUSTED, "no", (*trail_of(claim), own), 60), 2, 10)
    ended = event_of(claim, executed, Settled.COMMITTED)
    assert executed_event(claim, executed, ended).facts["attempts"] == [own]
    assert from_json(record_of(claim, executed))["attempts"] == [["b", "rate_limited", 5]]
    assert executed_event(replace(claim, trail=b"[]"), executed, ended).facts["attempts"] == [before, own]
