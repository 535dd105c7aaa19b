"""job.done and job.dead at a webhook and at tenants' callbacks; and no way from a callback into the house."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
import redis
from aiohttp import web
from aiohttp.resolver import DefaultResolver
from aiosmtpd.controller import Controller
from standardwebhooks import Webhook

from bench.throughput import free_port
from ops.simulators import http_server
from producer import Producer, keyspace
from tests.support.gateway import connect_proxy
from tests.support.incidents import bury, die, on_call, over
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.workshop import Workshop
from worker.network import DIRECT, Network
from worker.notify import ssrf_guard
from worker.notify.job_webhooks import Deliveries, Subscriber
from worker.notify.kinds import Kind
from worker.queue import dead_letters

SECRET = "whsec_" + "c2VjcmV0IGZvciB0aGUgdGVzdHM="


@dataclass
class Receiver:
    """What a client's endpoint was sent. `status`: its answer."""

    status: int = 200
    url: str = ""
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((dict(request.headers), await request.read()))
        if self.status == 302:
            raise web.HTTPFound("http://127.0.0.1:1/inside")
        return web.Response(status=self.status)

    def events(self) -> list[dict[str, Any]]:
        """Those whose signature is right."""
        return [Webhook(SECRET).verify(body, {k.lower(): v for k, v in heads.items()}) for heads, body in self.requests]

    def ids(self) -> list[str]:
        return [heads["webhook-id"] for heads, _ in self.requests]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{rest:.*}", receiver.take)
    with http_server.running(app) as receiver.url:
        yield receiver


def callbacks(workshop: Workshop, url: str) -> dict[str, str]:
    """acme has one; the environment of a worker that may reach this machine."""
    tenants = {"acme": {"callback_url": url, "callback_secret_env": "ACME_SECRET"}, "globex": {}}
    path = Path(workshop.environment["POLICIES_DIR"]) / "tenants.yaml"
    path.write_text(json.dumps({"tenants": {"default": {}, **tenants}}))
    return {"ACME_SECRET": SECRET, "CALLBACKS_MAY_BE_PRIVATE": "true"}


def test_a_tenant_hears_of_its_own_jobs_and_the_webhook_of_all(
    workshop: Workshop, producer: Producer, client: redis.Redis, receiver: Receiver
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    environment = callbacks(workshop, receiver.url + "/acme")
    hook = {"NOTIFY_WEBHOOK_URL": receiver.url + "/all", "NOTIFY_WEBHOOK_SECRET": SECRET}
    workshop.worker(**environment, **hook)
    until(lambda: client.hlen(keyspace.SUBSCRIBERS) == 2, "subscribers are known")
    ours = producer.enqueue(chat("hi", tenant_id="acme"))
    other = producer.enqueue(chat("hi", tenant_id="globex"))
    until(lambda: len(receiver.requests) == 3, "both hear")
    found = sorted((event["type"], event["data"]["job_id"], event["data"]["status"]) for event in receiver.events())
    assert found == sorted([("job.done", ours, "done")] * 2 + [("job.done", other, "done")])
    done = next(event for event in receiver.events() if event["data"]["job_id"] == ours)
    assert done["data"]["completion"]["choices"]
    assert "trail" not in done["data"]
    workshop.providers.behave("a", status=400)
    dead = producer.enqueue(chat("no", tenant_id="acme"))
    until(lambda: sum(event["type"] == "job.dead" for event in receiver.events()) == 2, "its death too")
    until(lambda: any(event["type"] == "incident.opened" for event in receiver.events()), "and the incident")
    (told,) = {event["data"]["dead_reason"] for event in receiver.events() if event["type"] == "job.dead"}
    assert told == "rejected"
    dead_letters.resolve(client, dead, "by hand", who="kira", keep_seconds=1000)
    until(lambda: sum(e["data"].get("resolved_by") == "human" for e in receiver.events()) == 2, "and a human's answer")
    until(lambda: client.xlen(keyspace.outbox("acme")) == 0, "nothing is left")


def test_an_event_keeps_its_id_until_it_is_taken(
    workshop: Workshop, producer: Producer, client: redis.Redis, receiver: Receiver
) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    receiver.status = 503
    environment = callbacks(workshop, receiver.url)
    worker = workshop.worker(**environment)
    until(lambda: client.hlen(keyspace.SUBSCRIBERS) == 1, "the subscriber is known")
    producer.enqueue(chat("hi", tenant_id="acme"))
    until(lambda: receiver.requests, "it is told")
    worker.kill()
    worker.wait()
    receiver.status = 200
    workshop.worker(**environment)
    until(lambda: client.xlen(keyspace.outbox("acme")) == 0, "it is taken")
    assert len(receiver.requests) >= 2
    assert len(set(receiver.ids())) == 1


def test_without_subscribers_nothing_is_kept(producer: Producer, client: redis.Redis) -> None:
    bury(client, producer, 3)
    assert client.keys(keyspace.outbox("*")) == []


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.1.1", "172.16.0.1", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "255.255.255.255", "168.63.129.16", "::7f00:1", "::ffff:0:7f00:1", "64:ff9b:1::7f00:1", "fec0::1", "::1", "fe80::1",
     "fd00::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::"],
)  # fmt: skip
def test_addresses_of_the_house_are_not_public(address: str) -> None:
    assert not ssrf_guard.public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_others_are(address: str) -> None:
    assert ssrf_guard.public(address)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost",
     "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1"],
)  # fmt: skip
def test_a_callback_cannot_reach_this_machine(client: redis.Redis, receiver: Receiver, host: str) -> None:
    port = receiver.url.rpartition(":")[2]
    subscriber = Subscriber("acme", f"http://{host}:{port}/x", SECRET)
    said = asyncio.run(_post(client, subscriber))
    assert receiver.requests == []
    assert "public address" in said


def test_a_name_that_changes_its_mind_gains_nothing(
    client: redis.Redis, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: whatever the name resolves to when the connection is made is what is checked."""
    answers = iter(["8.8.8.8", "127.0.0.1"])

    async def resolve(*_: Any, **__: Any) -> list[dict[str, Any]]:
        host = next(answers, "127.0.0.1")
        port = int(receiver.url.rpartition(":")[2])
        return [{"hostname": "x", "host": host, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    monkeypatch.setattr(DefaultResolver, "resolve", resolve)
    next(answers)
    said = asyncio.run(_post(client, Subscriber("acme", "http://rebound.example/x", SECRET)))
    assert receiver.requests == []
    assert "public address" in said


def test_redirects_are_not_followed(client: redis.Redis, receiver: Receiver) -> None:
    receiver.status = 302
    said = asyncio.run(_post(client, Subscriber("acme", receiver.url, SECRET, private_allowed=True)))
    assert len(receiver.requests) == 1
    assert said == "it answered 302"


def test_a_callback_takes_the_proxy_and_still_reaches_no_private_address(
    client: redis.Redis, receiver: Receiver
) -> None:
    with connect_proxy(password="me:pa") as proxy:
        network = Network.of({"HTTP_PROXY": proxy.url.replace("//", "//me:pa@")})
        name = receiver.url.replace("127.0.0.1", "localhost")
        for url in (name, receiver.url):
            said = asyncio.run(_post(client, Subscriber("acme", url, SECRET), network))
            assert "CALLBACKS_MAY_BE_PRIVATE" in said
        assert proxy.asked == []
        subscriber = Subscriber("acme", receiver.url, SECRET, private_allowed=True)
        assert asyncio.run(_post(client, subscriber, network)) == "taken"
        assert proxy.asked[0].startswith(f"POST {receiver.url}")


async def _post(client: redis.Redis, subscriber: Subscriber, network: Network = DIRECT) -> str:
    deliveries = Deliveries(client, [subscriber], lambda: True, network)  # type: ignore[arg-type]  # it is not used here
    fields = {b"job": b"j1", b"event": b"job.done", b"ms": b"99999999999999"}
    try:
        return await deliveries._post(subscriber, fields, "j1", [None, None], [[None], []]) or "taken"
    finally:
        for session in deliveries._sessions.values():
            await session.close()


class Mailbox:
    """aiosmtpd's handler: keeps what comes."""

    def __init__(self) -> None:
        self.mails: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - its name
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


@pytest.mark.parametrize(("reply", "theirs"), [("451 try again later", True), ("554 no such sender", False)])
def test_a_mail_server_that_fails_for_now_is_told_from_a_wrong_setting(
    workshop: Workshop, reply: str, theirs: bool
) -> None:
    class Failing:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - its name
            return reply

    workshop.routes(hot=[{"upstream": "a"}])
    port = free_port()
    controller = Controller(Failing(), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        mail = {"SMTP_URL": f"smtp://127.0.0.1:{port}", "NOTIFY_EMAIL": "ops@example.com"}
        done = workshop.run("failover", "notify", "test", **mail)
    finally:
        controller.stop()
    assert f"127.0.0.1 refuses it: {reply} — " in done.stdout
    assert ("no setting of yours is wrong" in done.stdout, "check SMTP_URL" in done.stdout) == (theirs, not theirs)


def test_an_incident_is_a_thread_of_two_mails(workshop: Workshop, producer: Producer, client: redis.Redis) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    on_call(workshop)
    mailbox = Mailbox()
    port = free_port()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        mail = {"SMTP_URL": f"smtp://127.0.0.1:{port}", "NOTIFY_EMAIL": "ops@example.com, vas@example.com"}
        workshop.worker(**mail)
        die(workshop, producer, 3)
        until(lambda: over(client, Kind.DEAD_LETTERS), "it is over")
        until(lambda: len(mailbox.mails) == 2, "both mails")
    finally:
        controller.stop()
    opening, closing = mailbox.mails
    assert opening["To"] == "ops@example.com, vas@example.com"
    assert "dead letters of" in opening["Subject"]
    assert closing["In-Reply-To"] == opening["Message-ID"]
    assert "3 jobs: rejected 3" in opening.get_content()
    assert "failover dlq list" in opening.get_content()
