"""The pages of the documentation site: the documents with their links, and a reference made from the code.

`python -m tests.support.site FOLDER` writes them; `make docs` builds the site (docs/site/mkdocs.yml).
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from fastapi import FastAPI

from ops.cli import failover
from ops.web.app import create_app
from ops.web.draining import Draining
from ops.web.settings import Settings
from producer.client import AsyncProducer
from producer.connection import connect
from producer.policy import load_policies
from tests.support.documents import ROOT
from worker.cli import command as failover_worker
from worker.money.billing_alerts import Guardrail

SHOWN: dict[str, Any] = {"terminal_width": 100, "max_content_width": 100, "help_option_names": ["-h", "--help"]}
NOWHERE = "redis://localhost:1"  # the document of the web process is made without Redis
_LINK = re.compile(r"\[([^\]\n]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
PAGES = {
    ROOT / "README.md": "index.md",
    ROOT / "runbook.md": "runbook.md",
    ROOT / "CHANGELOG.md": "changelog.md",
    ROOT / "CONTRIBUTING.md": "contributing.md",
    ROOT / "examples" / "README.md": "examples.md",
    ROOT / "examples" / "travel-mode" / "README.md": "travel-mode.md",
    ROOT / "docs" / "README.md": "documents.md",
    **{path: path.name for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "README.md"},
}


def pages() -> dict[str, str]:
    """The Markdown of every page, by its file name."""
    documents = {name: linked(path) for path, name in PAGES.items()}
    return documents | {"commands.md": commands(), "http-routes.md": http_routes(), "files.md": files()}


def linked(document: Path) -> str:
    """A document whose links lead to pages of the site. What is no page there, such as code, is named without a link."""

    def target(link: re.Match[str]) -> str:
        text, address, anchor = link[1], link[2], link[3] or ""
        if "://" in address:
            return link[0]
        page = PAGES.get(Path(os.path.normpath(document.parent / address)))
        return f"[{text}]({page}{anchor})" if page else text

    return _LINK.sub(target, document.read_text())


def commands() -> str:
    """The help of every command."""
    lines = ["# Commands", "", "The help of every command, as `--help` prints it.", ""]
    for name, command in (("failover", failover), ("failover-worker", failover_worker)):
        for context in _contexts(click.Context(command, info_name=name, **SHOWN)):
            lines += [f"## {context.command_path}", "", "```text", context.command.get_help(context), "```", ""]
    return "\n".join(lines)


def _contexts(context: click.Context) -> Iterator[click.Context]:
    """A command, then the commands of its group, all levels down."""
    yield context
    group = context.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(context):
        if (command := group.get_command(context, name)) is not None:
            yield from _contexts(click.Context(command, context, name, **SHOWN))


def http_routes() -> str:
    """The routes of the web process, from its OpenAPI document."""
    document = openapi()
    lines = [
        "# HTTP routes",
        "",
        "Every route of `failover serve`, as `GET /openapi.json` describes it. See [http.md](http.md).",
        "",
    ]
    for path, operations in sorted(document["paths"].items()):
        for method, operation in operations.items():
            lines += _operation(method.upper(), path, operation)
    lines += ["## Schemas", ""]
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += [f"### {name}", "", _cell(schema.get("description", "")), "", *_fields(schema), ""]
    return "\n".join(lines)


def app() -> FastAPI:
    """The web app, without a Redis."""
    producer = AsyncProducer.from_url(NOWHERE, load_policies({}))
    return create_app(producer, connect(NOWHERE), Settings(Guardrail()), Draining(), {})


def openapi() -> dict[str, Any]:
    """The OpenAPI document of the web process."""
    route = next(each for each in app().routes if getattr(each, "path", "") == "/openapi.json")
    document: dict[str, Any] = json.loads(route.endpoint().body)  # type: ignore[attr-defined]
    return document


def _operation(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    roles = operation.get("x-roles")
    who = [f"Who may call: {', '.join(roles)}.", ""] if roles else []  # of the others, the description says it
    lines = [f"## {method} {path}", "", operation.get("description") or operation.get("summary", ""), "", *who]
    if parameters := operation.get("parameters"):
        lines += ["| parameter | in | type | |", "|---|---|---|---|"]
        lines += [
            f"| `{each['name']}` | {each['in']} | {_type(each.get('schema', {}))} | {_cell(each.get('description', ''))} |"
            for each in parameters
        ]
        lines += [""]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        lines += [f"Body ({kind}): {_type(content.get('schema', {}))}", ""]
    lines += ["| status | |", "|---|---|"]
    lines += [
        f"| {status} | {_cell(response.get('description', ''))} |"
        for status, response in operation["responses"].items()
    ]
    return [*lines, ""]


def _fields(schema: dict[str, Any]) -> list[str]:
    if not schema.get("properties"):
        return [_type(schema)]
    needed = schema.get("required", ())
    rows = [
        f"| `{name}`{' (required)' if name in needed else ''} | {_type(each)} | {_cell(each.get('description', ''))} |"
        for name, each in schema["properties"].items()
    ]
    return ["| field | type | |", "|---|---|---|", *rows]


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{each}`" for each in schema.get("enum", [schema.get("const")]))
    if several := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(map(_type, several))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "anything"))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def files() -> str:
    """The configuration files, whose comments explain their fields."""
    lines = [
        "# Files and variables",
        "",
        "The files as they are shipped; their comments explain every field. See [configuration.md](configuration.md).",
        "",
    ]
    for path in (ROOT / ".env.example", *sorted((ROOT / "policies").glob("*.yaml"))):
        kind = "yaml" if path.suffix == ".yaml" else "sh"
        lines += [f"## {path.relative_to(ROOT)}", "", f"```{kind}", path.read_text().rstrip(), "```", ""]
    return "\n".join(lines)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for gone in folder.glob("*.md"):
        gone.unlink()
    for name, text in pages().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
