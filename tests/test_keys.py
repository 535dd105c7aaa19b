"""Where a key comes from, which one a call is made with, and what becomes of one that is refused."""

from __future__ import annotations

import json
from collections import ChainMap
from pathlib import Path

import pytest

from producer.environment import Environment
from producer.errors import ConfigurationError
from worker.configuration import Configuration
from worker.routes.api_keys import Key, Keys, of_file, of_variable, parsed
from worker.routes.route import Routes, read_routes


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(clock: Clock) -> Keys:
    return Keys(clock)


def configured(folder: Path, environment: Environment, **fields: str) -> Routes:
    entry = {"provider": "p", "model": "m", "baseUrl": "http://x", "apiKeyEnv": "P_KEY", **fields}
    (folder / "routes.json").write_text(json.dumps({"hot": [entry]}))
    return read_routes(folder / "routes.json", environment)


def test_the_precedence_of_sources(tmp_path: Path, keys: Keys) -> None:
    """Request, memory, configuration, environment, .env: each of them takes the place of those after it."""
    layers = ChainMap({}, {"P_KEY": "sk-5"})
    (route,) = configured(tmp_path, layers).routes
    assert [key.source for key in keys.given("p", route.keys, "acme")] == [".env P_KEY"]
    layers.maps[0]["P_KEY"] = "sk-4"
    (route,) = configured(tmp_path, layers).routes
    assert [key.source for key in keys.given("p", route.keys, "acme")] == ["environment P_KEY"]
    (tmp_path / "p.key").write_text("sk-3\n")
    (route,) = configured(tmp_path, layers, apiKeyFile=str(tmp_path / "p.key")).routes
    assert [key.source for key in keys.given("p", route.keys, "acme")] == ["file p.key"]
    keys.put("p", "sk-2")
    assert [key.source for key in keys.given("p", route.keys, "acme")] == ["memory p"]
    keys.of_tenants = lambda: {"acme": {"p": (Key("sk-1", "environment ACME", "acme"),)}}
    assert [key.secret for key in keys.given("p", route.keys, "acme")] == ["sk-1"]
    assert [key.secret for key in keys.given("p", route.keys, "other")] == ["sk-2"]
    assert [key.secret for key in keys.given("q", route.keys, "acme")] == ["sk-3"]
    keys.put("p", "")
    assert [key.secret for key in keys.given("p", route.keys, "other")] == ["sk-3"]


def test_a_refused_key_is_parked_for_longer_each_time_until_it_is_taken(keys: Keys, clock: Clock) -> None:
    first, second = both = parsed("sk-1,sk-2", "environment P_KEY", "P_KEY")
    assert keys.best(both) is first
    keys.park(first, 60)
    assert keys.best(both) is second
    clock.now += 61
    assert keys.best(both) is first
    keys.park(first, 60)
    clock.now += 61
    assert keys.best(both) is second, "twice as long"
    clock.now += 60
    keys.accepted(first)
    keys.park(first, 60)
    clock.now += 61
    assert keys.best(both) is first, "and from the beginning once it was taken"


def test_a_refused_key_is_told_until_it_is_replaced(keys: Keys) -> None:
    old, new = Key("sk-old", "environment P_KEY"), Key("sk-new", "environment P_KEY")
    theirs = Key("sk-1", "environment ACME", "acme")
    for key in (old, theirs):
        keys.park(key, 60)
    assert keys.told([old]) == ["environment P_KEY"]
    assert keys.told([new]) == []
    keys.of_tenants = lambda: {"acme": {"p": (theirs,)}}
    assert keys.told([new]) == ["environment ACME of tenant acme"]
    keys.put("p", "sk-old")
    assert keys.told([]) == ["environment ACME of tenant acme", "environment P_KEY"]


def test_with_all_keys_parked_ours_is_asked_again_and_a_tenants_is_not(keys: Keys) -> None:
    ours, theirs = Key("sk-1", "environment P_KEY"), Key("sk-2", "environment ACME", "acme")
    for key in (ours, theirs):
        keys.park(key, 60)
    assert keys.best([ours]) is ours
    assert keys.best([theirs]) is None
    assert keys.opens_in([theirs]) == 60
    assert not keys.any_left([ours])


def test_keys_are_in_no_repr_and_in_no_error(tmp_path: Path) -> None:
    key = Key("sk-secret", "environment P_KEY")
    assert "sk-secret" not in repr(key)
    for text in ("sk-sec ret", "sk-secr\N{LATIN SMALL LETTER E WITH ACUTE}t"):
        with pytest.raises(ConfigurationError) as refused:
            of_variable("P_KEY", {"P_KEY": text})
        assert "sk-sec" not in str(refused.value)
        assert "P_KEY: holds a character that no API key has" in str(refused.value)
    assert of_file(tmp_path / "missing") == of_file(tmp_path) == ()
    (tmp_path / "key").write_text("sk-1\nsk-2\n\n")
    assert [key.source for key in of_file(tmp_path / "key")] == ["file key#1", "file key#2"]


def test_a_route_whose_key_file_is_empty_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigurationError, match="no route can be used"):
        configured(tmp_path, {}, apiKeyFile=str(tmp_path / "empty"))


def test_a_configuration_has_its_tenants_keys(tmp_path: Path) -> None:
    (tmp_path / "jobs.yaml").write_text("version: 1\njob_types: {default: {}}\n")
    (tmp_path / "tenants.yaml").write_text("version: 1\ntenants: {default: {}, acme: {keys: {p: ACME_KEY}}}\n")
    configured(tmp_path, {"P_KEY": "sk-1"})
    environment = {"P_KEY": "sk-1", "POLICIES_DIR": str(tmp_path), "ROUTES_FILE": str(tmp_path / "routes.json")}
    found = Configuration.load({**environment, "ACME_KEY": "sk-2"})
    assert found.tenant_keys == {"acme": {"p": (Key("sk-2", "environment ACME_KEY", "acme"),)}}
    with pytest.raises(ConfigurationError, match=r"tenants\.acme\.keys\.p: ACME_KEY is not set"):
        Configuration.load(environment)
