"""The configured channels: those of the environment, and always the worker's own log."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from producer.environment import Environment, flag
from producer.errors import ConfigurationError, Problem
from producer.policy import Tenants
from worker.money.caps import Budgets, load_budgets
from worker.network import DIRECT, Network
from worker.notify.channels.base import Channel
from worker.notify.channels.log import Log
from worker.notify.channels.webhook import IncidentWebhook, checked_secret
from worker.notify.client_messages import ClientMessage, load_messages
from worker.notify.job_webhooks import EVERYBODY, Subscriber
from worker.notify.oncall import OnCall, load_on_call
from worker.routes.route import is_http_url

EXAMPLE_DOMAIN = "@yourco.com"  # in the packaged routing map; never a real address

log = logging.getLogger("failover.worker")


@dataclass(frozen=True)
class Settings:
    """The configuration of a notifier."""

    channels: tuple[Channel, ...]
    on_call: OnCall
    messages: dict[str, ClientMessage]
    subscribers: tuple[Subscriber, ...] = ()
    alert_thresholds: tuple[float, ...] = Budgets().alert_thresholds
    network: Network = DIRECT


def load_settings(
    environment: Environment, cold_notify: Sequence[str] = (), tenants: Tenants | None = None
) -> Settings:
    """Read the environment and the policies. `cold_notify`: e-mail addresses of the routing map.

    Raises ConfigurationError, also for a channel that is only half configured.
    """
    channels = (Log(), *load_channels(environment, cold_notify))
    subscribers = tuple(_subscribers(environment, tenants or Tenants()))
    alert_thresholds = load_budgets(environment).alert_thresholds
    messages, network = load_messages(environment), Network.of(environment)
    return Settings(channels, load_on_call(environment), messages, subscribers, alert_thresholds, network)


def _subscribers(environment: Environment, tenants: Tenants) -> Iterator[Subscriber]:
    if url := environment.get("NOTIFY_WEBHOOK_URL", ""):
        yield Subscriber(EVERYBODY, url, environment.get("NOTIFY_WEBHOOK_SECRET", ""), private_allowed=True)
    private_allowed = flag(environment, "CALLBACKS_MAY_BE_PRIVATE", default=False)
    for name, tenant in tenants.tenants.items():
        if tenant.callback_url is None:
            continue
        if name == "default":
            fix = "move it to a named tenant; the events of all tenants go to NOTIFY_WEBHOOK_URL"
            raise ConfigurationError([Problem("policies/tenants.yaml", "default.callback_url", "is not possible", fix)])
        variable = tenant.callback_secret_env or ""
        if not variable:
            fix = "set it to the name of the variable that holds the signing secret"
            raise ConfigurationError(
                [Problem("policies/tenants.yaml", f"{name}.callback_secret_env", "is missing", fix)]
            )
        secret = checked_secret(variable, environment.get(variable, ""))
        yield Subscriber(name, tenant.callback_url, secret, private_allowed)


def load_channels(environment: Environment, cold_notify: Sequence[str] = ()) -> list[Channel]:
    """Those of Slack, e-mail and webhook that are configured. Raises ConfigurationError."""
    network = Network.of(environment)
    found = (_slack(environment, network), _email(environment, cold_notify, network), _webhook(environment, network))
    return [channel for channel in found if channel is not None]


def _slack(environment: Environment, network: Network) -> Channel | None:
    token, channel = environment.get("SLACK_BOT_TOKEN", ""), environment.get("SLACK_CHANNEL", "")
    url, api_url = environment.get("SLACK_WEBHOOK_URL", ""), environment.get("SLACK_API_URL", "")
    for variable, text in (("SLACK_WEBHOOK_URL", url), ("SLACK_API_URL", api_url)):
        _require_url(variable, text)
    if token and not channel:
        fix = "set it to the channel's id (in Slack: channel details, at the bottom), such as C0123456789"
        raise ConfigurationError([Problem("SLACK_CHANNEL", "", "is not set, but SLACK_BOT_TOKEN is", fix)])
    if channel and not (token or url):
        fix = "set it to the bot's token, which begins with xoxb-; or set SLACK_WEBHOOK_URL instead"
        raise ConfigurationError([Problem("SLACK_BOT_TOKEN", "", "is not set, but SLACK_CHANNEL is", fix)])
    if not (token or url):
        return None
    # this import takes 60 ms
    from worker.notify.channels.slack import SlackBot, SlackWebhook

    return SlackBot(token, channel, api_url, network) if token else SlackWebhook(url, network)


def _email(environment: Environment, cold_notify: Sequence[str], network: Network) -> Channel | None:
    smtp_url = environment.get("SMTP_URL", "")
    to = [address.strip() for address in environment.get("NOTIFY_EMAIL", "").split(",") if address.strip()]
    if not smtp_url:
        if to:
            fix = "for example smtp://user:password@smtp.example.com:587"
            raise ConfigurationError([Problem("SMTP_URL", "", "is not set, but NOTIFY_EMAIL is", fix)])
        return None
    to = to or [address for address in cold_notify if not address.endswith(EXAMPLE_DOMAIN)]
    if not to:
        fix = "set it to the recipients; or put addresses into cold.notify of routes.json"
        raise ConfigurationError([Problem("NOTIFY_EMAIL", "", "is not set, but SMTP_URL is", fix)])
    from worker.notify.channels.email import Email

    return Email(smtp_url, to, environment.get("NOTIFY_FROM", ""), network)


def _webhook(environment: Environment, network: Network) -> Channel | None:
    url = environment.get("NOTIFY_WEBHOOK_URL", "")
    if not url:
        return None
    _require_url("NOTIFY_WEBHOOK_URL", url)
    secret = checked_secret("NOTIFY_WEBHOOK_SECRET", environment.get("NOTIFY_WEBHOOK_SECRET", ""))
    return IncidentWebhook(url, secret, network)


def _require_url(variable: str, text: str) -> None:
    if text and not is_http_url(text):
        raise ConfigurationError([Problem(variable, "", "is not an http(s) URL", "copy it again")])
