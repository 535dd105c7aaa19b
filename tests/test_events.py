"""Hooks: who hears what, and that a hook that raises harms nobody and fills no log."""

from __future__ import annotations

import pytest

from worker.events import Event, EventKind, Hooks

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
