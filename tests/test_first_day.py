"""The first day of a newcomer, on a laptop: one key, an empty folder, and answers."""

from __future__ import annotations

import pytest

from tests.support.workshop import Workshop


@pytest.fixture
def routed(workshop: Workshop) -> Workshop:
    workshop.routes(hot=[{"upstream": "hot"}], warm=[{"upstream": "warm"}])
    return workshop


@pytest.mark.parametrize(
    "words",
    [
        ("hello", "--wait"),
        ("--wait", "hello"),
        ("--wait", "20", "hello"),
        ("hello", "--wait=20"),
        ("--wait", "--", "hello"),
    ],
)
def test_submit_takes_its_text_as_an_argument_and_waits_with_and_without_a_number(
    routed: Workshop, words: tuple[str, ...]
) -> None:
    routed.worker()
    ended = routed.run("failover", "submit", *words)
    assert (ended.returncode, ended.stdout) == (0, "You said: hello\n"), ended.stderr
    assert "1 attempt, " in ended.stderr


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
