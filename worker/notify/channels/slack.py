"""Slack, with a bot's token (edits, threads, and a search for unanswered posts) or an incoming webhook (none of these).

Every text is in a block that Slack does not interpret (plain_text, rich_text_preformatted); the notification line is
escaped. Rules: https://docs.slack.dev/reference/block-kit, /reference/methods/chat.postMessage, /apis/web-api/rate-limits
"""

from __future__ import annotations

import http.client
import logging
import re
import urllib.error
from collections.abc import Mapping
from typing import Any

from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.client import WebClient
from slack_sdk.webhook.client import WebhookClient

from worker.humanize import cut
from worker.network import DIRECT, Network
from worker.notify.channels.base import Found, Outcome, Post, Posted, Refused, Unfindable, Unknown, failure, trouble
from worker.notify.incident_text import Message

TIMEOUT_SECONDS = 10
HEADER, SECTION, BLOCKS, TOTAL = 150, 2900, 45, 12_000  # Slack's limits are 150, 3,000, 50 and about 13,200
EVENT = "failover_incident"
MISCONFIGURED_SECONDS = 300.0  # until a wrong token or channel is tried again, after a person may have fixed it
_CHANNEL_ID = re.compile(r"[CGD][A-Z0-9]{6,}")
_WRONG = frozenset(
    (
        *("invalid_auth", "not_authed", "token_revoked", "token_expired", "account_inactive", "missing_scope"),
        *("no_permission", "channel_not_found", "not_in_channel", "is_archived", "channel_is_archived", "no_service"),
    )
)
_HOPELESS = frozenset(
    (
        *(
            "no_text",
            "invalid_blocks",
            "invalid_blocks_format",
            "msg_too_long",
            "invalid_payload",
            "invalid_attachments",
        ),
        *("message_not_found", "cant_update_message", "edit_window_closed", "thread_not_found"),  # a person deleted it
    )
)
# Slack's own failures in an answer 200; after the first ones, says its reference, a part may have succeeded
_HALF_DONE, _AWAY = frozenset(("fatal_error", "internal_error")), frozenset(("service_unavailable", "request_timeout"))

logging.getLogger("slack_sdk").setLevel(logging.CRITICAL)  # the outcome has the same facts, without the secret URL


class SlackBot:
    """chat.postMessage and chat.update with a bot's token (scope chat:write; find() needs channels:history)."""

    name, edits, digest_factor = "slack", True, 1.0

    def __init__(self, token: str, channel: str, api_url: str = "", network: Network = DIRECT) -> None:
        url = f"{api_url.rstrip('/')}/" if api_url else WebClient.BASE_URL
        self._client = WebClient(token, base_url=url, timeout=TIMEOUT_SECONDS, retry_handlers=[], ssl=network.trust())
        self._client.proxy = network.proxy_for(url)  # its own reading of the environment knows no NO_PROXY
        self._channel = channel
        self._channel_id = channel if _CHANNEL_ID.fullmatch(channel) else ""

    def send(self, post: Post) -> Outcome:
        form = {"channel": self._channel_id or self._channel, **payload(post.message)}
        if post.edit:
            # a lost edit may be sent again: it shows the current state, so repeating it does no harm
            return self._call("chat.update", {**form, "ts": post.edit})
        form |= {"unfurl_links": False, "unfurl_media": False, "link_names": False, "parse": "none"}
        form["metadata"] = {"event_type": EVENT, "event_payload": {"name": post.name}}
        if post.thread:
            form |= {"thread_ts": post.thread, "reply_broadcast": post.broadcast}
        return self._call("chat.postMessage", form)

    def find(self, post: Post, since_ms: int) -> Found:
        """Search the posts since then for one with this name in its metadata."""
        if not self._channel_id:
            return Unfindable("the channel's id is not known")
        options = {"channel": self._channel_id, "oldest": f"{since_ms / 1000 - 600:.6f}", "limit": 999}
        options |= {"include_all_metadata": True, **({"ts": post.thread} if post.thread else {})}
        method = "conversations.replies" if post.thread else "conversations.history"
        try:
            reply = self._client.api_call(method, params=options)
        except SlackApiError as error:
            code = str(error.response.get("error", ""))
            if code in _WRONG | _HOPELESS:
                return Unfindable(code)
            return Unknown(code)
        except (SlackClientError, OSError, http.client.HTTPException) as error:
            return Unknown(type(error).__name__)
        for message in reply.get("messages") or []:
            if (message.get("metadata") or {}).get("event_payload", {}).get("name") == post.name:
                return Posted(str(message["ts"]))
        return Unknown("too many posts since then to search") if reply.get("has_more") else Refused("it never arrived")

    def _call(self, method: str, form: Mapping[str, Any]) -> Outcome:
        try:
            reply = self._client.api_call(method, json=dict(form))
        except SlackApiError as error:
            response = error.response
            return refusal(int(response.status_code), dict(response.headers), str(response.get("error", "")))
        except (SlackClientError, OSError, http.client.HTTPException) as error:
            return broken(error)
        self._channel_id = str(reply.get("channel") or self._channel_id)
        return Posted(str(reply.get("ts") or ""))


class SlackWebhook:
    """An incoming webhook. Its URL is the secret; its posts can neither be edited nor found."""

    name, edits, digest_factor = "slack", False, 1.0

    def __init__(self, url: str, network: Network = DIRECT) -> None:
        self._client = WebhookClient(url, timeout=TIMEOUT_SECONDS, retry_handlers=[], ssl=network.trust())
        self._client.proxy = network.proxy_for(url)

    def send(self, post: Post) -> Outcome:
        form = payload(post.message)
        try:
            reply = self._client.send(text=form["text"], blocks=form["blocks"], unfurl_links=False, unfurl_media=False)
        except (SlackClientError, OSError, http.client.HTTPException) as error:
            return broken(error)
        if reply.status_code == 200:
            return Posted()
        return refusal(reply.status_code, dict(reply.headers), reply.body[:100])

    def find(self, post: Post, since_ms: int) -> Found:
        return Unfindable("an incoming webhook cannot search")


def payload(message: Message) -> dict[str, Any]:
    """`text` and `blocks` of a message, cut to Slack's limits."""
    blocks: list[dict[str, Any]] = [{"type": "header", "text": _plain(message.headline, HEADER)}]
    left = TOTAL
    for texts in _sections(message.lines):
        left -= len(texts)
        if left > 0:
            blocks.append({"type": "section", "text": _plain(texts, SECTION)})
    if message.commands:
        blocks.append(_preformatted("\n".join(message.commands)[:SECTION]))
    for whom, text in message.paste:
        left -= len(text)
        if left > 0:
            blocks.append({"type": "section", "text": _plain(whom, SECTION)})
            blocks.append(_preformatted(text[:SECTION]))
    if message.footer:
        blocks.append({"type": "context", "elements": [_plain(message.footer, SECTION)]})
    return {"text": escaped(message.headline), "blocks": blocks[:BLOCKS]}


def escaped(text: str) -> str:
    """Escape the one field that Slack interprets (https://docs.slack.dev/messaging/formatting-message-text)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _sections(lines: tuple[str, ...]) -> list[str]:
    """The lines in as few sections as possible."""
    sections = [""]
    for line in lines:
        if len(sections[-1]) + len(line) + 1 > SECTION:
            sections.append("")
        sections[-1] += ("\n" if sections[-1] else "") + line
    return [section for section in sections if section]


def _plain(text: str, most: int) -> dict[str, Any]:
    return {"type": "plain_text", "text": cut(text, most), "emoji": False}


def _preformatted(text: str) -> dict[str, Any]:
    inner = {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text}]}
    return {"type": "rich_text", "elements": [inner]}


def refusal(status: int, headers: Mapping[str, str], code: str) -> Outcome:
    """The outcome of an answer other than success. After 500, 502 and 504 the message may have been accepted."""
    if status in (500, 502, 504) or code in _HALF_DONE:
        return Unknown(failure(code if code in _HALF_DONE else status))
    named = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    seconds = float(named) if re.fullmatch(r"\d{1,5}", named) else None
    if status > 500 or code in _AWAY:
        return Refused(failure(code if code in _AWAY else status), seconds, theirs=True)
    why = code if code and code.isprintable() else f"it answered {status}"
    if status == 429:
        why = "ratelimited"
    wrong = why in _WRONG or status in (401, 403, 404, 410)
    hopeless = why in _HOPELESS or (status == 400 and not wrong)
    return Refused(why, MISCONFIGURED_SECONDS if wrong else seconds, hopeless=hopeless)


def broken(error: Exception) -> Outcome:
    """The outcome of a broken connection. urllib raises URLError before the request was complete: nothing arrived.
    After any other error the message may have arrived."""
    if isinstance(error, urllib.error.URLError):
        reason = error.reason if isinstance(error.reason, Exception) else error
        return Refused(f"it cannot be reached: {trouble(reason)}")
    return Unknown(f"the connection broke: {trouble(error)}")
