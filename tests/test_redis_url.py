"""REDIS_URL: options of other tools are used, ignored or refused; a server that cannot be used is a sentence with the fix."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.local import embedded
from producer import ConfigurationError, ServiceUnavailable
from producer.connection import check_reachable, check_safe, connect, connect_async, redis_url
from producer.scripts import run
from tests.support.polling import until
from tests.support.workshop import Workshop


def option(url: str, name: str) -> Any:
    """The option of a connection, the same for both kinds of clients."""
    blocking = connect(url).connection_pool.connection_kwargs.get(name)
    assert connect_async(url).connection_pool.connection_kwargs.get(name) == blocking
    return blocking


@pytest.mark.parametrize(
    ("url", "name", "value"),
    [
        ("redis://h", "db", None),
        ("redis://h/", "db", None),
        ("redis://h/3", "db", 3),
        ("redis://h?db=4", "db", 4),
        ("redis://h:1/2?decode_responses=True&protocol=3&encoding=latin-1", "db", 2),
        ("redis://h?decode_responses=False", "decode_responses", None),
        ("redis://h?protocol=3", "protocol", 2),
        ("redis://h?protocol=three", "protocol", 2),
        ("redis://:a%2Fb@h", "password", "a/b"),
        ("redis://h?password=a%26b", "password", "a&b"),
        ("redis://h?client_name=app", "client_name", "app"),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs", "none"),
        ("rediss://h?ssl_cert_reqs=None", "ssl_cert_reqs", "none"),
        ("rediss://h?ssl_cert_reqs=CERT_REQUIRED", "ssl_cert_reqs", "required"),
        ("rediss://h?ssl_cert_reqs=Optional", "ssl_cert_reqs", "optional"),
        ("unix:///run/redis.sock?db=5", "path", "/run/redis.sock"),
        ("unix:///run/redis.sock?db=5", "db", 5),
    ],
)
def test_an_option_is_understood(url: str, name: str, value: object) -> None:
    assert option(url, name) == value


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://h/jobs", "db: is not a number"),
        ("redis://h/0x", "db: is not a number"),
        ("redis://h/1/2", "db: is not a number"),
        ("redis://h/-1", "db: is not a number"),
        ("redis://h?db=jobs", "db: is not a number"),
        ("redis://h?socket_timeout=1", "socket_timeout: cannot be set here"),
        ("redis://h?max_connections=1", "max_connections: cannot be set here"),
        ("redis://h?retry_on_timeout=true", "retry_on_timeout: cannot be set here"),
        ("redis://h?health_check_interval=0", "health_check_interval: cannot be set here"),
        ("redis://h?family=4", "family: is not an option"),
        ("redis://h?ssl_cert_reqs=none", "ssl_cert_reqs: needs TLS"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs: has an unknown value"),
        ("rediss://h?ssl_min_version=TLSv1", "ssl_min_version: is not a number"),
    ],
)
def test_an_option_is_refused_by_its_name(url: str, told: str) -> None:
    for make in (connect, connect_async):
        with pytest.raises(ConfigurationError, match=f"REDIS_URL: {told}.* — "):
            make(url)


def test_the_variable_for_self_signed_certificates_wins_over_the_url() -> None:
    url = redis_url({"REDIS_URL": "rediss://h?ssl_cert_reqs=required", "REDIS_TLS_VERIFY": "false"})
    assert url is not None and option(url, "ssl_cert_reqs") == "none"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A server with a password, for a user with one command less, and in cluster mode."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    settings = {"port": str(port), "cluster-enabled": "yes"}
    server = embedded.start_server(tmp_path, settings)
    with connect(f"redis://127.0.0.1:{port}") as client:
        run(client, [("ACL", "SETUSER", "app", "on", ">right", "~*", "&*", "+@all", "-ping")])
    yield port
    server.kill()
    server.wait()


def test_what_is_wrong_with_a_server_is_a_sentence_with_the_fix(port: int) -> None:
    for url, told in (
        (f"redis://:secret@127.0.0.1:{port}", "has no password: remove it"),
        (f"redis://app:secret@127.0.0.1:{port}", "user or password in REDIS_URL is wrong"),
        (f"redis://app:right@127.0.0.1:{port}", "give this user the permissions"),
        (f"redis://127.0.0.1:{port}/99", "no database of that number"),
    ):
        with connect(url) as client, pytest.raises(ServiceUnavailable, match=told) as error:
            check_reachable(client, url)
        assert "secret" not in str(error.value)
    with connect(f"redis://127.0.0.1:{port}") as client:
        assert [danger.split(":")[0] for danger in check_safe(client)] == [
            "it runs in cluster mode, in which a script cannot change the keys of two slots"
        ]


@pytest.mark.parametrize(
    ("greeting", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "the port is not a Redis"),
        (b"-DENIED Redis is running in protected mode\r\n", "set a password"),
        (b"-ERR max number of clients reached\r\n", "raise maxclients"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "wait"),
        (b"-NOAUTH Authentication required.\r\n", "it needs a password"),
        (b"-ERR unknown command 'PING'\r\n", "a proxy in front"),
        (b"", "use rediss://"),
    ],
)
def test_what_a_server_answers_is_a_sentence_with_the_fix(greeting: bytes, told: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer_once, args=(listener, greeting), daemon=True).start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        with connect(url) as client, pytest.raises(ServiceUnavailable, match=told):
            check_reachable(client, url)


def answer_once(listener: socket.socket, greeting: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        while greeting and (commands := connection.recv(4096)):
            connection.sendall(greeting * commands.count(b"*"))


def test_a_worker_that_starts_before_redis_waits_for_it(tmp_path: Path, workshop: Workshop) -> None:
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.url = f"unix://{tmp_path / 'later' / 'valkey.sock'}"
    worker = workshop.start("failover-worker", "--burst")
    until(lambda: workshop.events(worker, "redis is away, the start waits"), "the worker waits")
    (tmp_path / "later").mkdir()
    with embedded.running(tmp_path / "later"):
        assert worker.wait(timeout=30) == 0
