"""What the pages say to a person without a terminal: what is wrong, and the next step on a page."""

from __future__ import annotations

import json
import re
from secrets import token_hex

import httpx
import pytest
import redis

from ops.reports.status import gather
from ops.web.pages.words import by_button, cause, done
from producer import Producer, keyspace
from producer.job import DeadReason
from tests.support.jobs import chat
from tests.support.pages import signed_in, token_of
from tests.support.polling import until
from tests.support.transitions import Q, claim, settle
from tests.support.workshop import Workshop
from worker.breakers import health
from worker.control import pause
from worker.control.audit_trail import ActsOfPeople
from worker.control.tokens import Role
from worker.notify.condition import Condition
from worker.notify.incidents import Incidents
from worker.notify.kinds import Kind
from worker.queue import tenant_jobs
from worker.queue.dead_letters import discard, now_ms
from worker.queue.outcomes import Dead


def opened(client: redis.Redis, kind: Kind, **state: list[str]) -> str:
    """The id of an open incident with a state as the notifier writes it."""
    store = Incidents(client)
    incident_id = store.open(Condition(kind, "openai"), 1_700_000_000_000, "it began")
    for incident in store.named([incident_id]):
        assert store.change(incident, "state", json.dumps(state))
    return incident_id


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


def test_now_says_what_was_done_since_the_problem_began(
    web: httpx.Client, client: redis.Redis, producer: Producer
) -> None:
    health.restore(client, "openai/gpt", who="before@web")
    began = now_ms(client) + 1
    Incidents(client).open(Condition(Kind.DEAD_LETTERS, "rejected"), began, "2 dead letters")
    until(lambda: now_ms(client) > began, "it has begun")
    ids = [receipt.job_id for receipt in producer.enqueue_many([chat("a"), chat("b")])]
    for held in claim(client, len(ids)):
        settle(client, held, Dead(DeadReason.REJECTED, "no", (), 100))
    health.restore(client, "openai/gpt", who="kira@web")
    pause.pause(client, pause.Scope(tenant="acme"), who="kira@web", why="too many")
    discard(client, Q, ids, who="kira@web")
    text = signed_in(web).get("/").text
    assert re.findall(r"</time>: (.*?)</li>", text) == [
        "kira@web discarded 2 jobs",
        "kira@web paused tenant acme",
        "kira@web put back route openai/gpt",
    ]


def test_what_was_done_in_parts_is_one_act(web: httpx.Client, client: redis.Redis, producer: Producer) -> None:
    pause.pause(client, pause.EVERYTHING, who="kira@web", why="a look")
    ids = [receipt.job_id for receipt in producer.enqueue_many(chat(tenant_id="acme") for _ in range(60))]
    tenant_jobs.cancel(client, Q, "acme", ids, who="kira@web", report=lambda _: None)
    assert [(done(act), act.who) for act in ActsOfPeople(client).since(0)] == [
        ("cancelled acme, 60 jobs", "kira@web"),
        ("paused everything", "kira@web"),
    ]


def test_routes_that_people_took_out_are_the_first_thing_while_jobs_wait(
    web: httpx.Client, client: redis.Redis, workshop: Workshop, producer: Producer
) -> None:
    workshop.worker()
    person = signed_in(web)
    until(lambda: "a/a-1" in person.get("/ui/settings").text, "the worker has told its routes")
    pause.pause(client, pause.Scope(route="a/a-1"), who="kira@web", why="too slow")
    producer.enqueue(chat())
    until(lambda: "No route is in use: 1 job waiting" in person.get("/").text, "the page says it")
    text = person.get("/").text
    assert "by kira@web" in text and "too slow." in text and "Use a/a-1 again" in text


def test_the_form_to_resume_says_who_paused_and_why(web: httpx.Client, client: redis.Redis) -> None:
    pause.pause(client, pause.EVERYTHING, who="kira@web", why="call me before anybody resumes")
    assert "call me before anybody resumes" in signed_in(web).get("/ui/act/resume").text


def test_what_a_role_may_not_do_is_marked_for_the_style(web: httpx.Client, client: redis.Redis) -> None:
    text = signed_in(web, token_of(client, "vera", Role.VIEWER)).get("/").text
    assert '<body class="as-viewer">' in text
    assert re.search(r'<a class="button quiet for-operator" href="/ui/act/pause"', text)
    style = web.get(re.findall(r'href="(/ui/static/style[^"]*)"', text)[0]).text
    assert ".as-viewer .for-operator" in style


def test_settings_say_how_a_route_is_and_offer_to_use_it_again_only_where_it_is_not(
    web: httpx.Client, client: redis.Redis, workshop: Workshop
) -> None:
    workshop.worker()
    person = signed_in(web)
    until(lambda: "a/a-1" in person.get("/ui/settings").text, "the worker has told its routes")
    text = person.get("/ui/settings").text
    assert ">in use</span>" in text and "Use it again" not in text
    pause.pause(client, pause.Scope(route="a/a-1"), who="kira@web", why="too slow")
    text = person.get("/ui/settings").text
    assert "too slow</span>" in text and "Use it again" in text


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


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (
            "Then at once: failover routes enable openai/a",
            "Then at once: “Use it again” of openai/a on the page Settings",
        ),
        ("`failover routes enable` ends it.", "“Use it again” on the page Settings ends it."),
        ("failover routes disable hot/a --for 1h", "“Disable” of hot/a on the page Settings"),
        ("`failover budget reduce --end` ends it.", "“End it” beside cost saving on the page Money ends it."),
        ("`failover budget set tenant:a --hard USD` starts them", "“Cap” of tenant:a on the page Money starts them"),
        ("2 users: `failover budget show --by user`", "2 users: the page Money"),
        ("failover resume --tenant acme --dry-run", "“Resume” on the page Now"),
        ("If one asks, the last command has the text: replace NAME.", "If one asks, “Fill it” below has the text."),
        ("it is failover-worker", "it is failover-worker"),
    ],
)
def test_a_command_that_a_page_has_is_shown_as_its_button(told: str, shown: str) -> None:
    assert by_button(told) == shown


def test_no_incident_sends_a_person_to_a_terminal(web: httpx.Client, client: redis.Redis) -> None:
    lines = ["Fix the key. Then at once: failover routes enable hot/a", "Done: `failover budget reduce --end` ends it."]
    person = signed_in(web)
    for kind in Kind:
        page = person.get(f"/ui/incidents/{opened(client, kind, lines=lines)}").text
        assert "“Use it again” of hot/a on the page Settings" in page
        assert "failover routes" not in page
        assert "failover budget" not in page


def test_review_has_the_question_of_a_dead_letter_but_for_a_long_one(
    web: httpx.Client, client: redis.Redis, producer: Producer
) -> None:
    for text in ("why is the sky blue?", token_hex(100_000)):
        producer.enqueue(chat(text))
    for held in claim(client, 2):
        settle(client, held, Dead(DeadReason.EXHAUSTED, "no", (), 100))
    page = signed_in(web).get("/ui/review").text
    assert "why is the sky blue?" in page
    assert "(long: open it)" in page


def test_every_cause_of_a_dead_letter_has_words() -> None:
    for reason in DeadReason:
        assert cause(reason) != str(reason)
        assert cause(reason).endswith(f"({reason})")


def test_nobody_tells_a_client_that_an_open_incident_is_over(web: httpx.Client, client: redis.Redis) -> None:
    incident = Incidents(client).open(Condition(Kind.SLO_BURN), 1_700_000_000_000, "it burns")
    person = signed_in(web)
    page = person.get(f"/ui/incidents/{incident}").text
    assert '<option value="">choose one</option>' in page
    incident = Incidents(client).open(
        Condition(Kind.SLO_BURN), 1_700_000_000_000, "it burns"
    )  # the web process may end it
    told = person.get("/ui/message", params={"tenant": "acme", "name": "all_clear", "incident": incident})
    assert (told.status_code, "still open" in told.text) == (400, True)


def test_a_route_that_burns_the_budget_can_be_disabled_from_page_now(web: httpx.Client, client: redis.Redis) -> None:
    opened(client, Kind.SLO_BURN, commands=["failover slo show", "failover routes disable 'hot/a b' --for 1h"])
    page = signed_in(web).get("/").text
    assert "Disable hot/a b, which fails most" in page
    assert "/ui/act/disable-route?route=hot%2Fa+b" in page


def test_a_client_is_not_shown_what_a_provider_said(web: httpx.Client, client: redis.Redis, producer: Producer) -> None:
    producer.enqueue(chat(tenant_id="acme"))
    (held,) = claim(client)
    settle(client, held, Dead(DeadReason.REJECTED, "bad_request: Invalid value", (), 100))
    page = signed_in(web, token_of(client, "acme", Role.TENANT, "acme")).get("/ui/mine").text
    assert held.job_id in page
    assert "Invalid value" not in page


def test_status_says_that_nobody_looks_at_an_incident(client: redis.Redis) -> None:
    Incidents(client).open(Condition(Kind.CREDENTIALS, "openai"), 1_700_000_000_000, "it refuses the key")
    (told,) = gather(client, Q).incidents
    assert told.endswith("(as last seen: no worker runs to notice its end)")
    client.set(keyspace.NOTIFIER, "a worker")
    (told,) = gather(client, Q).incidents
    assert "as last seen" not in told
