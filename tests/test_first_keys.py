"""One usual API key alone gives a routing map that works; and the doctor names keys that nobody reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ops.reports.checks.configuration import check_configuration
from ops.simulators.provider import Control
from producer.errors import ConfigurationError
from tests.support.workshop import Workshop
from worker.routes.known_providers import known_providers
from worker.routes.prices import public_price
from worker.routes.route import load_routes, read_routes

VARIABLES = [variable for provider in known_providers() for variable in provider.variables]


@pytest.mark.parametrize("variable", VARIABLES)
def test_one_key_alone_gives_a_working_map(variable: str) -> None:
    routes = load_routes({variable: "sk-test-0123456789"})
    assert {route.keys[0].source for route in routes.routes} == {f"environment {variable}"}
    assert all(route.base_url.startswith("https://") for route in routes.routes)
    if variable != "OPENAI_API_KEY":  # the shipped map has a route for it
        assert [route.tier for route in routes.routes] == ["hot", "warm"]
        assert routes.built_in == (variable,)


def test_the_models_of_the_table_have_their_list_prices_there() -> None:
    """Without genai-prices a first map knows what its calls cost; with a newer genai-prices this says what to change."""
    for provider in known_providers():
        listed = {model: public_price(provider.name, model) for model in (provider.model, provider.cheaper)}
        assert provider.prices == listed, provider.name


def test_a_shipped_map_that_can_be_used_is_used() -> None:
    environment = {"ANTHROPIC_BASE_URL": "https://gateway.example.com/v1", "ANTHROPIC_KEY": "sk-test-0123456789"}
    routes = load_routes(environment)
    assert ([route.name for route in routes.routes], routes.built_in) == (["anthropic/sonnet-4.6"], ())


@pytest.mark.parametrize("variable", ["ANTHROPIC_KEY", "ANTHROPIC_API_KEY"])
def test_a_shipped_route_reads_its_key_by_either_name(variable: str) -> None:
    environment = {"ANTHROPIC_BASE_URL_2": "https://gateway.example.com/v1", variable: "sk-test-0123456789"}
    routes = load_routes(environment)
    assert [(route.name, route.keys[0].source, routes.built_in) for route in routes.routes] == [
        ("anthropic/haiku-4.5", f"environment {variable}", ())
    ]


KEY = "sk-test-0123456789"
CLAUDE = [("hot", "anthropic", "anthropic"), ("warm", "anthropic", "anthropic")]
OWN, GATEWAY = "https://api.anthropic.com", "https://gateway.example.com/anthropic"


@pytest.mark.parametrize(
    ("environment", "expected", "address"),
    [
        ({"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": OWN}, CLAUDE, OWN),
        ({"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": f"{OWN}/v1"}, CLAUDE, OWN),
        ({"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": ""}, CLAUDE, OWN),
        ({"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": GATEWAY}, CLAUDE, GATEWAY),
        ({"ANTHROPIC_KEY": KEY, "ANTHROPIC_BASE_URL": f"{OWN}/v1/"}, CLAUDE, OWN),  # no gateway
        (
            {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "https://gateway.example.com/v1"},
            [("hot", "openai", "openai"), ("warm", "openai", "openai")],
            "https://gateway.example.com/v1",
        ),
        (
            {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "https://api.openai.com"},
            [("warm", "openai", "openai")],  # the shipped map
            "https://api.openai.com/v1",
        ),
        (
            {"GEMINI_API_KEY": KEY, "GEMINI_BASE_URL": "https://generativelanguage.googleapis.com"},
            [("hot", "google", "openai"), ("warm", "google", "openai")],
            "https://generativelanguage.googleapis.com/v1beta/openai",
        ),
        (
            {"GROQ_API_KEY": KEY, "GROQ_BASE_URL": "https://api.groq.com"},  # as Groq's own SDK wants it
            [("hot", "groq", "openai"), ("warm", "groq", "openai")],
            "https://api.groq.com/openai/v1",
        ),
        (
            {"GOOGLE_API_KEY": KEY, "GOOGLE_BASE_URL": "https://gateway.example.com/v1"},
            [("hot", "google", "openai"), ("warm", "google", "openai")],
            "https://gateway.example.com/v1",
        ),
        (
            {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": OWN},
            [("hot", "anthropic", "anthropic"), ("warm", "openai", "openai"), ("warm", "anthropic", "anthropic")],
            OWN,
        ),
        (
            {"OPENAI_API_KEY": KEY, "GEMINI_API_KEY": KEY, "MISTRAL_API_KEY": KEY},
            [("hot", "openai", "openai"), *(("warm", name, "openai") for name in ("google", "mistral", "openai"))],
            "https://api.openai.com/v1",
        ),
        (
            {"OPENAI_API_KEY": KEY, "GEMINI_API_KEY": KEY, "GEMINI_OPENAI_COMPAT": "https://gateway.example.com/v1"},
            [("warm", "openai", "openai"), ("warm", "google", "openai")],  # the shipped map
            "https://api.openai.com/v1",
        ),
        (
            {"OPENAI_API_KEY": KEY, "ANTHROPIC_KEY": KEY, "ANTHROPIC_BASE_URL": GATEWAY, "ANTHROPIC_API_KEY": KEY},
            [("hot", "anthropic", "openai"), ("warm", "openai", "openai")],  # the shipped map
            GATEWAY,
        ),
    ],
)
def test_the_usual_variables_give_every_key_a_route_in_the_dialect_of_its_endpoint(
    environment: dict[str, str], expected: list[tuple[str, str, str]], address: str
) -> None:
    routes = load_routes(environment)
    assert [(route.tier, route.entry.provider, route.entry.api) for route in routes.routes] == expected
    assert routes.routes[0].base_url == address


def test_init_writes_the_map_that_is_used_without_a_file(workshop: Workshop) -> None:
    keys = {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": f"{OWN}/v1", "GROQ_API_KEY": KEY}
    assert workshop.run("failover", "routes", "init", **keys).returncode == 0
    written = read_routes(workshop.folder / "routes.json", keys)
    assert written.routes == load_routes(keys).routes


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        (
            {"OPENAI_API_KEY": KEY, "GROQ_API_KEY": KEY},
            "; OPENAI_API_KEY, GROQ_API_KEY are, so the routes are hot openai/",
        ),
        ({"OPENAI_API_KEY": KEY}, "routes.json: the shipped example, whose variables are set"),
    ],
)
def test_a_worker_says_at_its_start_which_map_it_uses_and_why(
    workshop: Workshop, environment: dict[str, str], told: str
) -> None:
    worker = workshop.worker(**environment)
    (line,) = workshop.events(worker, "routing map")
    assert told in line["map"]


def test_a_map_of_ones_own_is_never_replaced_and_its_message_names_the_command(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    path.write_text(json.dumps({"hot": [{"provider": "x", "model": "m", "baseUrl": "https://x.example.com"}]}))
    with pytest.raises(ConfigurationError) as refused:
        read_routes(path, {"MISTRAL_API_KEY": "sk-test-0123456789"})
    assert "or overwrite it by a map for MISTRAL_API_KEY: failover routes init --force" in str(refused.value)


def test_init_writes_a_map_and_overwrites_none(workshop: Workshop) -> None:
    keys = {"GROQ_API_KEY": "gsk-test-0123456789", "MISTRAL_API_KEY": "sk-test-0123456789"}
    done = workshop.run("failover", "routes", "init", **keys)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["  failover routes check", "  failover submit --wait 30 --prompt Hello"]
    routes = read_routes(workshop.folder / "routes.json", keys)
    assert [route.entry.provider for route in routes.routes] == ["mistral", "groq", "mistral"]
    again = workshop.run("failover", "routes", "init", **keys)
    assert (again.returncode, "--force overwrites it" in again.stderr) == (2, True)
    assert workshop.run("failover", "routes", "init", "--force", **keys).returncode == 0
    nothing = workshop.run("failover", "routes", "init", "-o", "other.json")
    assert (nothing.returncode, "ANTHROPIC_API_KEY" in nothing.stderr) == (2, True)


def test_a_newcomer_with_one_key_gets_an_answer(workshop: Workshop, providers: Control) -> None:
    keys = {"MISTRAL_API_KEY": "sk-test-0123456789", "MISTRAL_BASE_URL": providers.base_url("mistral"), "REDIS_URL": ""}
    done = workshop.run("failover", "submit", "--wait", "30", "--prompt", "Hello", **keys)
    assert done.returncode == 0, done.stderr
    assert "MISTRAL_API_KEY is, so the routes are hot mistral/mistral-medium-latest" in done.stderr
    assert providers.account("mistral")["answered"] == 1


def test_the_doctor_names_a_key_that_nobody_reads(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    path.write_text(json.dumps({"hot": [{"provider": "openai", "model": "m", "baseUrl": "https://x.example.com"}]}))
    keys = {"OPENAI_API_KEY": KEY, "GROQ_API_KEY": KEY, "ANTROPIC_API_KEY": "sk-x", "ROUTES_FILE": str(path)}
    told = [finding.told for finding in check_configuration(keys) if finding.about == "keys"]
    assert told == [
        "GROQ_API_KEY is set, but no route reads it — add a route for it to routes.json, or `failover routes init` writes a "
        "new map",
        "ANTROPIC_API_KEY is set, but nobody reads it — is it ANTHROPIC_API_KEY, misspelt?",
    ]
