"""The pages as a person without a terminal uses them: in a real browser, against real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
import redis
from playwright.sync_api import Browser, expect

from ops.simulators import provider
from producer import Producer, keyspace
from producer.job import DeadReason, JobStatus
from tests.support import browser as browsers
from tests.support.browser import hard_to_read
from tests.support.jobs import chat, results
from tests.support.pages import PAGES, visitor
from tests.support.polling import until
from tests.support.transitions import Q, claim, settle
from tests.support.web import TOKEN, served
from tests.support.workshop import Workshop
from worker.control import pause, tokens
from worker.control.tokens import Role, Token
from worker.notify.condition import Condition
from worker.notify.incidents import Incidents
from worker.notify.kinds import Kind
from worker.queue import dead_letters
from worker.queue.outcomes import Dead

SCRIPT = "<script>alert('x')</script>"

pytestmark = pytest.mark.skipif(browsers.CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers.running() as running:
        yield running


def buried(client: redis.Redis, producer: Producer, count: int, detail: str = "no", tenant: str = "acme") -> list[str]:
    """Dead letters."""
    jobs = [chat(f"question {number} {SCRIPT}", tenant_id=tenant) for number in range(count)]
    ids = [receipt.job_id for receipt in producer.enqueue_many(jobs)]
    for held in claim(client, count):
        settle(client, held, Dead(DeadReason.EXHAUSTED, detail, (), 100))
    return ids


def test_an_outage_is_seen_live_and_its_end_too(
    browser: Browser, web: httpx.Client, workshop: Workshop, producer: Producer, providers: provider.Control
) -> None:
    workshop.worker()
    producer.enqueue(chat("before"))
    with visitor(browser, web) as page:
        headline = page.locator("#headline h2")
        expect(headline).to_have_text("All is well")
        expect(page.locator("#live")).to_contain_text("Live")
        providers.behave("a", status=503)
        providers.behave("b", status=503)
        producer.enqueue_many([chat(f"during {number}") for number in range(12)])
        expect(headline).to_contain_text("All AI providers are down", timeout=30_000)
        expect(page.locator("#work")).to_contain_text("parked or retried")
        providers.forget()
        expect(page.get_by_role("link", name="Use it again").first).to_be_visible()
        page.get_by_role("link", name="Use it again").first.click()
        page.get_by_role("button", name="Use it again").click()
        expect(page.get_by_role("dialog")).to_contain_text("In use again")
        page.get_by_role("button", name="Close").click()
        expect(page.locator("#routes")).to_contain_text("■", timeout=30_000)
        until(lambda: producer.client.zcard(keyspace.scheduled(Q)) == 0, "the jobs that waited are done")


def test_a_dead_letter_is_requeued_and_done(
    browser: Browser, web: httpx.Client, workshop: Workshop, client: redis.Redis, producer: Producer
) -> None:
    ids = buried(client, producer, 3)
    workshop.routes(hot=[{"upstream": "a", "price": {"input": 3, "output": 15}}])
    workshop.worker()
    with visitor(browser, web) as page:
        page.get_by_role("link", name="See why, then requeue or answer them").first.click()
        page.get_by_label(f"Choose {ids[0]}").check()
        page.get_by_role("button", name="Requeue the chosen").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Requeue 1 dead letter?")
        expect(dialog).to_contain_text("would start: about $")
        dialog.get_by_role("button", name="Requeue").click()
        expect(dialog).to_contain_text("1 requeued")
        assert producer.wait(ids[0], 20).status is JobStatus.DONE
        page.get_by_role("button", name="Close").click()
        expect(page.locator("main")).not_to_contain_text(ids[0])
    assert [producer.fetch(job_id).status for job_id in ids[1:]] == [JobStatus.DEAD] * 2


def test_many_are_requeued_after_a_canary_which_page_and_redis_tell(
    browser: Browser, web: httpx.Client, workshop: Workshop, client: redis.Redis, producer: Producer
) -> None:
    ids = buried(client, producer, 30)
    workshop.worker()
    with visitor(browser, web, phone=True) as page:
        page.goto("/ui/dead-letters")
        page.get_by_role("link", name="Requeue all 30").click()
        expect(page.get_by_label("First try this many")).to_have_value("5")
        page.get_by_role("dialog").get_by_role("button", name="Requeue").click()
        expect(page.get_by_role("dialog")).to_contain_text("the requeue has begun")
        until(lambda: client.zcard(keyspace.finished(Q)) == len(ids), "all are done")
        until(lambda: b'"ended": "done"' in (client.get(keyspace.REQUEUING) or b""), "the requeue has ended")
        page.goto("/ui/dead-letters")
        expect(page.locator("main")).to_contain_text("Maria@web requeues 30 jobs: 30 requeued; done.")
    assert 0 < client.ttl(keyspace.REQUEUING) <= 3600


def test_a_canary_that_fails_stops_the_rest(
    browser: Browser,
    web: httpx.Client,
    workshop: Workshop,
    client: redis.Redis,
    producer: Producer,
    providers: provider.Control,
) -> None:
    buried(client, producer, 20)
    for upstream in ("a", "b"):
        providers.behave(
            upstream, status=400, error={"message": "no", "type": "invalid_request_error", "param": "messages"}
        )
    workshop.worker()
    with visitor(browser, web) as page:
        page.goto("/ui/dead-letters")
        page.get_by_role("link", name="Requeue all 20").click()
        page.get_by_role("dialog").get_by_role("button", name="Requeue").click()
        expect(page.get_by_role("dialog")).to_contain_text("the requeue has begun")
        until(lambda: b"the canary failed" in (client.get(keyspace.REQUEUING) or b""), "the canary fails")
        page.goto("/ui/dead-letters")
        expect(page.locator("main")).to_contain_text("the canary failed, nothing more was requeued")
    assert client.zcard(keyspace.failed(Q)) == 20


def test_an_answer_is_handed_in_by_a_reviewer(
    browser: Browser, web: httpx.Client, client: redis.Redis, producer: Producer
) -> None:
    (job_id,) = buried(client, producer, 1)
    secret = tokens.new_secret()
    tokens.create(client, Token(name="vera", role=Role.REVIEWER, sha256=tokens.hash_of(secret), by="test"))
    with visitor(browser, web, secret) as page:
        page.goto(f"/ui/jobs/{job_id}")
        expect(page.get_by_role("link", name="Requeue")).to_have_count(0)
        page.get_by_role("link", name="Answer by hand").click()
        expect(page.locator(".given").first).to_have_text(f"question 0 {SCRIPT}")
        page.get_by_label("Your answer").fill("Forty-two.")
        page.get_by_role("button", name="Hand in the answer").click()
        expect(page.locator("h1")).to_have_text("The answer is handed in")
        assert "acme" in page.get_by_label("The text to copy").input_value()
        page.get_by_role("button", name="Copy the text").click()
        expect(page.locator(".said")).to_have_text("Copied.")
    assert (producer.fetch(job_id).text, producer.fetch(job_id).resolved_by) == ("Forty-two.", "human")


def test_everything_is_paused_and_resumed_after_a_look_at_what_it_costs(
    browser: Browser, web: httpx.Client, workshop: Workshop, client: redis.Redis, producer: Producer
) -> None:
    workshop.worker()
    with visitor(browser, web) as page:
        page.get_by_role("link", name="Pause everything").click()
        page.get_by_label("Why?").fill("looking at the bill")
        page.get_by_role("button", name="Pause everything").click()
        expect(page.get_by_role("dialog")).to_contain_text("Paused: everything")
        page.get_by_role("button", name="Close").click()
        expect(page.locator("#work")).to_contain_text("looking at the bill")
        ids = [producer.enqueue(chat(f"waits {number}")) for number in range(3)]
        expect(page.locator("#work dl")).to_contain_text("3", timeout=10_000)
        page.locator("#work").get_by_role("link", name="Resume").click()
        expect(page.get_by_role("dialog")).to_contain_text("3 jobs would start")
        page.get_by_role("button", name="Resume everything").click()
        expect(page.get_by_role("dialog")).to_contain_text("Resumed: everything")
        assert {result.status for result in results(producer, ids)} == {JobStatus.DONE}
    assert pause.paused(client, [Q]) == []


def test_a_cap_is_raised_with_its_effect_shown_first(browser: Browser, web: httpx.Client, client: redis.Redis) -> None:
    with visitor(browser, web) as page:
        page.goto("/ui/money")
        page.get_by_label("Set a cap for").fill("tenant:acme")
        page.get_by_role("button", name="Next").click()
        expect(page.get_by_role("dialog")).to_contain_text("tenant:acme has spent $0.00 this month")
        page.get_by_label("Never spend more than this").fill("60")
        page.get_by_role("button", name="Set the cap").click()
        expect(page.get_by_role("dialog")).to_contain_text("hard $60.00")
        page.get_by_role("button", name="Close").click()
        expect(page.locator("main")).to_contain_text("by Maria@web")
        page.get_by_role("link", name="As in the file").click()
        page.get_by_role("button", name="Use the cap of the file").click()
        expect(page.get_by_role("dialog")).to_contain_text("tenant:acme: no cap")
    assert json.loads(client.hget(keyspace.BUDGETS, "tenant:acme") or b"{}") == {}


def test_an_incident_has_the_text_for_the_client(
    browser: Browser, web: httpx.Client, client: redis.Redis, producer: Producer
) -> None:
    buried(client, producer, 2)
    incidents = Incidents(client)
    incidents.fold([Q], None, keep_saved=False)
    (incident,) = incidents.unsettled()
    with visitor(browser, web, phone=True) as page:
        page.goto(f"/ui/incidents/{incident.id}")
        page.get_by_role("link", name="The message for acme").click()
        assert "acme" in page.get_by_label("The text to copy").input_value().lower()
        page.get_by_role("button", name="Close").click()
        page.get_by_role("link", name="Silence its messages").click()
        page.get_by_role("button", name="Silence").click()
        expect(page.get_by_role("dialog")).to_contain_text("Silenced")
        page.get_by_role("button", name="Close").click()
        expect(page.locator("main")).to_contain_text("Silenced by Maria@web")
    assert incidents.silenced([incident])


def test_the_text_of_tenants_and_providers_is_text(
    browser: Browser, web: httpx.Client, client: redis.Redis, producer: Producer
) -> None:
    (job_id,) = buried(client, producer, 1, detail=f"the last: {SCRIPT}")
    Incidents(client).open(Condition(Kind.PAUSED, SCRIPT, Q), 1_700_000_000_000, SCRIPT)
    with visitor(browser, web) as page:
        page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
        for path in (
            *PAGES,
            f"/ui/jobs/{job_id}",
            f"/ui/review/{job_id}",
            f"/ui/jobs?tenant={SCRIPT}",
            f"/ui/act/answer?id={job_id}",
        ):
            page.goto(path)
            assert page.locator("script:not([src])").count() == 0, path
        page.goto(f"/ui/jobs/{job_id}")
        expect(page.locator("main")).to_contain_text(f"the last: {SCRIPT}")


@pytest.mark.parametrize("dark", [False, True])
def test_every_page_can_be_read_and_fits_a_phone(
    browser: Browser, web: httpx.Client, workshop: Workshop, client: redis.Redis, producer: Producer, dark: bool
) -> None:
    """In the dark, only colours are another matter."""
    (job_id, *_) = buried(client, producer, 3)
    incident = Incidents(client).open(Condition(Kind.COLD, queue=Q), 1_700_000_000_000, "All providers are down")
    workshop.worker()
    acts = ("/ui/act/pause", f"/ui/act/requeue?id={job_id}", "/ui/act/set-cap?scope=total")
    with visitor(browser, web, phone=True, dark=dark) as page:
        for path in (*PAGES, f"/ui/jobs/{job_id}", f"/ui/review/{job_id}", f"/ui/incidents/{incident}", *acts):
            page.goto(path)
            assert hard_to_read(page, *(["color-contrast"] if dark else [])) == [], path
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


def test_without_scripts_every_page_reads_and_acts(
    browser: Browser, web: httpx.Client, client: redis.Redis, producer: Producer
) -> None:
    (job_id,) = buried(client, producer, 1)
    with visitor(browser, web, script=False) as page:
        for path in PAGES:
            page.goto(path)
            expect(page.locator("h1").first).to_be_attached()
        page.goto(f"/ui/jobs/{job_id}")
        page.get_by_role("link", name="Discard").click()
        page.get_by_role("button", name="Discard for good").click()
        expect(page.locator("h1")).to_have_text("1 dead letter discarded")
        page.goto("/ui/history")
        page.get_by_text("The figures of jobs", exact=True).click()
    assert dead_letters.stats(client, Q).total == 0


def test_a_lost_connection_is_told_and_made_again(browser: Browser, workshop: Workshop) -> None:
    with served(workshop) as web, visitor(browser, web, complains=True) as page:
        live = page.locator("#live")
        expect(live).to_contain_text("Live")
        serving = workshop.processes[-1]
        serving.terminate()
        serving.wait(30)
        expect(live).to_contain_text("The connection is lost", timeout=20_000)
        workshop.start("failover", "serve", PORT=str(web.base_url.port), FAILOVER_API_TOKEN=TOKEN)
        expect(live).to_contain_text("Live", timeout=30_000)


def test_a_late_job_is_answered_from_page_now_whatever_its_policy(
    browser: Browser, web: httpx.Client, workshop: Workshop, client: redis.Redis, producer: Producer
) -> None:
    """The policy of these tests has no `human_review`, as the default has none."""
    job_id = producer.enqueue(chat("where is my parcel?"))
    client.zadd(keyspace.promised(Q), {job_id: 1})
    Incidents(client).open(Condition(Kind.LATE, queue=Q), 1_700_000_000_000, "acme waits")
    with visitor(browser, web, phone=True) as page:
        page.locator("#headline").get_by_role("link", name="Answer by hand what cannot wait").click()
        page.get_by_role("link", name=job_id).click()
        page.get_by_label("Your answer").fill("It comes on Friday.")
        page.get_by_role("button", name="Hand in the answer").click()
        expect(page.locator("h1")).to_have_text("The answer is handed in")
    assert producer.fetch(job_id).text == "It comes on Friday."
