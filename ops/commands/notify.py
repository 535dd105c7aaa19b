"""`failover notify test`: tests every channel."""

from __future__ import annotations

import sys
import time

import click

from ops.announcing import announced
from ops.local import session
from ops.options import Group
from producer.environment import Environment
from worker.notify.channels.base import Posted, Refused
from worker.notify.incident_text import NOBODY, Message
from worker.notify.oncall import load_on_call

NONE = (
    "no channel is set up: set SLACK_BOT_TOKEN and SLACK_CHANNEL, or SLACK_WEBHOOK_URL, or SMTP_URL and NOTIFY_EMAIL, or "
    "NOTIFY_WEBHOOK_URL and NOTIFY_WEBHOOK_SECRET"
)


@click.group("notify", cls=Group)
def group() -> None:
    """The channels for messages to people."""


@group.command()
@click.pass_obj
def test(environment: Environment) -> None:
    """Send a test message through every channel that is set up. Exit code 1 if one does not accept it."""
    on_call, now = load_on_call(environment), int(time.time() * 1000)
    session.note(
        f"on call now: {on_call.now(now) or NOBODY}; writes to clients: {on_call.writes_to('', now) or 'nobody'}"
    )
    message = Message(
        f"🟢 A test by {session.who()}",
        ("This is a test: an incident would reach you like this. Nothing has happened.",),
        ("failover status", "failover incidents"),
        "failover notify test",
    )
    failed, told = False, False
    for channel, outcome in announced(environment, message, "test"):
        result = "the message arrived" if isinstance(outcome, Posted) else outcome.why
        failed, told = failed or not isinstance(outcome, Posted), True
        fix = f" — {_fix(channel, outcome)}" if isinstance(outcome, Refused) else ""
        click.echo(f"{channel}: {result}{fix}")
    if not told:
        session.note(NONE)
    sys.exit(1 if failed or not told else 0)


def _fix(channel: str, refused: Refused) -> str:
    if refused.theirs:
        return "no setting of yours is wrong: try again later; messages of incidents wait and are sent when it is back"
    fixes = {
        "invalid_auth": "SLACK_BOT_TOKEN is wrong: copy it again, it begins with xoxb-",
        "not_in_channel": "invite the bot: write /invite @its-name in the channel",
        "channel_not_found": "SLACK_CHANNEL is wrong, or the bot is not in it: use the channel's id, such as C0123456789",
        "missing_scope": "the app lacks chat:write: add the scope and install it again",
        "token_revoked": "SLACK_BOT_TOKEN is no longer valid: install the app again and copy the new one",
        "is_archived": "the channel is archived: choose another one",
        "no_service": "the webhook was removed in Slack: make a new one for SLACK_WEBHOOK_URL",
        "ratelimited": "Slack accepts one message a second: try again in a minute",
    }
    variables = {"slack": "SLACK_*", "email": "SMTP_URL and NOTIFY_EMAIL", "webhook": "NOTIFY_WEBHOOK_URL"}
    return fixes.get(refused.why, f"check {variables.get(channel, channel)}")
