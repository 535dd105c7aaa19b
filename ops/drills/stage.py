"""The stage of a drill. The simulated one: an embedded Valkey, simulated providers and Slack over real HTTP, a slow link, and a
real worker. Nothing of it outlives the process: a drill that is killed leaves no fault anywhere. (on_feature.py has the other.)
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis

from ops.drills.scenario import Fault, Tier
from ops.local import embedded, session
from ops.simulators import provider, slack_api
from ops.simulators.slack_api import Posted, Slack
from ops.simulators.slow_link import SlowLink
from producer import Producer
from producer.connection import connect
from producer.job import JobResult
from producer.policy import JobPolicy, Policies
from worker.breakers import health
from worker.breakers.local import Rules
from worker.configuration import Configuration
from worker.notify.oncall import OnCall, Person
from worker.notify.settings import Settings, load_settings
from worker.routes.route import read_routes

TIERS: Mapping[Tier, tuple[str, ...]] = {"hot": ("sonnet", "haiku"), "warm": ("openai", "google")}
NAMES: Mapping[Tier, tuple[str, ...]] = {  # of their routes
    "hot": ("anthropic/sonnet-4.6", "anthropic/haiku-4.5"),
    "warm": ("openai/gpt-4o-mini", "google/gemini-3-flash"),
}
LATENCY = (0.05, 0.2)
HEAL_SECONDS = 30.0  # until the first route is used again, after a rollback
PRICE = {"input": 3.0, "output": 15.0}
FIRST_TOKEN_SECONDS = 0.5  # of a hot route: later is a failure
RULES = Rules(cooldown_seconds=1.0, longest_cooldown_seconds=2.0)  # of the breakers; 30 to 120 s in production
PERSON = Person(name="Kira", contact="@kira", timezone="Asia/Tokyo")  # nine time zones from the client
BEHAVIOUR: Mapping[Fault, Mapping[str, object]] = {
    Fault.BLOCKED: {"fault": "reset"},
    Fault.GATEWAY_500: {"status": 500},
    Fault.KEY_REVOKED: {"keys": []},
    Fault.FIRST_TOKEN_LATE: {"first_token": 30.0},
    Fault.SLOW_ANSWERS: {"latency": (2.0, 2.0)},
    Fault.REFUSES_REQUEST: {"status": 400, "error": {"message": "no", "type": "invalid_request_error", "param": "messages"}},
}  # fmt: skip


@dataclass(frozen=True)
class Flaws:
    """Faults of our own, planted so that a drill can be seen to find them; without any it passes."""

    rules: Rules = RULES
    first_token_seconds: float = FIRST_TOKEN_SECONDS
    mute: bool = False  # nobody is told: the channel takes no message
    warm: bool = True  # whether there are warm routes at all


@dataclass
class Stage(ABC):
    """What a drill acts on. `primary`: the routes that its faults of tier hot concern. `feature`, `tenant`: of its jobs."""

    producer: Producer
    primary: frozenset[str]
    feature: str
    tenant: str

    @property
    def client(self) -> redis.Redis:
        return self.producer.client

    @property
    def messages(self) -> Sequence[Posted]:
        """What was posted to the channel, where that can be read."""
        return ()

    def results(self, ids: list[str]) -> list[JobResult]:
        """The jobs as they are now."""
        return [result for result in self.producer.fetch_many(ids) if result is not None]

    def answered(self) -> int:
        """How many requests the providers have answered whole, where that can be counted."""
        return 0

    @abstractmethod
    def inject(self, faults: Mapping[Tier, Fault]) -> None:
        """Set these faults, and end all others."""

    @abstractmethod
    def roll_back(self, traffic: Callable[[], object] | None) -> None:
        """After a fault: let the first route be used again. `traffic`: hands a job in."""


@dataclass
class SimulatedStage(Stage):
    """`environment`: of its web process."""

    providers: provider.Control
    slack: Slack
    link: SlowLink
    url: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def messages(self) -> Sequence[Posted]:
        return self.slack.messages

    def inject(self, faults: Mapping[Tier, Fault]) -> None:
        for tier, upstreams in TIERS.items():
            behaviour = BEHAVIOUR[faults[tier]] if tier in faults else {}
            for upstream in upstreams:
                self.providers.behave(upstream, **{"latency": LATENCY, **behaviour})
        self.link.bad = faults.get("link") is Fault.CAFE_WIFI

    def roll_back(self, traffic: Callable[[], object] | None) -> None:
        """What an operator does after a key was restored: `failover routes enable` for each route that rests. Then traffic
        goes on until the first route's breaker has seen enough of it to close."""
        for route, known in health.of_routes(self.client, [name for names in NAMES.values() for name in names]).items():
            if known.rests_for:
                health.restore(self.client, route, who="drill")
        first, give_up = NAMES["hot"][0], time.monotonic() + HEAL_SECONDS
        while traffic and not health.of_routes(self.client, [first])[first].serves and time.monotonic() < give_up:
            traffic()
            time.sleep(0.2)

    def answered(self) -> int:
        return sum(int(self.providers.account(upstream)["answered"]) for tier in TIERS.values() for upstream in tier)


@contextlib.contextmanager
def on_simulator(folder: Path, flaws: Flaws, *, bypass: bool = False) -> Iterator[SimulatedStage]:
    """A stage of its own in `folder`. `bypass`: every job goes to the first route."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(embedded.scratch(folder / "valkey"))
        providers = stack.enter_context(provider.running())
        slack = stack.enter_context(slack_api.running())
        slack.seconds, slack.mode = 0.2, "down" if flaws.mute else "up"
        link = stack.enter_context(SlowLink.before(providers.url))
        client = stack.enter_context(connect(url))
        client.flushdb()  # of the drill's own server
        policies = Policies(job_types={"default": JobPolicy(deadline_seconds=60, max_time_to_answer_seconds=60)})
        routes = _routes_file(folder, link.url, flaws)
        settings = _settings(slack)
        configuration = Configuration(policies, read_routes(routes, {"BYPASS_ROUTER": "true"} if bypass else {}))
        producer, primary = Producer(client, policies), frozenset(NAMES["hot"])
        facts = (providers, slack, link, url, _environment(url, routes, slack))
        stage = SimulatedStage(producer, primary, "drill", "acme", *facts)
        stage.inject({})
        stack.enter_context(session.own_worker(url, configuration, slots=50, rules=flaws.rules, settings=settings))
        yield stage


def _routes_file(folder: Path, url: str, flaws: Flaws) -> Path:
    def route(provider: str, model: str, upstream: str, **more: object) -> dict[str, object]:
        base = {"provider": provider, "model": model, "baseUrl": f"{url}/{upstream}/v1", "apiKeyEnv": ""}
        return {**base, "price": PRICE, "timeoutSeconds": 20, **more}

    limit = {"streamTimeoutSeconds": flaws.first_token_seconds}
    hot = [route("anthropic", "sonnet-4.6", "sonnet", **limit), route("anthropic", "haiku-4.5", "haiku", **limit)]
    warm = [route("openai", "gpt-4o-mini", "openai"), route("google", "gemini-3-flash", "google")]
    path = folder / "routes.json"
    path.write_text(json.dumps({"hot": hot, "warm": warm if flaws.warm else []}))
    return path


def _settings(slack: Slack) -> Settings:
    found = load_settings(slack.environment)
    on_call = OnCall(
        on_call=(PERSON,), tells_clients={"default": "Dana"}, hold_seconds=0.5, steady_seconds=1, edit_seconds=1
    )
    return Settings(found.channels, on_call, found.messages, found.subscribers, found.alert_thresholds, found.network)


def _environment(url: str, routes: Path, slack: Slack) -> dict[str, str]:
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "PYTHONPATH") if name in os.environ
    }
    return {**kept, "REDIS_URL": url, "ROUTES_FILE": str(routes), **slack.environment}
