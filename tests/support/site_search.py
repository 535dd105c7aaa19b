"""`python -m tests.support.site_search .site/html`: searches the built site as a reader does, in Chromium; `make docs` runs it.

Exit code 1 if a search does not lead to its page, or a page loads anything from another host.
"""

from __future__ import annotations

import functools
import http.server
import sys
import threading

from playwright.sync_api import Request

from tests.support.browser import CHROMIUM, running

SEARCHES = {"canary": "dead-letters/", "BYPASS_ROUTER": "routing/", "Celery": "coming-from/"}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


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
        for words, wanted in SEARCHES.items():
            page.goto(own)
            page.locator("input.md-search__input").click()
            page.locator(".md-search-result__meta", has_text="Type to start searching").wait_for()  # the index is there
            page.locator("input.md-search__input").fill(words)
            results = page.locator(".md-search-result__item a.md-search-result__link")
            results.first.wait_for(timeout=20_000)
            links = [link.get_attribute("href") or "" for link in results.all()]
            if not any(wanted in link for link in links):
                wrong.append(f"{words}: {links[:5]}")
        server.shutdown()
    for each in wrong:
        print(f"a search does not find its page: {each}")
    for each in foreign:
        print(f"loaded from another host: {each}")
    return 1 if wrong or foreign else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
