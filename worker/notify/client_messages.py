"""Message templates for clients: written before an outage, filled during it, and pasted by the person on call.

One file each: policies/messages/NAME.txt. Its first lines that begin with # say when to send the message, and are not sent.
Placeholders such as `{tenant}` are filled with plain text; a tenant's name or a job's type is never interpreted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from producer.environment import Environment, find_configuration, packaged
from producer.errors import ConfigurationError, Problem, UsageError
from worker.humanize import one_line

PLACEHOLDERS = {
    "tenant": "the client",
    "job_type": "the kind of work, for example `draft email`",
    "jobs": "how many of the client's jobs wait, with the verb: `Your 3 jobs are`",
    "eta": "when they will be done, for example `within the next 2 hours`",
    "since": "when the client's first job began to wait, or when the incident began",
}
LONGEST_FACT = 200  # characters
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class ClientMessage:
    """One template. `when`: the situation in which the team sends it; `text`: the message with its placeholders."""

    name: str
    when: str
    text: str

    @property
    def needs(self) -> frozenset[str]:
        """The names of the placeholders in the text."""
        return frozenset(_PLACEHOLDER.findall(self.text))

    def filled(self, facts: Mapping[str, str]) -> str:
        """The text to paste. A placeholder without a value in `facts` stays in braces, as in the template."""
        return _PLACEHOLDER.sub(
            lambda found: one_line(facts[found[1]], LONGEST_FACT) if found[1] in facts else found[0], self.text
        )


def load_messages(environment: Environment) -> dict[str, ClientMessage]:
    """The templates by name: those of POLICIES_DIR/messages replace the packaged ones. Raises ConfigurationError."""
    folders = (packaged("policies"), find_configuration("policies", "POLICIES_DIR", environment))
    paths = {
        path.stem: path for folder in folders for path in (folder / "messages").glob("*.txt")
    }  # own files come last and win
    found: dict[str, ClientMessage] = {}
    problems: list[Problem] = []
    for name, path in sorted(paths.items()):
        try:
            found[name] = _read(path)
        except (OSError, UnicodeDecodeError):
            problems.append(Problem(str(path), "", "is not a readable text file"))
            continue
        unknown = sorted(set(_PLACEHOLDER.findall(found[name].text)) - PLACEHOLDERS.keys())
        problems += [
            Problem(str(path), f"{{{word}}}", "is unknown", f"known placeholders: {_known()}") for word in unknown
        ]
        if not found[name].text:
            problems.append(Problem(str(path), "", "is empty", "write the text for the client"))
    if problems:
        raise ConfigurationError(problems)
    return found


def message_named(messages: Mapping[str, ClientMessage], name: str) -> ClientMessage:
    """The template of this name. Raises UsageError."""
    if name not in messages:
        raise UsageError(f"there is no message {name}; known messages: {', '.join(messages)}")
    return messages[name]


def _read(path: Path) -> ClientMessage:
    lines = path.read_text(encoding="utf-8").splitlines()
    head = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    when = " ".join(line.lstrip("# ").strip() for line in lines[:head]).removeprefix("When: ")
    return ClientMessage(path.stem, when, "\n".join(lines[head:]).strip())


def _known() -> str:
    return ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
