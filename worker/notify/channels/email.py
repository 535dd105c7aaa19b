"""E-mail by SMTP: an opening, digests and a closing, as one thread in a mail program."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import formatdate
from urllib.parse import unquote, urlsplit

from producer.errors import ConfigurationError, Problem
from worker.network import DIRECT, Network
from worker.notify.channels.base import Found, Outcome, Post, Posted, Refused, Unfindable, Unknown, trouble

TIMEOUT_SECONDS = 10
ADDRESS = re.compile(r"[^\s@<>,;\"]{1,64}@[^\s@<>,;\"]{1,255}")


class Email:
    """`smtp_url`: smtp://user:password@host:587 (STARTTLS if the server offers it, and always before a password) or
    smtps://host:465. Raises ConfigurationError. A proxy is not used: SMTP goes through none."""

    name, edits, digest_factor = "email", False, 6.0

    def __init__(self, smtp_url: str, to: Sequence[str], sender: str = "", network: Network = DIRECT) -> None:
        fix = "for example smtp://user:password@smtp.example.com:587; in a password, write %40 for @ and %2F for /"
        try:
            parts = urlsplit(smtp_url)
            self._host, self._port = parts.hostname or "", parts.port or (465 if parts.scheme == "smtps" else 587)
        except ValueError:
            raise ConfigurationError([Problem("SMTP_URL", "", "cannot be read", fix)]) from None
        if parts.scheme not in ("smtp", "smtps") or not self._host:
            raise ConfigurationError([Problem("SMTP_URL", "", "is not an SMTP URL", fix)])
        if wrong := [address for address in to if not ADDRESS.fullmatch(address)]:
            raise ConfigurationError([Problem("NOTIFY_EMAIL", "", f"{wrong[0]!r} is not an e-mail address")])
        self._network = network
        self._tls, self._to = parts.scheme == "smtps", list(to)
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        if sender and not ADDRESS.fullmatch(sender):
            raise ConfigurationError([Problem("NOTIFY_FROM", "", f"{sender!r} is not an e-mail address")])
        self._from = sender or (self._user if ADDRESS.fullmatch(self._user) else to[0])

    def send(self, post: Post) -> Outcome:
        message = self._message(post)
        try:
            server = self._connected()
        except (OSError, smtplib.SMTPException) as error:
            return Refused(f"{self._host} cannot be used: {_code(error)}", theirs=_for_now(error))
        try:
            refused = server.send_message(message)
        except (smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused, smtplib.SMTPNotSupportedError) as error:
            return Refused(f"{self._host} refuses it: {_code(error)}", theirs=_for_now(error))
        except (OSError, smtplib.SMTPException) as error:
            return Unknown(f"the connection broke: {type(error).__name__}")
        finally:
            server.close()
        return Posted() if len(refused) < len(self._to) else Refused(f"{self._host} refuses every address")

    def find(self, post: Post, since_ms: int) -> Found:
        return Unfindable("a mailbox cannot be searched")

    def _connected(self) -> smtplib.SMTP:
        context = self._network.trust()
        if self._tls:
            server: smtplib.SMTP = smtplib.SMTP_SSL(self._host, self._port, timeout=TIMEOUT_SECONDS, context=context)
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=TIMEOUT_SECONDS)
        try:
            if not self._tls and (server.ehlo()[0] and (server.has_extn("starttls") or self._password)):
                server.starttls(context=context)
            if self._password:
                server.login(self._user, self._password)
        except BaseException:
            server.close()
            raise
        return server

    def _message(self, post: Post) -> EmailMessage:
        message = EmailMessage()
        message["From"], message["To"] = self._from, ", ".join(self._to)
        message["Subject"] = f"[failover {post.incident.id}] {post.message.headline}"[:200]
        message["Date"] = formatdate()
        thread = f"<incident-{post.incident.id}-{post.incident.opened_ms}@failover-worker>"
        if post.part in ("opening", "test"):
            message["Message-ID"] = thread
        else:
            message["Message-ID"] = f"<{post.part}-{thread[1:]}"
            message["In-Reply-To"] = message["References"] = thread
        message.set_content(post.message.plain())
        return message


def _for_now(error: Exception) -> bool:
    """Whether the server fails for now: a code below 500 (RFC 5321, 4.2.1)."""
    return isinstance(error, smtplib.SMTPResponseException) and error.smtp_code < 500


def _code(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        reply = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        return f"{error.smtp_code} {reply[:100]}"
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return "it offers no STARTTLS or no login: try smtps://, or remove the password"
    return trouble(error)
