"""Policies, routes and the environment: the SOP's map verbatim, and wrong files told with place, field and fix."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from ops.cli import failover
from ops.commands.serve import serve
from producer import ConfigurationError, InvalidJob
from producer.environment import load_environment
from producer.policy import load_policies, read_policies
from worker.cli import command as failover_worker
from worker.routes.route import load_routes, read_routes

SEED = """
{
  "hot": [
    { "provider": "anthropic", "model": "sonnet-4.6", "baseUrl": "${ANTHROPIC_BASE_URL}" },
    { "provider": "anthropic", "model": "haiku-4.5",  "baseUrl": "${ANTHROPIC_BASE_URL_2}" }
  ],
  "warm": [
    { "provider": "openai",  "model": "gpt-4o-mini",     "baseUrl": "https://api.openai.com/v1" },
    { "provider": "google",  "model": "gemini-3-flash",  "baseUrl": "${GEMINI_OPENAI_COMPAT}" }
  ],
  "cold": { "mode": "graceful_degrade", "queue": "ai-tasks", "notify": ["ops@yourco.com"] }
}
"""
SEED_ENVIRONMENT = {
    "ANTHROPIC_BASE_URL": "https://gateway.example.com/v1",
    "ANTHROPIC_BASE_URL_2": "https://gateway-2.example.com/v1/",
    "GEMINI_OPENAI_COMPAT": "https://gemini.example.com/v1",
    "ANTHROPIC_KEY": "sk-a",
    "OPENAI_API_KEY": "sk-o, sk-o2",
    "GEMINI_API_KEY": "ya29",
}


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_seeds_routing_map_works_verbatim(tmp_path: Path) -> None:
    routes = read_routes(written(tmp_path, "routes.json", SEED), SEED_ENVIRONMENT)
    assert [
        (route.name, route.tier, route.base_url, tuple(key.secret for key in route.keys)) for route in routes.routes
    ] == [
        ("anthropic/sonnet-4.6", "hot", "https://gateway.example.com/v1", ("sk-a",)),
        ("anthropic/haiku-4.5", "hot", "https://gateway-2.example.com/v1", ("sk-a",)),
        ("openai/gpt-4o-mini", "warm", "https://api.openai.com/v1", ("sk-o", "sk-o2")),
        ("google/gemini-3-flash", "warm", "https://gemini.example.com/v1", ("ya29",)),
    ]
    assert routes.cold.notify == ("ops@yourco.com",)
    assert "sk-" not in repr(routes)


def test_one_key_is_enough_and_the_rest_is_left_out_with_reasons(tmp_path: Path) -> None:
    routes = read_routes(written(tmp_path, "routes.json", SEED), {"OPENAI_API_KEY": "sk-o"})
    assert [route.name for route in routes.routes] == ["openai/gpt-4o-mini"]
    assert {out.name: out.why for out in routes.left_out} == {
        "anthropic/sonnet-4.6": "ANTHROPIC_BASE_URL is not set",
        "anthropic/haiku-4.5": "ANTHROPIC_BASE_URL_2 is not set",
        "google/gemini-3-flash": "GEMINI_OPENAI_COMPAT is not set",
    }


def test_a_variable_before_a_path_gives_one_slash(tmp_path: Path) -> None:
    entries = [
        {"provider": "p", "model": "m", "apiKeyEnv": "", "baseUrl": base}
        for base in ("${A}/openai/v1", "${A}", "${A}x")
    ]
    routes = read_routes(
        written(tmp_path, "routes.json", json.dumps({"hot": entries})), {"A": "https://r.example.com/"}
    )
    host = "https://r.example.com"
    assert [route.base_url for route in routes.routes] == [f"{host}/openai/v1", host, f"{host}/x"]


def test_warm_can_be_switched_off(tmp_path: Path) -> None:
    environment = {**SEED_ENVIRONMENT, "ENABLE_WARM_FALLBACK": "false"}
    routes = read_routes(written(tmp_path, "routes.json", SEED), environment)
    assert {route.tier for route in routes.routes} == {"hot"}


def test_the_second_route_of_a_name_is_numbered_and_defaults_fill_in(tmp_path: Path) -> None:
    route = {"provider": "local", "model": "m", "baseUrl": "${LOCAL:-http://localhost:11434/v1}", "apiKeyEnv": ""}
    routes = read_routes(written(tmp_path, "routes.json", json.dumps({"hot": [route, route]})), {})
    assert [route.name for route in routes.routes] == ["local/m", "local/m#2"]
    assert routes.routes[0].base_url == "http://localhost:11434/v1"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not JSON"),
        ('{"hot": [{"provider": "openai", "model": "m"}]}', "hot.0.baseUrl: is missing"),
        (
            '{"hot": [{"provider": "o", "model": "m", "baseUrl": "ftp://x", "apiKeyEnv": ""}]}',
            "o/m.baseUrl: is not an http",
        ),
        ('{"hot": [{"provider": "o", "model": "m", "baseUrl": "http://x", "timeout": 3}]}', "hot.0.timeout"),
        ('{"hot": []}', "no route can be used"),
        ('{"hot": [{"provider": "openai", "model": "m", "baseUrl": "http://x"}]}', "OPENAI_API_KEY is not set"),
    ],
)
def test_a_wrong_map_is_told_by_file_and_field(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=r"routes\.json") as error:
        read_routes(written(tmp_path, "routes.json", text), {})
    assert told in str(error.value)


def test_the_example_files_are_valid() -> None:
    policies = load_policies({})
    assert policies.of("draft_email").deadline_seconds == 30
    assert policies.of("batch").keep_results_seconds == policies.of("default").keep_results_seconds
    assert len(load_routes(SEED_ENVIRONMENT).routes) == 4


def test_an_unknown_job_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        InvalidJob, match=r"job_type: 'draft_emial' is not in policies/jobs\.yaml; it has default, batch"
    ):
        load_policies({}).of("draft_emial")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("job_types: [", "is not YAML"),
        ("job_types:\n  default:\n    executions: 0\n  other: {}", ":3: job_types.default.executions: "),
        ("job_types:\n  default: {}\n  draft:\n    degrade: [cheaper]", ":4: job_types.draft.degrade.0: "),
        ("job_types:\n  draft:\n    retries: 3", ":3: job_types.draft.retries: is not a field here"),
        ("types: {}", "job_types"),
        ("", "job_types"),
    ],
)
def test_a_wrong_policy_is_told_by_file_line_and_field(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        read_policies(written(tmp_path, "jobs.yaml", text))
    assert told in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_dotenv_is_read_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, ".env", "FROM_FILE=file\nFROM_BOTH=file\n")
    monkeypatch.setenv("FROM_BOTH", "process")
    environment = load_environment(path)
    assert (environment["FROM_FILE"], environment["FROM_BOTH"]) == ("file", "process")


@pytest.mark.parametrize(
    ("command", "line", "option", "read"),
    [
        (serve, "PORT=8123", "port", 8123),
        (failover_worker, "REDIS_WAIT_SECONDS=7", "redis_wait_seconds", 7.0),
    ],
)
def test_the_variable_of_an_option_may_be_in_dotenv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: click.Command, line: str, option: str, read: object
) -> None:
    written(tmp_path, ".env", line)
    monkeypatch.chdir(tmp_path)
    assert command.make_context("", []).params[option] == read
    monkeypatch.setenv(line.partition("=")[0], "")
    assert command.make_context("", []).params[option] in (8000, 60.0)
    assert command.make_context("", [f"--{option.replace('_', '-')}", "9"]).params[option] == 9


def test_no_option_reads_the_process_environment_alone() -> None:
    """Click's `envvar` does not know `.env`."""
    commands: list[click.Command] = [failover, failover_worker]
    for command in commands:
        if isinstance(command, click.Group):
            context = click.Context(command)
            commands.extend(
                filter(None, (command.get_command(context, name) for name in command.list_commands(context)))
            )
        assert not [parameter.name for parameter in command.params if parameter.envvar], command.name
