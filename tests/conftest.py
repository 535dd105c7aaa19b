"""A real Valkey, a real HTTP provider that misbehaves on request, real worker processes. Nothing of ours is mocked."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
import redis

from ops.local import embedded
from ops.simulators import provider, slack_api
from ops.simulators.slack_api import Slack
from producer import Producer
from producer.connection import connect
from producer.policy import Policies, load_policies
from tests.support.openai_door import door
from tests.support.web import served
from tests.support.workshop import Workshop, workshop_in

# A shell ignores Ctrl-C for what it starts with &, and so would every command that these tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

OF_A_SERVER = {"server", "openai_door", "provider_server", "slack"}  # all others build on these
SLOW = {"test_hostile_texts", "test_costs_sheet", "test_telemetry_settings", "test_fuzz_answers", "test_transport"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test-fast` leaves out: what needs a server, and what takes long. Tests that start processes of their own
    mark themselves."""
    for item in items:
        if OF_A_SERVER.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)
        if item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded.running(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """An empty server."""
    with connect(server) as client:
        client.flushall()
    return server


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with connect(url) as client:
        yield client


@pytest.fixture(scope="session")
def provider_server() -> Iterator[provider.Control]:
    with provider.running() as control:
        yield control


@pytest.fixture
def providers(provider_server: provider.Control) -> provider.Control:
    """The simulator, with everything forgotten."""
    provider_server.forget()
    return provider_server


@pytest.fixture
def policies() -> Policies:
    return load_policies({})


@pytest.fixture
def producer(client: redis.Redis, policies: Policies) -> Producer:
    return Producer(client, policies)


@pytest.fixture
def workshop(tmp_path: Path, url: str, providers: provider.Control) -> Iterator[Workshop]:
    with workshop_in(tmp_path, url, providers) as place:
        yield place


@pytest.fixture
def web(workshop: Workshop) -> Iterator[httpx.Client]:
    """A client of a web process with the operator's token."""
    workshop.routes(hot=[{"upstream": "a"}])
    workshop.policy()
    with served(workshop) as client:
        yield client


@pytest.fixture(scope="module")
def openai_door(
    tmp_path_factory: pytest.TempPathFactory, provider_server: provider.Control
) -> Iterator[tuple[str, openai.OpenAI]]:
    """A server of its own, and an SDK's client of a web process and a worker there: to start them takes longer than a test."""
    folder = tmp_path_factory.mktemp("door")
    with embedded.running(folder / "valkey") as url, workshop_in(folder, url, provider_server) as place:
        place.routes(hot=[{"upstream": "a"}], warm=[{"upstream": "b"}])
        place.policy(stream="whole")
        with door(place) as sdk:
            yield url, sdk


@pytest.fixture
def sdk_redis(openai_door: tuple[str, openai.OpenAI]) -> Iterator[redis.Redis]:
    """The server behind `sdk`."""
    with connect(openai_door[0]) as client:
        yield client


@pytest.fixture
def sdk(openai_door: tuple[str, openai.OpenAI], sdk_redis: redis.Redis, providers: provider.Control) -> openai.OpenAI:
    """OpenAI's client of the shared processes, with nothing in Redis; its providers are `a` and `b`."""
    sdk_redis.flushall()
    return openai_door[1]


@pytest.fixture
def sdk_producer(sdk_redis: redis.Redis, policies: Policies) -> Producer:
    return Producer(sdk_redis, policies)


@pytest.fixture
def slack() -> Iterator[Slack]:
    with slack_api.running() as slack:
        yield slack
