"""examples/travel-mode in a real browser that loses its network, in front of a real web process and worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from ops.simulators import provider
from producer import keyspace
from tests.support import browser as browsers
from tests.support.browser import hard_to_read, watched
from tests.support.polling import until
from tests.support.transitions import Q
from tests.support.travel import CODES, Travel, ask, item, kept, offline, online, opened, running, sign_in, sync

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(browsers.CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
]

TEN = [f"question {number}" for number in range(10)]
SLOW = (1.0, 1.0)  # seconds until the provider answers


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers.running() as running:
        yield running


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory, provider_server: provider.Control) -> Iterator[Travel]:
    with running(tmp_path_factory.mktemp("travel"), provider_server) as travel:
        yield travel


@pytest.fixture
def travel(everything: Travel, providers: provider.Control) -> Travel:
    """With nothing asked yet."""
    del providers  # it has forgotten everything
    everything.client.delete(keyspace.finished(Q))
    return everything


@pytest.fixture
def context(browser: Browser, travel: Travel) -> Iterator[BrowserContext]:
    """A browser's profile, on a phone."""
    context = browser.new_context(base_url=travel.url, viewport={"width": 390, "height": 844})
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return sign_in(opened(context))


def test_ten_questions_asked_offline_are_each_answered_and_paid_once(page: Page, travel: Travel) -> None:
    offline(page)
    for question in TEN:
        ask(page, question)
    expect(page.get_by_role("status")).to_have_text(
        "Offline. 10 questions wait, and will be sent when the network is back."
    )
    page.reload()
    expect(page.get_by_role("listitem")).to_have_count(10)
    expect(page.get_by_role("status")).to_contain_text("Offline. 10 questions wait")
    assert travel.done() == 0
    online(page)
    for question in TEN:
        expect(item(page, question).locator(".answer")).to_have_text(f"You said: {question}")
    assert (travel.done(), travel.paid()) == (10, 10)


def test_the_last_good_answer_is_served_offline_with_its_age(page: Page, travel: Travel) -> None:
    expect(ask(page, "Where is Lisbon?").locator(".answer")).to_have_text("You said: Where is Lisbon?")
    offline(page)
    again = ask(page, "where is  LISBON? ")  # the same after its normalization
    expect(again.locator(".answer")).to_have_text("You said: Where is Lisbon?")
    expect(again.locator(".note")).to_have_text(
        "From this device, less than a minute old: no newer answer can be had now."
    )
    page.reload()
    expect(page.get_by_role("listitem")).to_have_count(1)
    expect(page.locator(".note")).to_have_text("From this device, less than a minute old.")
    other = ask(page, "Where is Porto?")
    expect(other.locator(".note")).to_contain_text("Waits for an answer.")
    online(page)
    assert travel.paid() == 2  # Lisbon is not asked again


def test_with_network_the_answer_is_a_new_one(page: Page, travel: Travel) -> None:
    travel.workshop.providers.behave("a", text="first")
    expect(ask(page, "news").locator(".answer")).to_have_text("first")
    travel.workshop.providers.behave("a", text="second")
    expect(ask(page, "news").locator(".answer")).to_have_text("second")
    assert [answer["completion"]["choices"][0]["message"]["content"] for answer in kept(page)] == ["second"]


def test_another_tenant_sees_nothing_of_the_first(page: Page, context: BrowserContext) -> None:
    ask(page, "What does acme plan?")
    expect(page.locator(".answer")).to_have_text("You said: What does acme plan?")
    tab = context.new_page()
    tab.goto("/")
    expect(item(tab, "What does acme plan?")).to_be_visible()
    context.clear_cookies()  # the session is over, nobody has signed out
    tab.reload()
    sign_in(tab, "globex")
    assert kept(tab) == []
    addresses = (
        "Promise.all(['acme', 'globex'].map((tenant) => addressOf(tenant, 'places', [{ content: 'the same' }])))"
    )
    assert len(set(tab.evaluate(addresses))) == 2
    expect(page.locator("#tenant")).to_have_text("globex")  # in the other tab too
    expect(page.get_by_role("listitem")).to_have_count(0)
    offline(tab)
    expect(ask(tab, "What does acme plan?").locator(".note")).to_contain_text("Waits for an answer.")


def test_a_question_is_never_sent_for_another_tenant(page: Page, context: BrowserContext, travel: Travel) -> None:
    offline(page)
    ask(page, "of acme")
    context.clear_cookies()
    with httpx.Client(base_url=travel.url, trust_env=False) as http:
        cookie = http.post("/sign-in", headers={"x-access-code": CODES["globex"]}).cookies["travel-mode"]
    context.add_cookies([{"name": "travel-mode", "value": cookie, "url": travel.url}])
    context.set_offline(False)
    expect(page.locator("#tenant")).to_have_text("globex")
    expect(page.get_by_role("listitem")).to_have_count(0)
    assert travel.paid() == 0


@pytest.mark.parametrize("choice", [{"about": "client"}, {"private": True}], ids=["by the policy", "by the person"])
def test_a_private_answer_is_not_kept(page: Page, travel: Travel, choice: dict[str, Any]) -> None:
    asked = ask(page, "secret", **choice)
    expect(asked.locator(".answer")).to_have_text("You said: secret")
    assert kept(page) == []
    offline(page)
    expect(ask(page, "secret").locator(".note")).to_contain_text("Waits for an answer.")
    online(page)
    page.reload()
    assert [answer["question"] for answer in kept(page)] == ["secret"]  # the last one, which is not private


@pytest.mark.parametrize(
    ("feature", "control", "count"), [("client", "no-store", 0), ("places", f"private, max-age={72 * 3600}", 1)]
)
def test_only_what_the_policy_allows_is_kept(page: Page, feature: str, control: str, count: int) -> None:
    said = page.evaluate(
        "async (feature) => { const question = { id: 'k', tenant: 'acme', feature, text: 'hello', private: false };"
        " return (await fetch(requestOf(question))).headers.get('cache-control') }",
        feature,
    )
    assert (said, len(kept(page))) == (control, count)


def test_the_answer_of_a_feature_that_is_private_now_is_deleted(page: Page) -> None:
    expect(ask(page, "secret now").locator(".answer")).to_have_text("You said: secret now")
    page.route(
        "**/session",
        lambda route: route.fulfill(
            json={
                "tenant": "acme",
                "features": [{"name": "places", "label": "Places", "private": True}],
            }
        ),
    )
    page.reload()
    until(lambda: kept(page) == [], "it is deleted")
    expect(page.get_by_label("Private")).to_be_checked()


def test_questions_survive_a_closed_page(page: Page, context: BrowserContext, travel: Travel) -> None:
    offline(page)
    for question in TEN[:3]:
        ask(page, question)
    page.close()
    later = context.new_page()
    later.goto("/")  # from the device
    expect(later.get_by_role("status")).to_contain_text("Offline. 3 questions wait")
    online(later)
    for question in TEN[:3]:
        expect(item(later, question).locator(".answer")).to_have_text(f"You said: {question}")
    assert travel.paid() == 3


def test_a_closed_page_is_sent_in_the_background(page: Page, context: BrowserContext, travel: Travel) -> None:
    offline(page)
    ask(page, "while it was closed")
    ask(page, "a secret", about="client")
    other = context.new_page()
    other.goto("/icon.svg")  # of the same origin, and without the app
    page.close()
    context.set_offline(False)
    sync(context, other, travel.url)
    until(lambda: travel.done() == 2, "both are answered")
    until(lambda: [answer["question"] for answer in kept(other)] == ["while it was closed"], "one answer is kept")
    later = opened(context)
    for question in ("while it was closed", "a secret"):
        expect(item(later, question).locator(".answer")).to_have_text(f"You said: {question}")
    assert (travel.done(), travel.paid()) == (2, 2)


def test_a_lost_reply_is_paid_once(page: Page, travel: Travel) -> None:
    travel.workshop.providers.behave("a", latency=SLOW)
    asked = ask(page, "Who pays?")
    until(lambda: travel.paid() == 1, "the provider works on it")
    travel.kill()
    expect(page.get_by_role("status")).to_contain_text("Offline. 1 question waits")
    until(lambda: travel.done() == 1, "it is answered, and nobody has read it")
    travel.start()
    expect(asked.locator(".answer")).to_have_text("You said: Who pays?", timeout=20_000)
    assert (travel.done(), travel.paid()) == (1, 1)


def test_a_reload_while_it_is_answered_is_paid_once(page: Page, travel: Travel) -> None:
    travel.workshop.providers.behave("a", latency=SLOW)
    ask(page, "Who pays?", about="client")
    until(lambda: travel.paid() == 1, "the provider works on it")
    page.reload()
    expect(item(page, "Who pays?").locator(".answer")).to_have_text("You said: Who pays?", timeout=20_000)
    assert (travel.done(), travel.paid()) == (1, 1)


def test_a_double_click_asks_once(page: Page, travel: Travel) -> None:
    page.get_by_label("Your question").fill("once")
    page.get_by_role("button", name="Ask").dblclick()
    expect(item(page, "once").locator(".answer")).to_have_text("You said: once")
    expect(page.get_by_role("listitem")).to_have_count(1)
    assert travel.paid() == 1


def test_several_tabs_show_the_same_and_send_once(page: Page, context: BrowserContext, travel: Travel) -> None:
    second = opened(context)
    offline(page)
    ask(page, "from the first")
    ask(second, "from the second")
    online(page)
    for tab in (page, second):
        for text in ("from the first", "from the second"):
            expect(item(tab, text).locator(".answer")).to_have_text(f"You said: {text}")
    assert travel.paid() == 2


def test_a_provider_that_refuses_is_no_reason_to_ask_again(page: Page, travel: Travel) -> None:
    travel.workshop.providers.behave("a", status=400, error={"message": "no such thing"})
    asked = ask(page, "Refuse me")
    expect(asked.locator(".note")).to_have_text("Not answered.")
    page.reload()
    expect(page.get_by_role("listitem")).to_have_count(0)
    assert travel.paid() == 1


def test_a_sign_out_leaves_nothing_on_the_device_also_offline(page: Page, context: BrowserContext) -> None:
    expect(ask(page, "Where is Lisbon?").locator(".answer")).not_to_be_empty()
    offline(page)
    ask(page, "and Porto?")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Your access code")).to_be_visible()
    assert kept(page) == []
    context.set_offline(False)
    until(lambda: context.cookies() == [], "the session ends once there is network")
    page.reload()
    sign_in(page)
    expect(page.get_by_role("listitem")).to_have_count(0)


def test_an_answer_that_comes_after_the_sign_out_is_not_kept(page: Page, travel: Travel) -> None:
    travel.workshop.providers.behave("a", latency=SLOW)
    with page.expect_response("**/v1/chat/completions") as answer:
        ask(page, "too late")
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Your access code")).to_be_visible()
    assert (answer.value.status, travel.done()) == (200, 1)
    sign_in(page)
    expect(page.get_by_role("listitem")).to_have_count(0)
    assert kept(page) == []


def test_an_ended_session_keeps_the_questions_for_their_tenant(page: Page, context: BrowserContext) -> None:
    offline(page)
    ask(page, "Do not lose me")
    context.clear_cookies()
    context.set_offline(False)
    expect(page.get_by_label("Your access code")).to_be_visible()
    expect(page.get_by_text("Do not lose me")).to_have_count(0)
    sign_in(page)
    expect(item(page, "Do not lose me").locator(".answer")).to_have_text("You said: Do not lose me")


def test_questions_and_answers_are_bounded(page: Page) -> None:
    page.evaluate("() => { LIMITS.waiting.entries = 2; LIMITS.kept.entries = 1 }")
    page.evaluate(
        "async () => { for (const text of ['old', 'older']) await keep(`/kept/${text}`, { tenant: 'acme', feature: 'places',"
        " question: text, completion: {}, kept_at: 1, kept_until: Date.now() + (text === 'old' ? 1e6 : -1) }) }"
    )
    assert [answer["question"] for answer in kept(page)] == ["old"]
    offline(page)
    ask(page, "one")
    ask(page, "two")
    page.get_by_label("Your question").fill("three")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("alert").last).to_contain_text("Not stored: at most 2 questions, or 200 kB, can wait")
    expect(page.get_by_label("Your question")).to_have_value("three")  # nothing is lost in silence
    item(page, "one").get_by_role("button", name="Remove").click()
    expect(page.get_by_role("listitem")).to_have_count(1)
    page.evaluate(
        "async () => { const [two] = await allWaiting(); two.asked_at -= 4 * DAY;"
        " await transact('readwrite', ({ waiting }) => waiting.put(two)) }"
    )
    online(page)
    expect(item(page, "two")).to_contain_text("It waited for more than 3 days")
    expect(page.get_by_text("one", exact=True)).to_have_count(0)


def test_a_device_that_is_full_shows_answers_and_says_what_it_cannot_store(page: Page, travel: Travel) -> None:
    travel.workshop.providers.behave("a", latency=SLOW)
    asked = ask(page, "before it was full")
    devtools = page.context.new_cdp_session(page)
    devtools.send("Storage.overrideQuotaForOrigin", {"origin": travel.url, "quotaSize": 1})
    expect(asked.locator(".answer")).to_have_text("You said: before it was full")
    assert kept(page) == []
    page.evaluate("async () => (await database()).close()")
    page.get_by_label("Your question").fill("after that")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("alert").last).to_contain_text("Not stored: the storage of this browser is full or off")
    expect(page.get_by_label("Your question")).to_have_value("after that")
    assert travel.paid() == 1


def test_an_answer_is_text(page: Page, travel: Travel) -> None:
    complaints = watched(page)
    markup = "<img src=x onerror=alert(1)><b>bold</b>"
    travel.workshop.providers.behave("a", text=markup)
    expect(ask(page, "<i>markup</i>").locator(".answer")).to_have_text(markup)
    page.reload()
    expect(page.locator(".answer")).to_have_text(markup)
    expect(page.locator("main img, main b, main i")).to_have_count(0)
    assert complaints == []


def test_everybody_can_read_it_on_a_phone(page: Page) -> None:
    ask(page, "w" * 300)
    expect(page.locator(".answer")).not_to_be_empty()
    assert hard_to_read(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    offline(page)
    assert hard_to_read(page) == []
