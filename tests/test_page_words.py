"""What the pages say to a person without a terminal: what is wrong, and the next step on a page."""

from __future__ import annotations

import httpx
import pytest
import redis

from producer import Producer
from producer.job import DeadReason
from tests.support.jobs import chat
from tests.support.pages import signed_in
from tests.support.transitions import claim, settle
from worker.control import pause
from worker.notify.condition import Condition
from worker.notify.incidents import Incidents
from worker.notify.kinds import Kind
from worker.queue.outcomes import Dead


def test_a_dead_letter_says_what_to_do_without_a_terminal(
    web: httpx.Client, client: redis.Redis, producer: Producer
) -> None:
    job_id = producer.enqueue(chat())
    (held,) = claim(client)
    settle(client, held, Dead(DeadReason.REJECTED, "too large", (), 100))
    page = signed_in(web).get(f"/ui/jobs/{job_id}").text
    assert "answer it by hand" in page
    assert "failover dlq" not in page


@pytest.mark.parametrize("kind", [Kind.CREDENTIALS, Kind.REFUSED])
def test_a_refused_key_leads_to_its_fix_and_to_the_routes(web: httpx.Client, client: redis.Redis, kind: Kind) -> None:
    incident = Incidents(client).open(Condition(kind, "openai"), 1_700_000_000_000, "it refuses the key")
    page = signed_in(web).get("/").text
    assert f'href="/ui/incidents/{incident}#fix"' in page
    assert "Use the routes again, once it is fixed" in page


def test_an_odd_id_is_told_as_a_page(web: httpx.Client) -> None:
    person = signed_in(web)
    for job_id in ("a/b", "a?b#c", "é", "x" * 3000, "..%2f.."):
        answer = person.get("/ui/jobs", params={"id": job_id})
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (422, "text/html")
        assert "is no id of a job" in answer.text


def test_no_time_is_promised_while_everything_is_paused(
    web: httpx.Client, client: redis.Redis, producer: Producer
) -> None:
    producer.enqueue(chat())
    pause.pause(client, pause.EVERYTHING, who="sam", why="")
    assert "What waits now is answered" not in signed_in(web).get("/").text
