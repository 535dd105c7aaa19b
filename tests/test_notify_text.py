"""What people read: every kind, every state, within Slack's limits, and never a word that is not so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops.simulators.slack_api import _wrong
from worker.notify import incident_text
from worker.notify.channels.base import Refused, Unknown
from worker.notify.channels.slack import payload, refusal
from worker.notify.incidents import Entry, Incident, message_for_late_jobs
from worker.notify.kinds import COUNTED, KIND_INFO, Kind
from worker.notify.oncall import OnCall

NOW = 1_795_000_000_000
ON_CALL = OnCall.model_validate({"on_call": [{"name": "Kira"}], "tells_clients": {"acme": "Dana"}})


def incident(kind: Kind = Kind.COLD, **fields: Any) -> Incident:
    given: dict[str, Any] = {"subject": "", "queue": "ai-tasks", "opened_ms": NOW - 1_800_000, "resolved_ms": None}
    return Incident(id="7", kind=kind, **{**given, "last_ms": NOW, "marks": {"a fails": "a answers again"}, **fields})


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("resolved_ms", [None, NOW])
def test_every_message_fits_into_slack_however_much_there_is_to_say(kind: Kind, resolved_ms: int | None) -> None:
    long = "<!channel> {0.__class__} ü" * 400  # three times what Slack takes in one part
    many = {f"tenant-{n}-{'x' * 110}": n for n in range(500)}
    worst = incident(
        kind, subject=long, queue=long[:100], resolved_ms=resolved_ms, lines=(long,) * 60, tenants=many, example=long,
        jobs=tuple(f"{n:032d}" for n in range(50)), dead=500, reasons=many, saved=3, late=5, left=4, degraded_of=many,
    )  # fmt: skip
    story = [Entry(NOW, long)] * 100
    paste = tuple((f"To {tenant}", long) for tenant in list(many)[:5])
    for message in (
        incident_text.of_incident(worst, ON_CALL, NOW),
        incident_text.of_closing(worst, ON_CALL, NOW),
        incident_text.of_reminder(worst, ON_CALL, NOW),
        incident_text.of_story(worst, story).with_paste(paste),
    ):
        form = payload(message)
        assert _wrong(form) == ""
        assert "<!channel>" not in form["text"]
        assert "<!channel>" in message.plain()  # literal, where nothing interprets it


@pytest.mark.parametrize("kind", list(Kind))
def test_every_message_says_what_it_means_who_acts_and_what_to_run(kind: Kind) -> None:
    told = incident_text.of_incident(incident(kind, tenants={"acme": 3}, commands=("failover x",)), ON_CALL, NOW)
    assert "failover x" in told.commands
    assert KIND_INFO[kind].means in told.lines
    assert "On call: Kira" in told.lines
    assert set(KIND_INFO[kind].commands) <= set(told.commands)
    assert f"runbook.md: {kind}" in told.footer
    if name := KIND_INFO[kind].message:
        assert f"failover messages show {name} --tenant acme --incident 7" in told.commands
        assert any("Dana writes to acme" in line for line in told.lines)


def test_nobody_writes_to_clients_whom_the_message_does_not_name() -> None:
    told = incident_text.of_incident(incident(Kind.NO_WORKERS), ON_CALL, NOW)
    assert "Clients: no message is needed yet. If one asks, the last command has the text: replace NAME." in told.lines
    assert told.commands[-1] == "failover messages show extended_outage --tenant NAME --incident 7"
    assert "Clients: no message is needed yet." in incident_text.of_incident(incident(Kind.LATE), ON_CALL, NOW).lines


def test_every_kind_has_its_row_in_the_runbook_which_says_the_same_about_clients() -> None:
    runbook = (Path(__file__).parent.parent / "runbook.md").read_text()
    assert 'As long as it says "no message is needed' in runbook
    for kind, info in KIND_INFO.items():
        (row,) = (line for line in runbook.splitlines() if line.startswith(f"| `{kind}` |"))
        clients = row.split(" | ")[-1].removesuffix(" |")
        if info.message:
            assert clients == f"when the message names clients: `failover messages show {info.message} --tenant acme`"
        else:
            assert clients.startswith("nothing"), clients
    assert KIND_INFO.keys() == set(Kind)


@pytest.mark.parametrize(
    ("kind", "fields", "title"),
    [
        (Kind.DEAD_LETTERS, {"dead": 12, "tenants": {"acme": 12}, "reasons": {"exhausted": 12}},
         "12 dead letters of acme (exhausted 12)"),
        (Kind.DEAD_LETTERS, {"dead": 1_200, "tenants": {"acme": 1_000, "b": 150, "c": 50}, "reasons": {"expired": 1_200}},
         "1,200 dead letters of acme and 2 other clients (expired 1,200)"),
        (Kind.DEGRADED, {"degraded": 1, "degraded_of": {"acme": 1}}, "1 degraded answer of acme"),
        (Kind.LATE, {"size": "3 late of acme"}, "Jobs are late: 3 late of acme"),
        (Kind.COLD, {"size": "240 jobs wait"}, "All AI providers are down: 240 jobs wait"),
        (Kind.COLD, {"size": "240 jobs wait", "resolved_ms": NOW}, "All AI providers are down"),
        (Kind.CREDENTIALS, {"subject": "openai", "what": "openai refuses our key"}, "openai refuses our key"),
        (Kind.CAPPED, {"subject": "tenant:acme"}, "Budget used up: tenant:acme"),
    ],
)  # fmt: skip
def test_a_title_alone_says_what_how_many_and_whose(kind: Kind, fields: dict[str, Any], title: str) -> None:
    assert incident(kind, **fields).title == title


def test_nobody_is_sent_to_bed_while_letters_wait() -> None:
    dead = incident(Kind.DEAD_LETTERS, dead=7, left=7, resolved_ms=NOW)
    assert incident_text.of_closing(dead, ON_CALL, NOW).headline.startswith("🟡 No new ones, but 7 of 7 still need")
    assert incident_text.of_closing(replace(dead, left=0), ON_CALL, NOW).headline.startswith("🟢 All are handled")


def test_at_the_end_each_client_is_told_what_fits() -> None:
    over = incident(tenants={"acme": 3}, late=3, degraded=2, degraded_of={"globex": 2}, resolved_ms=NOW)
    assert incident_text.wanted(over) == [("all_clear", "acme"), ("service_degradation", "globex")]
    assert incident_text.wanted(replace(over, late=0, degraded_of={})) == []


def test_whoever_was_refused_while_redis_was_full_is_told_to_send_again() -> None:
    told = incident_text.of_closing(incident(Kind.REDIS_FULL, resolved_ms=NOW), ON_CALL, NOW)
    assert told.commands == ("failover messages show new_jobs_again --tenant NAME",)
    assert (
        "failover messages show new_jobs_again --tenant NAME"
        not in incident_text.of_incident(incident(Kind.REDIS_FULL), ON_CALL, NOW).commands
    )


def test_what_seems_to_be_over_is_not_red() -> None:
    fading = incident_text.of_incident(incident(marks={}), ON_CALL, NOW)
    assert fading.headline == "🟡 Seems to be over: All AI providers are down"
    assert incident_text.of_incident(incident(), ON_CALL, NOW).headline.startswith("🔴")


@pytest.mark.parametrize("kind", [kind for kind in Kind if KIND_INFO[kind].message and kind not in COUNTED])
def test_what_seems_to_be_over_does_not_say_that_it_lasts(kind: Kind) -> None:
    fading = incident(kind, marks={}, tenants={"acme": 3}, jobs=("j1",), lines=("The problem seems to be over.",))
    told = incident_text.of_incident(fading, ON_CALL, NOW)
    assert KIND_INFO[kind].means not in told.lines and not any(line.startswith("Jobs:") for line in told.lines)
    assert "Clients: write nothing now. When this closes, its message has the text for acme." in told.lines
    assert not [command for command in told.commands if "messages show" in command]
    assert incident_text.wanted(fading) == []


def test_a_message_that_is_sent_once_promises_no_end() -> None:
    told = incident_text.of_incident(incident(Kind.SPEND, subject="openai: 85%", marks={}), ON_CALL, NOW)
    assert KIND_INFO[Kind.SPEND].means in told.lines
    assert not any(line.startswith("Next:") for line in told.lines)


@pytest.mark.parametrize(
    ("opened", "message"),
    [
        ([], "brief_delay"),
        ([incident(Kind.DEAD_LETTERS)], "brief_delay"),
        ([incident(Kind.ROUTE_OPEN), incident(Kind.COLD)], "extended_outage"),
        ([incident(Kind.BUDGET)], "budget_pause"),
        ([incident(Kind.PAUSED, subject="tenant acme")], "brief_delay"),
        ([incident(Kind.COLD, marks={}), incident(Kind.BUDGET, resolved_ms=NOW)], "brief_delay"),  # over, or nearly
    ],
)
def test_late_jobs_have_the_message_of_the_outage_that_delays_them(opened: list[Incident], message: str) -> None:
    assert message_for_late_jobs(opened) == message


@pytest.mark.parametrize(
    ("kind", "until_ms", "expected"),
    [
        (Kind.COLD, NOW + 7_000, "Next: a probe at 11:06:47 UTC; jobs continue"),
        (Kind.COLD, NOW, "Next: a probe with the next job; jobs continue"),
        (Kind.REFUSED, NOW - 1, "Then jobs continue automatically with a probe, which the next job makes."),
        (Kind.CREDENTIALS, NOW + 1_000, "Then jobs continue automatically with a probe at 11:06:41 UTC."),
        (Kind.PAUSED, NOW + 7_000, "Next: resumes automatically at 11:06:47 UTC."),
        (Kind.PAUSED, NOW + 2 * 86_400_000, "Next: resumes automatically at 2026-11-20 11:06 UTC."),
        (Kind.BUDGET, NOW - 1, "Next: resumes automatically now."),
        (Kind.BUDGET, None, "Next: stays paused until somebody resumes it."),
    ],
)
def test_a_time_that_is_past_is_never_shown_as_the_next(kind: Kind, until_ms: int | None, expected: str) -> None:
    told = incident_text.of_incident(incident(kind, until_ms=until_ms), ON_CALL, NOW)
    assert any(expected in line for line in told.lines), told.lines


@pytest.mark.parametrize(
    ("status", "said", "outcome"),
    [
        (200, "invalid_blocks", Refused("invalid_blocks", None, hopeless=True)),
        (200, "invalid_auth", Refused("invalid_auth", 300.0)),
        (429, "whatever", Refused("ratelimited", 7.0)),
        (503, "upstream unavailable", Refused("it answered 503, a failure on its own side", 7.0, theirs=True)),
        (500, "", Unknown("it answered 500, a failure on its own side")),
        (
            200,
            "service_unavailable",
            Refused("it answered service_unavailable, a failure on its own side", theirs=True),
        ),
        (200, "internal_error", Unknown("it answered internal_error, a failure on its own side")),
        (504, "<html>\x00", Unknown("it answered 504, a failure on its own side")),
    ],
)
def test_what_slack_says_is_taken_for_what_it_means(status: int, said: str, outcome: object) -> None:
    assert refusal(status, {"Retry-After": "7"}, said) == (outcome if status != 200 else _without(outcome))


def _without(outcome: object) -> object:
    """An ok:false comes without Retry-After; here it has one."""
    return replace(outcome, seconds=7.0) if isinstance(outcome, Refused) and outcome.seconds is None else outcome
