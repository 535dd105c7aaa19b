"""Another Redis becomes the primary behind the same address while old connections stay: everything goes on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from ops.local import embedded
from ops.simulators import provider
from producer import AsyncProducer, Producer, keyspace
from producer.connection import connect, connect_async
from producer.policy import Policies
from producer.scripts import run
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.proxy import Proxy, proxy
from tests.support.workshop import Workshop

pytestmark = pytest.mark.server


@dataclass
class Pair:
    """Two servers, the second a replica of the first, and the address before them, which leads to the first."""

    sockets: tuple[Path, Path]
    port: int  # of the second
    address: Proxy

    def swap(self) -> None:
        """The second becomes the primary and the first its replica. Connections that exist stay at the first."""
        first, second = (connect(f"unix://{path}") for path in self.sockets)
        with first, second:
            self.address.server = self.sockets[1]
            run(first, [("FAILOVER", "TO", "127.0.0.1", self.port)])
            until(lambda: role(second) == "master" and role(first) == "slave", "the roles are swapped")


def role(client: redis.Redis) -> str:
    return str(client.info("replication")["role"])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    ports = (free_port(), free_port())
    folders = (tmp_path / "first", tmp_path / "second")
    servers = []
    try:
        for folder, port in zip(folders, ports, strict=True):
            folder.mkdir()
            servers.append(embedded.start_server(folder, {"port": str(port), "repl-diskless-sync-delay": "0"}))
        sockets = (folders[0] / "valkey.sock", folders[1] / "valkey.sock")
        with connect(f"unix://{sockets[1]}") as second, proxy(sockets[0]) as address:
            run(second, [("REPLICAOF", "127.0.0.1", ports[0])])
            until(lambda: second.info("replication").get("master_link_status") == "up", "the replica is in sync")
            yield Pair(sockets, ports[1], address)
    finally:
        for server in servers:
            server.kill()
            server.wait()


def test_a_worker_and_a_producer_go_on(
    pair: Pair, tmp_path: Path, providers: provider.Control, policies: Policies
) -> None:
    workshop = Workshop(tmp_path, pair.address.url, providers)
    workshop.routes(hot=[{"upstream": "hot"}])
    providers.behave("hot", latency=(0.2, 0.2))
    worker = workshop.worker("--concurrency", "10")
    try:
        with connect(pair.address.url) as client:
            producer = Producer(client, policies)
            job_ids = [receipt.job_id for receipt in producer.enqueue_many(chat(str(n)) for n in range(60))]
            until(lambda: any(producer.ended(job_ids)), "jobs run")
            pair.swap()
            job_ids.append(producer.enqueue(chat("after the swap")))
            until(lambda: all(producer.ended(job_ids)), "all jobs end")
            assert all(result and result.text for result in producer.fetch_many(job_ids))
        paid = providers.account("hot")["answers_by_key"]
        assert len(paid) == len(job_ids) and set(paid.values()) == {1}
        with connect(f"unix://{pair.sockets[0]}") as old:
            until(lambda: clients_of(old) == 0, "nobody is left at the old primary")
    finally:
        worker.kill()
        worker.wait()


def clients_of(server: redis.Redis) -> int:
    """Connections to a server besides ours and its replication's."""
    return sum(each["flags"] not in ("M", "S") for each in server.client_list()) - 1


def test_one_asyncio_client_leaves_no_connection_at_the_old_primary(pair: Pair, policies: Policies) -> None:
    async def scenario() -> None:
        client = connect_async(pair.address.url, max_connections=3)
        producer, messages = AsyncProducer(client, policies), client.pubsub()
        await messages.subscribe(keyspace.WAKE)
        listening = asyncio.create_task(messages.parse_response(block=True))  # the reply to the subscription
        await listening
        waiting = asyncio.create_task(messages.parse_response(block=True))
        first = await producer.enqueue(chat())
        await waiting  # the message of this job
        waiting = asyncio.create_task(messages.parse_response(block=True))
        await asyncio.sleep(0)
        await asyncio.to_thread(pair.swap)
        second = await producer.enqueue(chat())
        assert [str((await producer.fetch(job_id)).status) for job_id in (first, second)] == ["queued", "queued"]
        with pytest.raises(redis.ConnectionError):
            await waiting
        await messages.aclose()  # type: ignore[no-untyped-call]
        await client.aclose()

    asyncio.run(scenario())


def test_a_worker_that_starts_at_a_replica_waits_for_the_primary(
    pair: Pair, tmp_path: Path, providers: provider.Control
) -> None:
    pair.address.server = pair.sockets[1]
    workshop = Workshop(tmp_path, pair.address.url, providers)
    workshop.routes(hot=[{"upstream": "hot"}])
    refused = workshop.run("failover-worker", "--burst", REDIS_WAIT_SECONDS="0")
    assert refused.returncode == 3 and "it is a replica and cannot accept jobs" in refused.stderr
    worker = workshop.start("failover-worker", "--burst")
    try:
        until(lambda: workshop.events(worker, "redis is away, the start waits"), "it waits")
        pair.swap()
        assert worker.wait(timeout=30) == 0
    finally:
        worker.kill()
        worker.wait()


def test_tasks_that_are_about_to_send_meet_an_error_of_redis_and_no_other(tmp_path: Path) -> None:
    """What one of them is told breaks the connections of all, also between the steps of a command."""

    async def failures(url: str) -> set[type[BaseException]]:
        client = connect_async(url, max_connections=40)
        found = set[type[BaseException]]()
        for number in range(30):
            replies = await asyncio.gather(
                *(client.set(f"{number} {each}", "x") for each in range(40)), return_exceptions=True
            )
            found.update(type(reply) for reply in replies if isinstance(reply, BaseException))
        await client.aclose()
        return found

    with embedded.running(tmp_path) as url, connect(url) as client:
        client.replicaof("127.0.0.1", "1")
        found = asyncio.run(failures(url))
    assert found and all(issubclass(kind, redis.RedisError) for kind in found), found
