"""Sends one message of a command through every channel that is set up: a test, the closeout of a drill."""

from __future__ import annotations

import time
from collections.abc import Iterator

from producer.environment import Environment
from worker.notify.channels.base import Outcome, Post, Refused
from worker.notify.incident_text import Message
from worker.notify.incidents import Incident
from worker.notify.kinds import Kind
from worker.routes.route import load_addresses

LONGEST_WAIT_SECONDS = 30.0  # for a channel's rate limit


def announced(environment: Environment, message: Message, name: str) -> Iterator[tuple[str, Outcome]]:
    """(each channel, what it said). A channel with a rate limit is asked once more. Raises ConfigurationError."""
    from worker.notify.settings import load_channels  # imports an HTTP client

    now = int(time.time() * 1000)
    post = Post(Incident(f"{name}-{now}", Kind.PAUSED, "", "", now, None, now), name, message)
    for channel in load_channels(environment, load_addresses(environment)):
        outcome = channel.send(post)
        if isinstance(outcome, Refused) and outcome.seconds is not None and outcome.seconds <= LONGEST_WAIT_SECONDS:
            time.sleep(outcome.seconds)
            outcome = channel.send(post)
        yield channel.name, outcome
