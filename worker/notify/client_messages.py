"""The messages for clients: written before the outage, filled when it comes, pasted by whoever is awake.

policies/messages/NAME.txt. Lines at its head that begin with # say when to send it and are not sent. `{tenant}` and the like
are filled with plain text; nothing that a tenant's name or a job's type holds is ever interpreted.
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
    "job_type": "what kind of work, as in `draft email`",
    "jobs": "how many of the client's jobs wait, with its verb: `Your 3 jobs are`",
    "eta": "when they will be done, as in `within the next 2 hours`",
    "since": "since when: the first of the client's jobs waits, or the incident lasts",
}
LONGEST_FACT = 200  # characters
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class ClientMessage:
    """`when`: to send it, for the team; `text`: with its placeholders."""

    name: str
    when: str
    text: str

    @property
    def needs(self) -> frozenset[str]:
        """The placeholders in it."""
        return frozenset(_PLACEHOLDER.findall(self.text))

    def filled(self, facts: Mapping[str, str]) -> str:
        """The text to paste. A placeholder without its fact stays, so that nobody sends a sentence with a hole."""
        return _PLACEHOLDER.sub(
            lambda found: one_line(facts[found[1]], LONGEST_FACT) if found[1] in facts else found[0], self.text
        )


def load_messages(environment: Environment) -> dict[str, ClientMessage]:
    """POLICIES_DIR/messages, over those that come with failover-worker. Raises ConfigurationError."""
    folders = (packaged("policies"), find_configuration("policies", "POLICIES_DIR", environment))
    paths = {path.stem: path for folder in folders for path in (folder / "messages").glob("*.txt")}  # the last one wins
    found: dict[str, ClientMessage] = {}
    problems: list[Problem] = []
    for name, path in sorted(paths.items()):
        try:
            found[name] = _read(path)
        except (OSError, UnicodeDecodeError):
            problems.append(Problem(str(path), "", "is not a readable text file"))
            continue
        unknown = sorted(set(_PLACEHOLDER.findall(found[name].text)) - PLACEHOLDERS.keys())
        problems += [Problem(str(path), f"{{{word}}}", "is unknown", f"there are {_known()}") for word in unknown]
        if not found[name].text:
            problems.append(Problem(str(path), "", "is empty", "write what the client shall read"))
    if problems:
        raise ConfigurationError(problems)
    return found


def message_named(messages: Mapping[str, ClientMessage], name: str) -> ClientMessage:
    if name not in messages:
        raise UsageError(f"no message is called {name}; there are {', '.join(messages)}")
    return messages[name]


def _read(path: Path) -> ClientMessage:
    lines = path.read_text(encoding="utf-8").splitlines()
    head = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    when = " ".join(line.lstrip("# ").strip() for line in lines[:head]).removeprefix("When: ")
    return ClientMessage(path.stem, when, "\n".join(lines[head:]).strip())


def _known() -> str:
    return ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
