"""The server of examples/travel-mode, and what a traveller does in a browser."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import redis
from playwright.sync_api import BrowserContext, Locator, Page, expect

from bench.throughput import free_port
from ops.local import embedded
from ops.simulators import provider
from producer import keyspace
from producer.connection import connect
from tests.support.documents import ROOT
from tests.support.polling import until
from tests.support.transitions import Q
from tests.support.web import TOKEN, served
from tests.support.workshop import Workshop, workshop_in

SERVER = str(ROOT / "examples" / "travel-mode" / "server.py")
CODES = {"acme": "the-code-of-acme-1", "globex": "the-code-of-globex"}


@dataclass
class Travel:
    """The server of the page, which can be killed and started again. `web`: the URL of the web process behind it."""

    workshop: Workshop
    client: redis.Redis
    web: str
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, **environment: str) -> None:
        codes = ", ".join(f"{tenant}={code}" for tenant, code in CODES.items())
        ours = {"FAILOVER_URL": f"{self.web}/v1", "FAILOVER_API_TOKEN": TOKEN, "TRAVEL_CODES": codes}
        process = self.workshop.start("python", SERVER, PORT=str(self.port), **{**ours, **environment})

        def serves() -> bool:
            assert process.poll() is None, self.workshop.log(process)
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(self.url, trust_env=False).status_code == 200
            return False

        until(serves, "the page is served")
        self.process = process

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def done(self) -> int:
        """Jobs that were answered."""
        return int(self.client.zcard(keyspace.finished(Q)))

    def paid(self) -> int:
        """Calls that the provider got."""
        return int(self.workshop.providers.account("a")["asked"])


@contextlib.contextmanager
def running(folder: Path, providers: provider.Control) -> Iterator[Travel]:
    """The server of the page, with a web process and a worker behind it whose one provider is `a`."""
    with (
        embedded.running(folder / "valkey") as url,
        workshop_in(folder, url, providers) as workshop,
        connect(url) as client,
    ):
        workshop.routes(hot=[{"upstream": "a"}])
        workshop.policy()
        workshop.worker()
        with served(workshop) as web:
            travel = Travel(workshop, client, str(web.base_url).rstrip("/"))
            travel.start()
            yield travel


def opened(context: BrowserContext) -> Page:
    """The page, with its service worker."""
    page = context.new_page()
    page.goto("/")
    until(lambda: page.evaluate("navigator.serviceWorker.controller?.state === 'activated'"), "the worker serves it")
    return page


def sign_in(page: Page, tenant: str = "acme") -> Page:
    page.get_by_label("Your access code").fill(CODES[tenant])
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#tenant")).to_have_text(tenant)
    return page


def ask(page: Page, text: str, *, about: str = "places", private: bool = False) -> Locator:
    """Ask; the newest item with this question, which may be answered or not."""
    page.get_by_label("About").select_option(about)
    if private:
        page.get_by_label("Private").check()
    before = page.get_by_role("listitem").count()
    page.get_by_label("Your question").fill(text)
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("listitem")).to_have_count(before + 1)
    return item(page, text)


def item(page: Page, text: str) -> Locator:
    return page.get_by_role("listitem").filter(has=page.get_by_text(text, exact=True)).first


def kept(page: Page) -> list[dict[str, Any]]:
    """Every answer in the browser's cache."""
    answers: list[dict[str, Any]] = page.evaluate(
        "async () => { const cache = await caches.open('answers'); const all = [];"
        " for (const each of await cache.keys()) all.push(await (await cache.match(each)).json()); return all }"
    )
    return answers


def offline(page: Page) -> None:
    page.context.set_offline(True)
    expect(page.get_by_role("status")).to_contain_text("Offline.")


def online(page: Page) -> None:
    page.context.set_offline(False)
    expect(page.get_by_role("status")).to_have_text("Back online. Nothing waits any more.", timeout=20_000)


def sync(context: BrowserContext, page: Page, origin: str) -> None:
    """What the browser does once it has network again: Background Sync."""
    devtools = context.new_cdp_session(page)
    registrations: list[dict[str, Any]] = []
    devtools.on("ServiceWorker.workerRegistrationUpdated", lambda event: registrations.extend(event["registrations"]))
    devtools.send("ServiceWorker.enable")
    until(lambda: page.evaluate("1") and registrations, "the worker is known")  # an evaluation lets events in
    devtools.send(
        "ServiceWorker.dispatchSyncEvent",
        {"origin": origin, "registrationId": registrations[0]["registrationId"], "tag": "waiting", "lastChance": False},
    )
