"""`python -m tests.support.site_search .site/html`: searches the built site as a reader does, in Chromium; `make docs` runs it.

Exit code 1 if a search does not lead to its page, or a page loads anything from another host.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import sys
import threading

from playwright.sync_api import Page, Request, TimeoutError

from tests.support.browser import CHROMIUM, running

TRIES = 4
SEARCHES = {"canary": "dead-letters/", "BYPASS_ROUTER": "routing/", "Celery": "coming-from/"}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def _leads(page: Page, words: str, wanted: str) -> bool:
    """Whether a search for the words lists the wanted page. The box may miss what is typed while the page begins."""
    found = page.locator(f".md-search-result__item a[href*='{wanted}']").first
    for _ in range(TRIES):
        page.locator("input.md-search__input").fill("")
        page.locator("input.md-search__input").press_sequentially(words)
        with contextlib.suppress(TimeoutError):
            found.wait_for(state="attached", timeout=10_000)
            return True
    return False


def main(folder: str) -> int:
    if CHROMIUM is None:
        print("no Chromium here: the site's search was not tried")
        return 0
    wrong, foreign = [], []
    handler = functools.partial(_Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, running() as browser:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        own = f"http://127.0.0.1:{server.server_address[1]}/"
        page = browser.new_page()

        def note(request: Request) -> None:
            if not request.url.startswith((own, "data:", "blob:")):
                foreign.append(request.url)

        page.on("request", note)
        page.goto(own)
        page.locator("input.md-search__input").click()
        page.locator(".md-search-result__meta", has_text="Type to start searching").wait_for(
            timeout=60_000
        )  # the index is there
        for words, wanted in SEARCHES.items():
            if not _leads(page, words, wanted):
                wrong.append(f"{words}: not to {wanted}")
        server.shutdown()
    for each in wrong:
        print(f"a search does not find its page: {each}")
    for each in foreign:
        print(f"loaded from another host: {each}")
    return 1 if wrong or foreign else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
