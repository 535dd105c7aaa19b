"""The first day of a newcomer, on a laptop: one key, an empty folder, and answers."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from ops.commands.job import submit
from ops.commands.setup.init import init
from producer.environment import Environment, load_environment, packaged
from tests.support.workshop import Workshop
from worker.configuration import Configuration
from worker.routes.known_providers import known_providers

KEY = "sk-test-0123456789"
GATEWAY = "https://gateway.example.com/v1"


@pytest.fixture
def routed(workshop: Workshop) -> Workshop:
    workshop.routes(hot=[{"upstream": "hot"}], warm=[{"upstream": "warm"}])
    return workshop


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, without a key in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.endswith(("_KEY", "_BASE_URL"))]:
        monkeypatch.delenv(name)
    return tmp_path


def run_init(environment: Environment, *options: str) -> str:
    done = CliRunner().invoke(init, options, obj=environment)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


@pytest.mark.parametrize(
    ("variable", "base_url"),
    [
        ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
        ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
        ("GEMINI_API_KEY", "GEMINI_BASE_URL"),
        ("OPENROUTER_API_KEY", "OPENROUTER_BASE_URL"),
    ],
)
def test_one_key_and_two_commands_give_the_first_answer(workshop: Workshop, variable: str, base_url: str) -> None:
    workshop.providers.behave("stand-in", keys=[KEY])
    environment = {variable: KEY, base_url: workshop.providers.base_url("stand-in")}
    began = workshop.run("failover", "init", REDIS_URL="", **environment)
    assert began.returncode == 0, began.stderr
    assert began.stdout.splitlines()[-2].endswith("failover submit 'Say hello' --wait")
    answered = workshop.run("failover", "submit", "Say hello", "--wait", REDIS_URL="")  # in another terminal: only .env
    assert (answered.returncode, answered.stdout) == (0, "You said: Say hello\n"), answered.stderr
    assert "1 attempt, " in answered.stderr
    assert workshop.providers.account("stand-in")["answered"] == 1
    assert KEY not in began.stdout + began.stderr + answered.stdout + answered.stderr


def test_without_a_key_init_writes_nothing_and_says_what_it_looks_for(workshop: Workshop) -> None:
    ended = workshop.run("failover", "init", REDIS_URL="")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert all(provider.variables[0] in ended.stderr for provider in known_providers())
    assert "failover demo` runs a batch" in ended.stderr
    refused = workshop.run("failover", "submit", "hello", "--wait", REDIS_URL="")
    assert (refused.returncode, "OPENROUTER_API_KEY, then: failover init" in refused.stderr) == (2, True)
    assert list(workshop.folder.iterdir()) == []


ENVIRONMENTS = [
    *(
        {variable: KEY}
        for provider in known_providers()
        for variable in provider.variables
        if provider.name != "openai"
    ),
    {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": GATEWAY},
    {"OPENAI_API_KEY": KEY, "GROQ_API_KEY": KEY, "MISTRAL_API_KEY": KEY},
    {"ANTHROPIC_KEY": KEY, "ANTHROPIC_BASE_URL": GATEWAY, "OPENAI_API_KEY": KEY},  # the SOP's map
    {"GEMINI_API_KEY": KEY, "GEMINI_OPENAI_COMPAT": GATEWAY},
]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=" ".join)
def test_init_changes_nothing_of_what_is_used_without_files(elsewhere: Path, environment: Environment) -> None:
    before = Configuration.load(environment)
    told = run_init(environment)
    assert {"routes.json", "policies", ".env"} == {path.name for path in elsewhere.iterdir()}
    for given in (environment, dict(load_environment())):  # this terminal, and another one
        after = Configuration.load(given)
        routes = [replace(route, keys=()) for route in after.routes.routes]
        assert routes == [replace(route, keys=()) for route in before.routes.routes]
        assert {key.secret for route in after.routes.routes for key in route.keys} == {KEY}
        assert after.policies.job_types == before.policies.job_types
        assert after.policies.of_tenant("any") == before.policies.of_tenant("any")
        assert (after.routing.of("any"), after.budgets) == (before.routing.of("any"), before.budgets)
    assert KEY not in told
    assert max(map(len, told.splitlines())) <= 80


def test_files_that_are_elsewhere_are_written_there_and_found_again(elsewhere: Path) -> None:
    told = run_init({"GROQ_API_KEY": KEY, "ROUTES_FILE": "conf/map.json", "POLICIES_DIR": "conf/rules"})
    assert "wrote  conf/map.json" in told and "wrote  conf/rules/jobs.yaml" in told
    assert {path.name for path in elsewhere.iterdir()} == {".env", "conf"}
    assert load_environment()["ROUTES_FILE"] == "conf/map.json"


def test_one_key_of_openai_has_a_hot_and_a_warm_route(elsewhere: Path) -> None:
    run_init({"OPENAI_API_KEY": KEY})
    assert [route.tier for route in Configuration.load(load_environment()).routes.routes] == ["hot", "warm"]


def test_init_overwrites_only_what_it_is_told_to_and_never_dotenv(elsewhere: Path) -> None:
    dotenv, jobs = elsewhere / ".env", elsewhere / "policies" / "jobs.yaml"
    jobs.parent.mkdir()
    jobs.write_text("version: 1\njob_types: {}\n")
    dotenv.write_text("MINE=1\n")
    told = run_init({"GROQ_API_KEY": KEY})
    assert "left   policies/jobs.yaml     it was there; --force overwrites it" in told
    assert "left   .env                   it was there; it is never overwritten" in told
    assert "only this terminal has GROQ_API_KEY" in told and "`chmod 600 .env`" in told
    assert jobs.read_text() == "version: 1\njob_types: {}\n"
    run_init({"GROQ_API_KEY": KEY}, "--force")
    assert jobs.read_text() == packaged("policies/jobs.yaml").read_text()
    assert dotenv.read_text() == "MINE=1\n"


def test_dotenv_is_private_and_holds_any_value(elsewhere: Path) -> None:
    odd = {"GROQ_API_KEY": KEY, "GROQ_BASE_URL": 'https://gateway.example.com/a\'b?c=d e#f\\g&h="i"'}
    run_init(odd)
    assert stat.S_IMODE((elsewhere / ".env").stat().st_mode) == 0o600
    read = load_environment()
    assert {name: read[name] for name in odd} == odd
    assert len(read["FAILOVER_API_TOKEN"]) == 64


def test_a_key_that_cannot_be_one_is_said_before_anything_is_written(elsewhere: Path) -> None:
    done = CliRunner().invoke(init, obj={"GROQ_API_KEY": '"quoted"'})
    assert "holds a character that no API key has" in str(done.exception)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "text", "wait"),
    [
        ("hello", "hello", None),
        ("hello --wait", "hello", 60),
        ("--wait hello", "hello", 60),
        ("--wait -", "-", 60),
        ("--wait 20 hello", "hello", 20),
        ("--wait .5 hello", "hello", 0.5),
        ("hello --wait=20", "hello", 20),
        ("--wait --json hello", "hello", 60),
        ("hello --wait --tenant acme", "hello", 60),
        ("--wait -- --wait", "--wait", 60),
    ],
)
def test_wait_may_stand_without_a_number_behind_the_text_and_before_it(
    words: str, text: str, wait: float | None
) -> None:
    read = submit.make_context("submit", words.split()).params
    assert (read["text"], read["wait"]) == ((text,), wait)


@pytest.mark.parametrize(
    "command", [("batch", "run", "empty.jsonl", "-o", "out.jsonl"), ("submit", "--all", "--wait", "30", "mine")]
)
def test_a_job_of_an_earlier_command_is_never_executed_unannounced(routed: Workshop, command: tuple[str, ...]) -> None:
    (routed.folder / "empty.jsonl").write_text("")
    assert "until you start `failover up`" in routed.run("failover", "submit", "theirs", REDIS_URL="").stderr
    told = routed.run("failover", *command, REDIS_URL="")
    assert "also executed now: 1 unfinished job of earlier commands" in told.stderr


def test_a_job_that_an_earlier_wait_gave_up_is_announced_too(routed: Workshop) -> None:
    routed.providers.behave("hot", latency=(30, 30))
    assert routed.run("failover", "submit", "slow", "--wait", "0.1", REDIS_URL="").returncode == 1
    routed.providers.behave("hot")
    mine = routed.run("failover", "submit", "quick", "--wait", "30", REDIS_URL="")
    assert (mine.stdout, mine.returncode) == ("You said: quick\n", 0), mine.stderr
    assert "also executed now: 1 unfinished job of earlier commands" in mine.stderr
