"""The words of the pages: commands of a terminal as buttons, and the states of jobs and routes as a person says them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from producer.job import DeadReason
from worker.control.audit_trail import Act
from worker.control.pause import Scope
from worker.humanize import many

_NAME = r"[^\s`]+"
_BUTTONS: tuple[tuple[str, str], ...] = (  # what follows `failover`, and the button that does the same
    (rf"routes enable (?P<name>{_NAME})", r"“Use it again” of \g<name> on the page Settings"),
    (r"routes enable", "“Use it again” on the page Settings"),
    (rf"routes disable (?P<name>{_NAME})[^`]*", r"“Disable” of \g<name> on the page Settings"),
    (r"routes check", "the operator's `failover routes check`"),
    (r"budget reduce --end", "“End it” beside cost saving on the page Money"),
    (r"budget reduce[^`]*", "“Save cost on every job” on the page Money"),
    (rf"budget set (?P<name>{_NAME})[^`]*", r"“Cap” of \g<name> on the page Money"),
    (r"budget show[^`]*", "the page Money"),
    (r"resume[^`]*", "“Resume” on the page Now"),
    (r"(?:dlq|job late|review)[^`]*", "the page Dead letters or Review"),
    (r"incidents show[^`]*", "the story below"),
    (r"routes diff`? refuses", "change no route and no prompt until then"),
    (r"slo show[^`]*", "the page History"),
)
_COMMANDS = [(re.compile(rf"`?\bfailover {command}`?"), button) for command, button in _BUTTONS]

_CAUSES: Mapping[str, str] = {
    DeadReason.EXHAUSTED: "every try failed",
    DeadReason.EXPIRED: "waited for too long",
    DeadReason.REJECTED: "the request is wrong",
    DeadReason.REFUSED: "its content is not allowed",
    DeadReason.CRASHED: "crashed its workers",
    DeadReason.FAILED_BY_RQ: "taken by another tool",
    DeadReason.OVER_BUDGET: "over a cap",
    DeadReason.MALFORMED: "cannot be read",
    DeadReason.DISALLOWED: "not allowed",
}
_DONE: Mapping[str, str] = {  # an action of the audit trail, as one says that somebody did it
    "begin cost saving": "turned cost saving on",
    "end cost saving": "turned cost saving off",
    "cap": "set a cap",
    "cancel": "cancelled",
    "discard": "discarded",
    "discard lost": "took off the list of lost jobs",
    "pause": "paused",
    "requeue": "requeued",
    "resolve": "answered",
    "restore": "put back route",
    "resume": "resumed",
    "silence": "silenced a message",
}
BREAKERS = {"closed": "in use", "open": "rests after failures", "half-open": "is tried again"}
TIERS = {"hot": "first", "warm": "if the first fails", "cold": "waits for a person"}


def by_button(text: str) -> str:
    """The text with the button of a page in place of each command that has one."""
    for command, button in _COMMANDS:
        text = command.sub(button, text)
    return text.replace("the last command has the text: replace NAME", "“Fill it” below has the text")


def done(act: Act) -> str:
    """What a person did: `requeued 12 jobs`, `disabled route openai/gpt-4o`."""
    fields = act.fields
    scopes = [Scope.of(flag) for flag in (fields.get("flag") or fields.get("flags", "")).split()]
    about = [*map(str, scopes), *(fields[name] for name in ("route", "scope", "tenant") if fields.get(name))]
    jobs = [many(act.jobs, "job")] if act.jobs else []
    if act.action in ("pause", "resume") and scopes and scopes[0].route is not None:
        return f"{'disabled' if act.action == 'pause' else 'put back'} {', '.join(map(str, scopes))}"
    return f"{_DONE.get(act.action, act.action)} {', '.join([*about, *jobs])}".strip()


def cause(reason: str) -> str:
    """Why a job is a dead letter: in words, and the name that messages, commands and filters use."""
    words = _CAUSES.get(reason)
    return f"{words} ({reason})" if words else str(reason)
