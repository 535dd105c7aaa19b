"""A Redis that cannot write to its disk refuses every write, so nothing can be recorded: people are told all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from ops.local import embedded
from ops.simulators import provider
from ops.simulators.slack_api import Slack
from producer import Producer
from producer.connection import connect
from producer.errors import ServiceUnavailable
from producer.policy import load_policies
from tests.support.incidents import on_call
from tests.support.jobs import chat
from tests.support.polling import until
from tests.support.workshop import Workshop


@pytest.fixture
def apart(tmp_path: Path, providers: provider.Control) -> Iterator[Workshop]:
    """A workshop with a server of its own, which can make no snapshot while the folder `dump.rdb` exists."""
    folder = tmp_path / "valkey"
    folder.mkdir()
    server = embedded.start_server(folder, {"appendonly": "no", "save": "86400 1000000"})
    (folder / "dump.rdb").mkdir()
    workshop = Workshop(tmp_path, f"unix://{embedded.socket_path(folder)}", providers)
    workshop.routes(hot=[{"upstream": "hot"}])
    yield workshop
    for process in (*workshop.processes, server):
        process.kill()
        process.wait()


@pytest.fixture
def client(apart: Workshop) -> Iterator[redis.Redis]:
    with connect(apart.url) as client:
        yield client


def snapshot(client: redis.Redis, status: str) -> None:
    client.bgsave()
    until(
        lambda: (
            (info := client.info("persistence"))["rdb_last_bgsave_status"] == status
            and not info["rdb_bgsave_in_progress"]
        ),
        f"the snapshot is {status}",
    )


def test_people_are_told_once_that_nothing_can_be_written_and_once_that_it_is_over(
    apart: Workshop, client: redis.Redis, slack: Slack
) -> None:
    on_call(apart)
    worker = apart.worker(**slack.environment)
    until(lambda: apart.events(worker, "this worker is the notifier now"), "it leads")
    snapshot(client, "err")
    (opening,) = until(lambda: slack.in_channel(), "it is told")
    assert "Redis refuses every write" in opening.texts[-1]
    assert "free some, or use a larger disk" in opening.whole()
    producer = Producer(client, load_policies(apart.environment))
    with pytest.raises(ServiceUnavailable, match="MISCONF"):
        producer.enqueue(chat("refused"))
    (apart.folder / "valkey" / "dump.rdb").rmdir()
    snapshot(client, "ok")
    until(lambda: len(slack.in_channel()) == 2, "it is told that it is over")
    assert "Over after" in slack.in_channel()[1].texts[-1]
    job_id = producer.enqueue(chat("accepted"))
    until(lambda: producer.ended([job_id])[0], "the worker goes on")


def test_doctor_and_a_start_name_the_fix(apart: Workshop, client: redis.Redis) -> None:
    snapshot(client, "err")
    told = apart.run("failover", "doctor")
    assert told.returncode == 3
    assert "it cannot write to its own disk, so it refuses every write" in told.stdout
    refused = apart.run("failover-worker", "--redis-wait-seconds", "0")
    assert (refused.returncode, "free space there" in refused.stderr) == (3, True)
