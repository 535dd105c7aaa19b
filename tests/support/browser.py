"""Debian's Chromium, driven by Playwright: what a page looks like, and whether a screen reader can read it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SERIOUS = ("serious", "critical")


@contextlib.contextmanager
def running() -> Iterator[Browser]:
    """A browser of its own."""
    assert CHROMIUM is not None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


def watched(page: Page) -> list[str]:
    """What the page's console complains of from now on."""
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors


def hard_to_read(page: Page, *rules: str) -> list[str]:
    """What axe-core finds that is serious: missing labels, weak contrast, wrong roles. `rules`: only by these."""
    spec = find_spec("axe_playwright_python")
    assert spec is not None and spec.origin is not None
    page.evaluate(
        (Path(spec.origin).parent / "axe.min.js").read_text()
    )  # not a script of the page: its CSP forbids those
    found: dict[str, Any] = page.evaluate("(rules) => axe.run(rules.length ? {runOnly: rules} : {})", list(rules))
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found["violations"] if each["impact"] in SERIOUS
    ]
