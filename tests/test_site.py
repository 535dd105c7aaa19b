"""The documentation site: its reference is that of the code, its links lead somewhere. `make docs` builds it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ops.cli import COMMANDS
from ops.web.access import ACCESS
from tests.support import site
from tests.support.documents import ROOT

LINK = re.compile(r"\]\(([^)#\s:]+\.md)?(?:#([^)\s]+))?\)")


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return site.pages()


def slugs(text: str) -> set[str]:
    """The anchors of a page's headings, as Markdown makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[-\s]+", "-", each) for each in plain}


def test_every_link_leads_to_a_page_and_a_heading(pages: dict[str, str]) -> None:
    anchors = {name: slugs(text) for name, text in pages.items()}
    wrong = [
        f"{name}: {page or ''}#{anchor}"
        for name, text in pages.items()
        for page, anchor in LINK.findall(text)
        if (page and page not in pages) or (anchor and anchor not in anchors[page or name])
    ]
    assert wrong == []


def test_every_page_is_in_the_navigation_once(pages: dict[str, str]) -> None:
    text = (ROOT / "docs" / "site" / "mkdocs.yml").read_text()
    listed = re.findall(r"[\w-]+\.md$", yaml.dump(yaml.safe_load(text)["nav"]), re.MULTILINE)
    assert sorted(listed) == sorted(pages)


def test_every_command_and_every_route_is_in_the_reference(pages: dict[str, str]) -> None:
    for name in COMMANDS:
        assert f"\n## failover {name}\n" in pages["commands.md"]
    assert "\n## failover batch run\n" in pages["commands.md"] and "--prompts" in pages["commands.md"]
    for method, route in ACCESS:
        heading = f"## {method} {route.replace(':path}', '}')}\n"
        assert heading in pages["http-routes.md"] or not in_document(method, route), heading
    assert "`not_before`" in pages["http-routes.md"]
    assert "missed     of the times that passed" in pages["files.md"]


def in_document(method: str, route: str) -> bool:
    return method.lower() in site.openapi()["paths"].get(route.replace(":path}", "}"), {})


def test_code_is_named_without_a_link(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("A job is an [LLMJob](../producer/job.py), see [x](https://example.com/a.md).")
    assert site.linked(tmp_path / "a.md") == "A job is an LLMJob, see [x](https://example.com/a.md)."
